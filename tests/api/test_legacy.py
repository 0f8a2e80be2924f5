"""``functions`` and ``function_call``, which older clients still send."""

from __future__ import annotations

from typing import Any

from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.api.conftest import CHAT, Api, chat
from tests.api.fake_engine import FakeEngine, Script, finished, started, tool
from tests.conformance.strict import check

FUNCTIONS = [{"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}]


def calls() -> Script:
    return [
        [started(), tool(0, id="call_1", name="weather")],
        [tool(0, arguments='{"city":')],
        [tool(0, arguments='"Oslo"}'), finished("tool_calls")],
    ]


async def test_a_call_is_worded_as_it_was_asked_for(api: Api, engine: FakeEngine) -> None:
    engine.scripts.append(calls())
    _, body = await api.post(CHAT, chat(functions=FUNCTIONS, function_call={"name": "weather"}))
    check(body, ChatCompletion)
    [choice] = body["choices"]
    assert choice["finish_reason"] == "function_call"
    assert choice["message"]["function_call"] == {"name": "weather", "arguments": '{"city":"Oslo"}'}
    assert (choice["message"]["content"], "tool_calls" in choice["message"]) == (None, False)
    [request] = engine.requests
    assert (request.tool_choice, request.tool_names, request.parallel_tool_calls) == ("required", ["weather"], False)
    assert request.tools == [{"type": "function", "function": FUNCTIONS[0]}]


async def test_streamed_the_name_comes_first(api: Api, engine: FakeEngine) -> None:
    engine.scripts.append(calls())
    chunks = (await api.stream(CHAT, chat(functions=FUNCTIONS)))[:-1]
    for chunk in chunks:
        check(chunk, ChatCompletionChunk)
    parts = [chunk["choices"][0]["delta"].get("function_call") for chunk in chunks]
    assert [part for part in parts if part] == [
        {"name": "weather", "arguments": ""},
        {"arguments": '{"city":'},
        {"arguments": '"Oslo"}'},
    ]
    assert chunks[-1]["choices"][0]["finish_reason"] == "function_call"


async def test_history_is_read_as_calls_and_their_results(api: Api, engine: FakeEngine) -> None:
    history: list[dict[str, Any]] = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": None, "function_call": {"name": "weather", "arguments": '{"city": '}},
        {"role": "function", "name": "weather", "content": "rain"},
    ]
    assert (await api.post(CHAT, chat(messages=history, functions=FUNCTIONS)))[0] == 200
    _, call, result = engine.requests[0].messages or []
    [made] = call["tool_calls"]
    assert made["function"] == {"name": "weather", "arguments": '{"city": '}
    assert result == {"role": "tool", "name": "weather", "content": "rain", "tool_call_id": made["id"]}
