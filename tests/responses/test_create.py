"""Creating responses, whole and streamed: items, events, usage, ends."""

from __future__ import annotations

from typing import Any

import pytest

from inference.errors import InvalidRequest, ModelUnavailable
from inference.ipc import TokenLogprob
from tests.api.fake_engine import FakeEngine, Script, failed, finished, hello, started, text, thought, tool
from tests.responses.conftest import ResponsesApi, ended

CALLS: Script = [
    [started()],
    [thought("let me")],
    [thought(" see")],
    [text("I ask.")],
    [tool(0, id="call_a", name="weather")],
    [tool(0, arguments='{"city":')],
    [tool(0, arguments='"Oslo"}')],
    [tool(1, id="call_b", name="time", arguments="{}"), finished("tool_calls")],
]
FUNCTION: dict[str, Any] = {"type": "function", "name": "weather", "parameters": {"type": "object"}}
TOOLS = [FUNCTION, {"type": "function", "name": "time"}]


async def test_a_text(api: ResponsesApi) -> None:
    answer = await api.create()
    assert answer["status"] == "completed"
    [message] = answer["output"]
    assert message["content"][0]["text"] == "Hello"
    assert answer["usage"] == {
        "input_tokens": 7,
        "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 1},
        "total_tokens": 9,
    }
    assert answer["completed_at"] >= answer["created_at"]


async def test_the_events_of_a_text(api: ResponsesApi) -> None:
    events = await api.events()
    assert [event["type"].removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]


async def test_streamed_and_not_it_is_the_same(api: ResponsesApi, engine: FakeEngine) -> None:
    engine.scripts += [CALLS, CALLS]
    whole = await api.create(tools=TOOLS)
    events = await api.events(tools=TOOLS)
    last = events[-1]["response"]
    assert anonymous(last["output"]) == anonymous(whole["output"])
    assert last["usage"] == whole["usage"]
    assert [item["type"] for item in whole["output"]] == ["reasoning", "message", "function_call", "function_call"]
    assert [item["status"] for item in whole["output"]] == ["completed"] * 4
    assert whole["output"][0]["content"] == [{"type": "reasoning_text", "text": "let me see"}]
    assert whole["output"][0]["summary"] == []
    calls = [(item["call_id"], item["name"], item["arguments"]) for item in whole["output"][2:]]
    assert calls == [("call_a", "weather", '{"city":"Oslo"}'), ("call_b", "time", "{}")]


async def test_deltas_add_up_to_the_items(api: ResponsesApi, engine: FakeEngine) -> None:
    engine.scripts.append(CALLS)
    events = await api.events(tools=TOOLS)
    grown: dict[int, str] = {}
    for event in events:
        if event["type"].endswith(".delta"):
            grown[event["output_index"]] = grown.get(event["output_index"], "") + event["delta"]
    for event in events:
        if event["type"] in ("response.reasoning_text.done", "response.output_text.done"):
            assert grown[event["output_index"]] == event["text"]
        if event["type"] == "response.function_call_arguments.done":
            assert grown[event["output_index"]] == event["arguments"]
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    added = [event["item"]["id"] for event in events if event["type"] == "response.output_item.added"]
    assert done == events[-1]["response"]["output"]
    assert added == [item["id"] for item in done]


@pytest.mark.parametrize("streamed", [False, True])
async def test_the_limit_makes_it_incomplete(api: ResponsesApi, engine: FakeEngine, streamed: bool) -> None:
    engine.scripts.append([[started()], [text("Hel")], [finished("length")]])
    if streamed:
        events = await api.events(max_output_tokens=3)
        assert events[-1]["type"] == "response.incomplete"
        answer = events[-1]["response"]
    else:
        answer = await api.create(max_output_tokens=3)
    assert engine.requests[-1].max_tokens == 3
    assert answer["status"] == "incomplete"
    assert answer["incomplete_details"] == {"reason": "max_output_tokens"}
    assert answer["output"][0]["status"] == "incomplete"


async def test_an_answer_of_nothing_has_an_empty_message(api: ResponsesApi, engine: FakeEngine) -> None:
    engine.scripts += [[[started()], [finished(tokens=0)]]] * 2
    answer = await api.create()
    assert answer["output"][0]["content"][0]["text"] == ""
    assert (await api.events())[-1]["response"]["output"][0]["content"][0]["text"] == ""


async def test_a_failure_in_the_middle(api: ResponsesApi, engine: FakeEngine) -> None:
    engine.scripts.append([[started()], [text("Hel")], [failed("worker_died", "the model's process died")]])
    events = await api.events()
    error, last = events[-2:]
    assert (error["type"], error["code"]) == ("error", "worker_died")
    assert last["type"] == "response.failed"
    assert last["response"]["error"] == {"code": "server_error", "message": "the model's process died"}
    assert last["response"]["output"][0]["content"][0]["text"] == "Hel"
    assert last["response"]["output"][0]["status"] == "incomplete"


async def test_a_refusal_is_a_status(api: ResponsesApi, engine: FakeEngine) -> None:
    engine.scripts += [[ModelUnavailable("draining", retry_after=3)]] * 2
    for stream in (False, True):
        status, headers, _ = await api.send("POST", "/v1/responses", {"input": "Hi", "stream": stream})
        assert (status, headers["retry-after"]) == (503, "3")


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("messages", "input"),
        ("response_format.json_schema.schema", "text.format"),
        ("tools[1].function.parameters", "tools[1].parameters"),
        ("temperature", "temperature"),
    ],
)
async def test_refusals_of_the_engine_name_our_parameters(
    api: ResponsesApi, engine: FakeEngine, theirs: str, ours: str
) -> None:
    engine.scripts += [[InvalidRequest(f"{theirs} cannot be used", param=theirs)] for _ in range(2)]
    status, error = await api.refused()
    assert (status, error["param"], error["message"]) == (400, ours, f"{ours} cannot be used")
    made = await api.create(background=True, stream=None)
    await ended(made["id"])
    failed_one = await api.fetch(made["id"])
    assert failed_one["error"] == {"code": "invalid_prompt", "message": f"{ours} cannot be used"}


async def test_log_probabilities(api: ResponsesApi, engine: FakeEngine) -> None:
    token = TokenLogprob(5, "Hi", b"Hi", -0.5, [])
    script: Script = [[started()], [text("", logprobs=[token])], [text("Hi", logprobs=[token])], [finished()]]
    engine.scripts += [script, script]
    include = ["message.output_text.logprobs"]
    answer = await api.create(include=include, top_logprobs=2)
    assert engine.requests[-1].sampling.top_logprobs == 2
    found = answer["output"][0]["content"][0]["logprobs"]
    assert found == [{"token": "Hi", "bytes": [72, 105], "logprob": -0.5, "top_logprobs": []}] * 2
    events = await api.events(include=include)
    [delta] = [event for event in events if event["type"] == "response.output_text.delta"]
    assert len(delta["logprobs"]) == 2


async def test_what_was_asked_is_repeated(api: ResponsesApi, engine: FakeEngine) -> None:
    asked: dict[str, Any] = {
        "instructions": "Be brief.",
        "max_output_tokens": 50,
        "max_tool_calls": 3,
        "metadata": {"run": "7"},
        "parallel_tool_calls": False,
        "prompt_cache_key": "k",
        "safety_identifier": "s",
        "temperature": 0.25,
        "tool_choice": {"type": "function", "name": "weather"},
        "top_p": 0.5,
        "user": "u",
    }
    engine.scripts.append(hello())
    answer = await api.create(tools=[FUNCTION | {"strict": True}], **asked)
    assert {name: answer[name] for name in asked} == asked
    assert answer["tools"] == [FUNCTION | {"strict": True, "description": None}]
    request = engine.requests[-1]
    assert request.messages is not None
    assert request.messages[0] == {"role": "system", "content": "Be brief."}
    assert (request.tool_choice, request.tool_names) == ("required", ["weather"])
    assert request.tools[0]["function"]["strict"] is True
    assert not request.parallel_tool_calls


async def test_a_schema(api: ResponsesApi, engine: FakeEngine) -> None:
    wanted = {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}
    answer = await api.create(text={"format": wanted})
    assert answer["text"]["format"] == wanted | {"description": None}
    assert engine.requests[-1].output_format.schema == {"type": "object"}


async def test_reasoning_that_is_handed_back_sealed(api: ResponsesApi, engine: FakeEngine) -> None:
    engine.scripts.append([[started()], [thought("because")], [text("Yes."), finished()]])
    answer = await api.create(include=["reasoning.encrypted_content"], store=False, reasoning={"effort": "high"})
    reasoning, message = answer["output"]
    assert reasoning["encrypted_content"]
    assert engine.requests[-1].template_kwargs == {"reasoning_effort": "high"}
    back = {"type": "reasoning", "summary": [], "encrypted_content": reasoning["encrypted_content"], "content": None}
    await api.create([back, message, {"role": "user", "content": "Why?"}], store=False)
    assert engine.requests[-1].messages == [
        {"role": "assistant", "content": "Yes.", "reasoning_content": "because"},
        {"role": "user", "content": "Why?"},
    ]
    status, error = await api.refused([back | {"encrypted_content": "gAAAA"}, {"role": "user", "content": "Why?"}])
    assert (status, error["code"]) == (400, "invalid_encrypted_content")


def anonymous(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [item | {"id": ""} for item in items]
