"""How streams behave in time: first byte, silence, clients that leave, cancelled requests, fast generations."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from inference.errors import ModelUnavailable
from inference.principal import Principal
from inference.protocols.openai import chat_call
from inference.protocols.serving import Call, respond, stream
from tests.api.conftest import CHAT, Api, Wire, chat, payloads
from tests.api.fake_engine import FakeEngine, Script, at_once, finished, started, text

OWNER = Principal("owner", "tests", frozenset({"inference", "admin"}))
Open = Callable[[str, dict[str, Any]], Wire]


def streamed_call(**timing: float) -> Call:
    call = chat_call(orjson.dumps(chat(stream=True)), OWNER)
    for name, value in timing.items():
        setattr(call, name, value)
    return call


async def test_the_status_waits_for_the_start(wire: Open, engine: FakeEngine) -> None:
    gate = asyncio.Event()
    engine.scripts.append([gate, [started(), text("x"), finished()]])
    client = wire(CHAT, chat(stream=True))
    await client.send()
    opening = asyncio.create_task(client.start())
    await engine.made.wait()
    assert not opening.done()
    gate.set()
    assert await opening == 200


async def test_comments_flow_while_a_model_loads(engine: FakeEngine) -> None:
    engine.load_gate = asyncio.Event()
    chunks = stream(streamed_call(status_wait_s=0.01, keep_alive_s=0.01))
    assert await anext(chunks) == b": keep-alive\n\n"
    assert await anext(chunks) == b": keep-alive\n\n"
    engine.load_gate.set()
    rest = b"".join([chunk async for chunk in chunks])
    assert payloads(rest)[-1] == "[DONE]"


async def test_a_token_whose_text_is_held_back_writes_nothing(engine: FakeEngine) -> None:
    first, second = asyncio.Event(), asyncio.Event()
    engine.scripts.append([[started()], first, [text("")], second, [text("x"), finished()]])
    chunks = stream(streamed_call())
    await anext(chunks)
    following = asyncio.ensure_future(anext(chunks))
    first.set()
    for _ in range(20):
        await asyncio.sleep(0)
    assert not following.done()
    second.set()
    assert payloads(await following)[0]["choices"][0]["delta"]["content"] == "x"
    assert b": keep-alive" not in b"".join([chunk async for chunk in chunks])


async def test_a_refusal_after_the_status_is_a_frame(engine: FakeEngine) -> None:
    engine.load_gate = asyncio.Event()
    engine.scripts.append([ModelUnavailable("loading failed", retry_after=5)])
    chunks = stream(streamed_call(status_wait_s=0.01))
    assert (await anext(chunks)).startswith(b":")
    engine.load_gate.set()
    error, done = payloads(b"".join([chunk async for chunk in chunks]))
    assert (error["error"]["code"], done) == ("model_unavailable", "[DONE]")


async def test_leaving_in_the_middle_cancels(wire: Open, engine: FakeEngine) -> None:
    engine.scripts.append([[started(), text("x")], asyncio.Event()])
    client = wire(CHAT, chat(stream=True))
    await client.send()
    assert await client.start() == 200
    seen = b""
    while b'"x"' not in seen:
        seen += await client.chunk()
    await client.leave()
    await asyncio.wait_for(engine.generations[0].left.wait(), 5)
    assert engine.generations[0].cancelled_by == "client"


@pytest.mark.parametrize("streaming", [False, True])
async def test_leaving_before_the_start_cancels(wire: Open, engine: FakeEngine, streaming: bool) -> None:
    engine.scripts.append([asyncio.Event()])
    client = wire(CHAT, chat(stream=streaming))
    await client.send()
    await engine.made.wait()
    await client.leave()
    await asyncio.wait_for(engine.generations[0].left.wait(), 5)


@pytest.mark.parametrize("streaming", [False, True])
async def test_leaving_while_a_model_loads_leaves_nothing(wire: Open, engine: FakeEngine, streaming: bool) -> None:
    engine.load_gate = asyncio.Event()
    client = wire(CHAT, chat(stream=streaming))
    await client.send()
    await engine.waiting_for_load.wait()
    await client.leave()
    engine.load_gate.set()
    await asyncio.sleep(0)
    assert engine.generations == []


async def test_a_response_that_is_never_read_is_cancelled(engine: FakeEngine) -> None:
    engine.scripts.append([[started(), text("x")], asyncio.Event()])
    response = await respond(streamed_call())
    del response
    await asyncio.wait_for(engine.generations[0].left.wait(), 5)


async def test_a_request_that_the_owner_cancels(api: Api, engine: FakeEngine) -> None:
    engine.scripts.append([[started(), text("x")], asyncio.Event()])
    chunks = stream(streamed_call())
    first = await anext(chunks)
    record = engine.in_flight()[0]
    assert record.id.encode() in first
    assert await api.post("/admin/requests/cancel", {"id": record.id}) == (
        200,
        {"id": record.id, "status": "cancelled"},
    )
    *_, error, done = payloads(b"".join([chunk async for chunk in chunks]))
    assert (error["error"]["code"], done) == ("request_cancelled", "[DONE]")


async def test_a_server_that_stops_ends_its_streams_with_an_error(engine: FakeEngine) -> None:
    engine.scripts.append([[started(), text("x")], asyncio.Event()])
    chunks = stream(streamed_call())
    await anext(chunks)
    pump = next(task for task in asyncio.all_tasks() if task.get_name().startswith("answer "))
    pump.cancel()
    *_, error, done = payloads(b"".join([chunk async for chunk in chunks]))
    assert (error["error"]["code"], done) == ("model_unavailable", "[DONE]")


async def test_a_fast_generation_lets_others_run(engine: FakeEngine) -> None:
    engine.between_batches = at_once
    many: Script = [[text("x")] for _ in range(500)]
    engine.scripts.append([[started()], *many, [finished()]])
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(other())
    chunks = [chunk async for chunk in stream(streamed_call())]
    beside.cancel()
    assert len(chunks) < 500
    assert turns >= len(chunks)
    said = [one["choices"][0]["delta"].get("content", "") for one in payloads(b"".join(chunks))[:-1]]
    assert "".join(said) == "x" * 500


async def test_a_defect_of_ours_ends_the_stream_with_an_error(
    engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine.scripts.append([[started(), text("x", choice=7)], asyncio.Event()])
    with caplog.at_level("ERROR"):
        chunks = stream(streamed_call())
        with pytest.raises(Exception, match="failed to answer"):
            await anext(chunks)
    assert "failed" in caplog.text


async def test_a_client_that_reads_nothing_holds_little_and_loses_nothing(engine: FakeEngine) -> None:
    engine.between_batches = at_once
    many: Script = [[text(f"{number} ") for number in range(start, start + 100)] for start in range(0, 20_000, 100)]
    engine.scripts.append([[started()], *many, [finished(tokens=20_000)]])
    chunks = stream(streamed_call())
    first = await anext(chunks)
    await asyncio.wait_for(engine.generations[0].left.wait(), 10)  # the model is done, whoever reads
    rest = [chunk async for chunk in chunks]
    assert sum(map(len, rest)) < 500_000  # 4.8 MB as frames of one token
    said = [one["choices"][0]["delta"].get("content", "") for one in payloads(b"".join([first, *rest]))[:-1]]
    assert "".join(said) == "".join(f"{number} " for number in range(20_000))


async def test_a_client_that_reads_nothing_for_too_long_is_ended(
    engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inference.protocols.backlog.HELD_BYTES", 100_000)
    many: Script = [[text("x" * 10_000)] for _ in range(100)]
    engine.scripts.append([[started()], *many, asyncio.Event()])
    chunks = stream(streamed_call())
    await anext(chunks)
    await asyncio.wait_for(engine.generations[0].left.wait(), 10)
    assert engine.generations[0].cancelled_by == "client"
    *_, error, done = payloads(b"".join([chunk async for chunk in chunks]))
    assert (error["error"]["code"], done) == ("overloaded", "[DONE]")
