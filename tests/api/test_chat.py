"""``POST /v1/chat/completions``."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from inference.errors import InsufficientMemory, TooManyRequests
from inference.ipc import TokenLogprob, TopLogprob
from tests.api.conftest import CHAT, Api, chat
from tests.api.fake_engine import FakeEngine, Script, failed, finished, hello, started, text, thought, tool

OURS = {"reasoning_content", "reasoning"}


def assert_openai(model: type[Any], value: Any) -> None:
    """``value`` validates against OpenAI's published type, strictly, with no field beyond ``OURS``."""
    parsed = model.model_validate(value, strict=True)

    def walk(part: Any) -> None:
        if hasattr(part, "model_extra"):
            assert set(part.model_extra or {}) <= OURS
            for name in type(part).model_fields:
                walk(getattr(part, name))
        elif isinstance(part, list):
            for item in part:
                walk(item)

    walk(parsed)


async def test_it_works(api: Api, engine: FakeEngine) -> None:
    status, body = await api.post(CHAT, chat())
    assert status == 200
    assert_openai(ChatCompletion, body)
    choice = body["choices"][0]
    assert choice["message"]["content"] == "Hello"
    assert choice["logprobs"] is None
    assert choice["finish_reason"] == "stop"
    assert body["model"] == "acme/tiny"
    assert body["usage"]["prompt_tokens"] == 7
    assert body["usage"]["total_tokens"] == 9
    assert body["usage"]["prompt_tokens_details"]["cached_tokens"] == 3
    assert body["usage"]["completion_tokens_details"]["reasoning_tokens"] == 1
    assert engine.requests[0].messages == [{"role": "user", "content": "Hi"}]


async def test_a_stream_has_role_text_finish_and_done(api: Api) -> None:
    *chunks, done = await api.stream(CHAT, chat())
    assert done == "[DONE]"
    for chunk in chunks:
        assert_openai(ChatCompletionChunk, chunk)
        assert "usage" not in chunk
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0]["role"] == "assistant"
    assert [delta.get("content") for delta in deltas] == ["", "Hel", "lo", None]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, None, "stop"]
    assert len({chunk["id"] for chunk in chunks}) == 1


async def test_usage_comes_in_a_chunk_of_its_own(api: Api) -> None:
    *chunks, last, done = await api.stream(CHAT, chat(stream_options={"include_usage": True}))
    assert done == "[DONE]"
    assert all(chunk["usage"] is None for chunk in chunks)
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 2
    assert_openai(ChatCompletionChunk, last)


async def test_the_name_that_was_asked_for_is_echoed(api: Api) -> None:
    for asked, answered in (("small", "small"), ("", "acme/tiny"), ("local-model", "local-model")):
        _, body = await api.post(CHAT, chat(model=asked))
        assert body["model"] == answered


def several_kinds() -> Script:
    return [
        [started()],
        [thought("hm, "), thought("yes")],
        [text("Let me look.")],
        [tool(0, id="call_1", name="weather", arguments='{"city":')],
        [tool(0, arguments='"Oslo"}'), tool(1, id="call_2", name="time")],
        [finished("tool_calls", tokens=9)],
    ]


async def test_reasoning_and_tool_calls(api: Api, engine: FakeEngine) -> None:
    engine.scripts.append(several_kinds())
    _, body = await api.post(CHAT, chat())
    assert_openai(ChatCompletion, body)
    message = body["choices"][0]["message"]
    assert message["reasoning_content"] == message["reasoning"] == "hm, yes"
    assert message["content"] == "Let me look."
    calls = [(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in message["tool_calls"]]
    assert calls == [("call_1", "weather", '{"city":"Oslo"}'), ("call_2", "time", "")]
    assert body["choices"][0]["finish_reason"] == "tool_calls"


async def test_streamed_tool_calls_begin_with_the_name(api: Api, engine: FakeEngine) -> None:
    engine.scripts.append(several_kinds())
    chunks = (await api.stream(CHAT, chat()))[:-1]
    for chunk in chunks:
        assert_openai(ChatCompletionChunk, chunk)
    parts = [call for chunk in chunks for call in chunk["choices"][0]["delta"].get("tool_calls", [])]
    assert parts[0] == {
        "index": 0,
        "id": "call_1",
        "type": "function",
        "function": {"name": "weather", "arguments": ""},
    }
    assert parts[1:3] == [
        {"index": 0, "function": {"arguments": '{"city":'}},
        {"index": 0, "function": {"arguments": '"Oslo"}'}},
    ]
    assert parts[3]["function"]["name"] == "time"


async def test_a_call_without_text_has_null_content(api: Api, engine: FakeEngine) -> None:
    engine.scripts.append([[started(), tool(0, id="call_1", name="now", arguments="{}"), finished("tool_calls")]])
    _, body = await api.post(CHAT, chat())
    assert body["choices"][0]["message"]["content"] is None


async def test_several_choices_keep_their_index(api: Api, engine: FakeEngine) -> None:
    script: Script = [
        [started()],
        [text("a"), text("x", choice=1)],
        [text("y", choice=1), finished(choice=1, tokens=3)],
        [text("b"), finished("length", tokens=4)],
    ]
    engine.scripts += [script, script]
    _, body = await api.post(CHAT, chat(n=2))
    assert [choice["message"]["content"] for choice in body["choices"]] == ["ab", "xy"]
    assert [choice["finish_reason"] for choice in body["choices"]] == ["length", "stop"]
    assert body["usage"]["completion_tokens"] == 7
    chunks = (await api.stream(CHAT, chat(n=2)))[:-1]
    said = ["", ""]
    for chunk in chunks:
        choice = chunk["choices"][0]
        said[choice["index"]] += choice["delta"].get("content", "")
    assert said == ["ab", "xy"]


async def test_logprobs(api: Api, engine: FakeEngine) -> None:
    token = TokenLogprob(5, "é", "é".encode(), -0.5, [TopLogprob(5, "é", "é".encode(), -0.5)])
    never = TokenLogprob(6, "!", b"!", float("-inf"), [])
    script: Script = [[started()], [text("é", logprobs=[token]), text("", logprobs=[never])], [finished()]]
    engine.scripts += [script, script]
    _, body = await api.post(CHAT, chat(logprobs=True, top_logprobs=1))
    assert_openai(ChatCompletion, body)
    first, second = body["choices"][0]["logprobs"]["content"]
    assert first["bytes"] == [195, 169]
    assert first["top_logprobs"][0]["token"] == "é"
    assert second["logprob"] == -9999.0
    assert engine.requests[0].sampling.top_logprobs == 1
    chunks = (await api.stream(CHAT, chat(logprobs=True)))[:-1]
    streamed = [c for chunk in chunks for c in (chunk["choices"][0]["logprobs"] or {"content": []})["content"]]
    assert streamed == [first, second]
    assert engine.requests[1].sampling.top_logprobs == 0


@pytest.mark.parametrize("stream", [False, True])
async def test_a_refusal_is_a_real_status(api: Api, engine: FakeEngine, stream: bool) -> None:
    engine.scripts.append([InsufficientMemory("acme/tiny does not fit", details={"needed_bytes": 9, "free_bytes": 4})])
    status, headers, content = await api.send("POST", CHAT, chat(stream=stream))
    assert status == 507
    assert headers["x-should-retry"] == "false"
    assert b'"needed_bytes":9' in content
    engine.scripts.append([TooManyRequests("the queue is full", retry_after=1.2)])
    status, headers, content = await api.send("POST", CHAT, chat(stream=stream))
    assert status == 429
    assert headers["Retry-After"] == "2"
    assert b'"rate_limit_error"' in content


@pytest.mark.parametrize("stream", [False, True])
async def test_failing_before_the_start_is_a_real_status(api: Api, engine: FakeEngine, stream: bool) -> None:
    engine.scripts.append([[failed("context_length_exceeded", "9000 tokens, but the context is 2048")]])
    status, body = await api.post(CHAT, chat(stream=stream))
    assert status == 400
    assert body["error"]["code"] == "context_length_exceeded"


async def test_failing_midway_is_an_error_frame_and_a_clean_end(api: Api, engine: FakeEngine) -> None:
    engine.scripts.append([[started()], [text("Hel")], [failed("worker_died", "the model's process died")]])
    *_, said, error, done = await api.stream(CHAT, chat())
    assert said["choices"][0]["delta"]["content"] == "Hel"
    assert error["error"]["code"] == "worker_died"
    assert error["error"]["type"] == "server_error"
    assert done == "[DONE]"
    engine.scripts.append([[started()], [text("Hel")], [failed("worker_died", "the model's process died")]])
    status, body = await api.post(CHAT, chat())
    assert status == 503
    assert body["error"]["message"] == "the model's process died"


async def test_an_answer_that_just_stops_is_an_error(api: Api, engine: FakeEngine) -> None:
    engine.scripts += [[[started()], [text("Hel")]], [[started()], [text("Hel")]]]
    assert (await api.post(CHAT, chat()))[0] == 500
    *_, error, done = await api.stream(CHAT, chat())
    assert (error["error"]["code"], done) == ("internal_error", "[DONE]")


async def test_an_unknown_model_is_a_404_that_names_the_nearest(api: Api) -> None:
    status, body = await api.post(CHAT, chat(model="acme/tinny"))
    assert status == 404
    assert body["error"]["code"] == "model_not_found"
    assert "acme/tiny" in body["error"]["message"]


async def test_unknown_parameters_are_named_in_a_header(api: Api, engine: FakeEngine) -> None:
    extra = {"banana": 1, "weird\r\nname": 1, "user": "u", "metadata": {"a": "b"}, "store": True, "n": 1, "audio": None}
    request = chat(**extra)
    request["messages"][0]["mood"] = "good"
    status, headers, _ = await api.send("POST", CHAT, request)
    assert status == 200
    assert headers["x-lmx-ignored"] == "banana, weird%0D%0Aname, messages[].mood"
    engine.scripts.append(hello())
    _, headers, _ = await api.send("POST", CHAT, chat())
    assert "x-lmx-ignored" not in headers
