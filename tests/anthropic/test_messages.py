"""Whole and streamed messages: blocks, stop reasons, usage, and that both say the same."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from inference.ipc import Delta, Finished, Prefill, Usage
from inference.principal import Principal
from inference.protocols.anthropic import message_call
from inference.protocols.anthropic.wording import PING
from inference.protocols.serving import stream
from tests.anthropic.conftest import MESSAGES, MessagesApi, asking, check_order, gathered
from tests.api.fake_engine import FakeEngine, Script, at_once, finished, started, text, thought, tool

WEATHER = {"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}


def agent() -> Script:
    """Thinks, says something, calls two tools, one of them without arguments; with the white space of real models."""
    return [
        [started()],
        [thought("Let me "), thought("see.\n")],
        [text("\n\n")],
        [text("I "), text("look.")],
        [text("\n")],
        [tool(0, id="call_a", name="weather"), tool(0, arguments='{"city":')],
        [tool(0, arguments=' "Oslo"}'), tool(1, id="call_b", name="time")],
        [finished("tool_calls", tokens=12)],
    ]


async def test_a_message(api: MessagesApi, engine: FakeEngine) -> None:
    body = await api.create("Hi")
    assert body["id"].startswith("msg_")
    assert body["model"] == "acme/tiny"
    assert body["content"] == [{"type": "text", "text": "Hello"}]
    assert (body["stop_reason"], body["stop_sequence"]) == ("end_turn", None)
    usage = body["usage"]
    assert (usage["input_tokens"], usage["cache_read_input_tokens"], usage["output_tokens"]) == (4, 3, 2)
    assert usage["output_tokens_details"] == {"thinking_tokens": 1}
    [request] = engine.requests
    assert (request.messages, request.max_tokens) == ([{"role": "user", "content": "Hi"}], 64)


async def test_the_model_is_named_as_it_was_asked_for(api: MessagesApi) -> None:
    assert (await api.create(model="small"))["model"] == "small"
    assert (await api.create(model=""))["model"] == "acme/tiny"


async def test_every_kind_of_block(api: MessagesApi, engine: FakeEngine) -> None:
    engine.scripts.append(agent())
    body = await api.create("Hi", tools=[WEATHER])
    thinking, said, first, second = body["content"]
    assert (thinking["type"], thinking["thinking"]) == ("thinking", "Let me see.\n")
    assert thinking["signature"]
    assert said == {"type": "text", "text": "\n\nI look.\n"}
    assert first == {"type": "tool_use", "id": "toolu_a", "name": "weather", "input": {"city": "Oslo"}}
    assert second == {"type": "tool_use", "id": "toolu_b", "name": "time", "input": {}}
    assert body["stop_reason"] == "tool_use"


@pytest.mark.parametrize("together", [False, True])
async def test_streamed_it_is_the_same(api: MessagesApi, engine: FakeEngine, together: bool) -> None:
    if together:
        engine.between_batches = at_once
    engine.scripts += [agent(), agent()]
    events = await api.events("Hi", tools=[WEATHER])
    check_order(events)
    whole = await api.create("Hi", tools=[WEATHER])
    assert gathered(events) == whole["content"]
    assert events[-2]["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    for name, value in events[-2]["usage"].items():
        assert whole["usage"][name] == value


async def test_a_stream_begins_with_what_is_known(api: MessagesApi) -> None:
    first, *_ = await api.events("Hi")
    message = first["message"]
    assert (message["content"], message["stop_reason"], message["usage"]["output_tokens"]) == ([], None, 0)


async def test_a_ping_follows_the_start(api: MessagesApi) -> None:
    _, _, content = await api.send("POST", MESSAGES, asking(stream=True))
    names = [line for line in content.decode().split("\n") if line.startswith("event: ")]
    assert names[:3] == ["event: message_start", "event: ping", "event: content_block_start"]
    assert PING in content


@pytest.mark.parametrize(
    ("reason", "sequence", "tokens", "told"),
    [
        ("stop", None, 2, "end_turn"),
        ("stop", "END", 2, "stop_sequence"),
        ("length", None, 64, "max_tokens"),
        ("length", None, 63, "model_context_window_exceeded"),
        ("tool_calls", None, 2, "tool_use"),
    ],
)
async def test_why_it_stopped(
    api: MessagesApi, engine: FakeEngine, reason: Any, sequence: str | None, tokens: int, told: str
) -> None:
    end = Finished("", reason=reason, stop_sequence=sequence, usage=Usage(7, tokens))
    engine.scripts += [[[started()], [text("x"), end]]] * 2
    body = await api.create(stop_sequences=["END"])
    assert (body["stop_reason"], body["stop_sequence"]) == (told, sequence)
    events = await api.events(stop_sequences=["END"])
    assert events[-2]["delta"] == {"stop_reason": told, "stop_sequence": sequence}


@pytest.mark.parametrize("streams", [False, True])
async def test_a_call_is_a_reason_also_where_its_tool_was_named(
    api: MessagesApi, engine: FakeEngine, streams: bool
) -> None:
    engine.scripts.append([[started()], [tool(0, id="call_a", name="weather", arguments="{}"), finished("stop")]])
    asked = {"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "weather"}}
    told = (await api.events(**asked))[-2]["delta"] if streams else await api.create(**asked)
    assert told["stop_reason"] == "tool_use"


async def test_an_answer_of_nothing(api: MessagesApi, engine: FakeEngine) -> None:
    engine.scripts += [[[started()], [text(" \n"), finished()]]] * 2
    assert (await api.create())["content"] == []
    events = await api.events()
    check_order(events)
    assert [event["type"] for event in events] == ["message_start", "message_delta", "message_stop"]


async def test_white_space_at_the_beginning_is_kept_where_text_follows(api: MessagesApi, engine: FakeEngine) -> None:
    engine.scripts.append([[started()], [text("\n")], [text(" ")], [text("x"), finished()]])
    assert (await api.create())["content"] == [{"type": "text", "text": "\n x"}]


@pytest.mark.parametrize(
    ("arguments", "input"),
    [
        ('{"city": "Os', {}),
        ('{"city": "Oslo", "days": [1, 2', {"city": "Oslo", "days": [1, 2]}),
        ('{"city": "Oslo", "no', {"city": "Oslo"}),
        ("", {}),
        ("rubbish", {}),
        ("[1]", {}),
    ],
)
async def test_a_call_that_was_cut_off(
    api: MessagesApi, engine: FakeEngine, arguments: str, input: dict[str, Any]
) -> None:
    engine.scripts.append(
        [[started()], [tool(0, id="call_a", name="weather", arguments=arguments), finished("length", tokens=64)]]
    )
    body = await api.create(tools=[WEATHER])
    assert (body["content"][0]["input"], body["stop_reason"]) == (input, "max_tokens")


@pytest.mark.parametrize("streams", [False, True])
async def test_thoughts_that_are_not_asked_for_are_left_out(
    api: MessagesApi, engine: FakeEngine, streams: bool
) -> None:
    engine.scripts.append(agent())
    thinking = {"type": "disabled"}
    content = (
        gathered(await api.events(thinking=thinking)) if streams else (await api.create(thinking=thinking))["content"]
    )
    assert [block["type"] for block in content] == ["text", "tool_use", "tool_use"]
    assert engine.requests[0].template_kwargs == {"enable_thinking": False}


async def test_omitted_thoughts_are_signed(api: MessagesApi, engine: FakeEngine) -> None:
    engine.scripts += [agent(), agent(), agent()]
    thinking = {"type": "adaptive", "display": "omitted"}
    whole = (await api.create(thinking=thinking))["content"]
    streamed = gathered(await api.events(thinking=thinking))
    shown = (await api.create())["content"]
    assert whole == streamed
    assert (whole[0]["thinking"], whole[0]["signature"]) == ("", shown[0]["signature"])


async def test_thoughts_between_texts(api: MessagesApi, engine: FakeEngine) -> None:
    script: Script = [
        [started()],
        [Delta("", content="a"), Delta("", reasoning="b"), Delta("", content="c")],
        [finished()],
    ]
    engine.scripts += [script, script]
    whole = (await api.create())["content"]
    assert [block["type"] for block in whole] == ["text", "thinking", "text"]
    events = await api.events()
    check_order(events)
    assert gathered(events) == whole


async def test_pings_go_into_silence(engine: FakeEngine) -> None:
    """Before the start as well, and while a prompt is read; an agent's client sees no comments."""
    engine.load_gate, read = asyncio.Event(), asyncio.Event()
    engine.scripts.append([[started()], [Prefill("", 512, 4096)], read, [text("x"), finished()]])
    body = orjson.dumps(asking(stream=True))
    call = message_call(body, Principal("owner", "test", frozenset({"inference"})))
    call.status_wait_s, call.keep_alive_s = 0.0, 0.001
    chunks = stream(call)
    assert await anext(chunks) == await anext(chunks) == PING
    engine.load_gate.set()
    while (chunk := await anext(chunks)) == PING:
        pass
    assert chunk.startswith(b"event: message_start")
    while (chunk := await anext(chunks)) == PING:
        pass
    assert chunk == b": prefill 512 of 4096 tokens\n\n" + PING
    read.set()
    rest = b"".join([chunk async for chunk in chunks])
    assert rest.endswith(b'event: message_stop\ndata: {"type":"message_stop"}\n\n')
