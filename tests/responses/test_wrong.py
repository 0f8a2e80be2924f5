"""Input that is wrong, huge or hostile is refused by name; slow readers, long conversations."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from inference.engine.contract import ModelStatus
from inference.ipc import GenerateRequest
from inference.principal import Principal
from inference.protocols.responses.calls import asked, parsed
from inference.protocols.responses.store import ResponseStore
from inference.protocols.serving import stream
from tests.api.fake_engine import FakeEngine, Script, at_once, finished, started, text, thought
from tests.responses.conftest import RESPONSES, ResponsesApi, asking, events_of

OWNER = Principal("owner", "tests", frozenset({"inference", "admin"}))
MESSAGE = {"role": "user", "content": "Hi"}


@pytest.mark.parametrize(
    ("items", "param", "code"),
    [
        ([5], "input[0]", "invalid_type"),
        ([{}], "input[0].role", "missing_required_parameter"),
        ([{"role": "tool", "content": "x"}], "input[0].role", "invalid_value"),
        ([{"role": "user"}], "input[0].content", "missing_required_parameter"),
        ([{"role": "user", "content": None}], "input[0].content", "missing_required_parameter"),
        ([{"role": "user", "content": 5}], "input[0].content", "invalid_type"),
        (
            [MESSAGE, {"role": "user", "content": [{"type": "input_text"}]}],
            "input[1].content[0].text",
            "missing_required_parameter",
        ),
        ([{"role": "user", "content": [{"type": "banana"}]}], "input[0].content[0].type", "invalid_value"),
        ([{"type": "function_call", "name": "f", "arguments": "{}"}], "input[0].call_id", "missing_required_parameter"),
        ([{"type": "function_call", "call_id": "a", "arguments": "{}"}], "input[0].name", "missing_required_parameter"),
        ([{"type": "function_call", "call_id": "a", "name": "f"}], "input[0].arguments", "missing_required_parameter"),
        ([{"type": "function_call_output", "call_id": "a"}], "input[0].output", "missing_required_parameter"),
        ([{"type": "item_reference"}], "input[0].id", "missing_required_parameter"),
        (
            [{"type": "reasoning", "summary": [{"type": "input_text", "text": "x"}]}],
            "input[0].summary[0].type",
            "invalid_value",
        ),
        ([{"type": "web_search_call", "id": "ws_1"}], "input[0].type", "unsupported_content"),
    ],
)
async def test_items_that_are_wrong(api: ResponsesApi, items: list[Any], param: str, code: str) -> None:
    status, error = await api.refused(items)
    assert (status, error["param"], error["code"]) == (400, param, code), error


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"input": None},
        {"input": []},
        {"input": "x", "metadata": {"k" * 65: "v"}},
        {"input": "x", "metadata": {"k": "v" * 513}},
        {"input": "x", "tools": [{"type": "function"}]},
        {"input": "x", "tools": [{"type": "function", "name": "a b"}]},
        {"input": "x", "tools": [{"type": "function", "name": "f"}] * 2},
        {"input": "x", "tools": [{"type": "function", "name": "f", "parameters": {"type": "array"}}]},
        {"input": "x", "tools": [{"type": "function", "name": "f", "parameters": {"properties": []}}]},
        {"input": "x", "tools": [{"type": "function", "name": "f", "defer_loading": True}]},
        {"input": "x", "tools": [{"type": "function", "name": "f"}], "tool_choice": {"type": "function"}},
        {"input": "x", "tools": [{"type": "function", "name": "f"}], "tool_choice": {"type": "allowed_tools"}},
        {"input": "x", "tools": [{"type": "function", "name": "f"}], "tool_choice": {"type": "mcp"}},
        {"input": "x", "chat_template_kwargs": {"tools": []}},
        {"input": "x", "previous_response_id": "x" * 300},
    ],
)
async def test_bodies_that_are_wrong(api: ResponsesApi, engine: FakeEngine, body: dict[str, Any]) -> None:
    for path in (RESPONSES, f"{RESPONSES}/input_tokens"):
        status, answer = await api.post(path, body)
        assert status == 400, answer
        assert answer["error"]["param"]
    assert engine.requests == []


async def test_unknown_names_are_reported(api: ResponsesApi) -> None:
    status, headers, _ = await api.send("POST", RESPONSES, asking(banana=1, background=True))
    assert (status, headers["x-lmx-ignored"]) == (200, "banana")
    item = {**MESSAGE, "banana": 1}
    _, headers, _ = await api.send("POST", RESPONSES, asking([item]))
    assert headers["x-lmx-ignored"] == "input[].banana"


async def test_many_items(api: ResponsesApi, engine: FakeEngine) -> None:
    made = await api.create([MESSAGE] * 5000)
    assert len(engine.requests[-1].messages or []) == 5000
    status, body = await api.get(f"{RESPONSES}/{made['id']}/input_items?limit=100&order=asc")
    assert (status, len(body["data"]), body["has_more"]) == (200, 100, True)


async def test_a_slow_reader_gets_the_same(engine: FakeEngine) -> None:
    """Far behind, deltas are joined; items still open and close in their order, and numbers have no gap."""
    words = [f"word {number} " for number in range(3000)]
    script: Script = [[started()], [thought(word) for word in words], [text(word) for word in words], [finished()]]
    engine.scripts.append(script)
    engine.between_batches = at_once
    store = ResponseStore()
    call = asked(await parsed(orjson.dumps(asking(stream=True)), OWNER, store), store).call
    chunks = stream(call)
    first = await anext(chunks)
    await engine.generations[0].left.wait()
    events = events_of(first + b"".join([chunk async for chunk in chunks]))
    output = events[-1]["response"]["output"]
    assert [item["content"][0]["text"] for item in output] == ["".join(words)] * 2
    done = [event for event in events if event["type"] == "response.output_text.done"]
    assert "".join(e["delta"] for e in events if e["type"] == "response.output_text.delta") == done[0]["text"]
    assert len(events) < len(words)


async def test_a_conversation_that_is_too_long_loses_its_oldest(api: ResponsesApi, engine: FakeEngine) -> None:
    """The fake counts words."""
    engine.states["acme/tiny"] = ModelStatus("acme/tiny", "ready", context=100)
    call = {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "a", "output": "far " * 5}
    items = [{"role": "user", "content": "old " * 60}, call, output, {"role": "user", "content": "new " * 40}]
    whole = {"input": items, "instructions": "Be brief.", "truncation": "auto"}
    answer = await api.create(items, instructions="Be brief.", truncation="auto")
    assert answer["truncation"] == "auto"
    assert contents(engine.requests[-1]) == ["Be brief.", "", "far " * 5, "new " * 40]
    await api.create([{"role": "user", "content": "short"}], truncation="auto")
    assert contents(engine.requests[-1]) == ["short"]
    engine.states["acme/tiny"] = ModelStatus("acme/tiny", "ready", context=60)
    await api.create(items, instructions=whole["instructions"], truncation="auto")
    assert contents(engine.requests[-1]) == ["Be brief.", "new " * 40]
    engine.states["acme/tiny"] = ModelStatus("acme/tiny", "ready", context=10)
    await api.create(items, truncation="auto")
    assert contents(engine.requests[-1]) == ["new " * 40], "the last item stays; the engine refuses what is too long"


def contents(request: GenerateRequest) -> list[str]:
    return [str(message["content"]) for message in request.messages or []]
