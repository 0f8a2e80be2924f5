"""Questions that are answered once: counted, tokenised, embedded; refused, cancelled, given up, and asked again."""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal
from typing import Any

import pytest

from inference.errors import DeadlineExceeded, ModelNotFound, RequestCancelled, TooManyRequests, Unsupported, WorkerDied
from inference.ipc import Embedded, GenerateRequest
from inference.principal import Principal
from inference.records import RequestRecord
from tests.engine.conftest import World, collect, last, until


def told(text: str, **script: Any) -> str:
    return f"{text} <<fake {json.dumps(script)}>>"


def impatient(world: World, patience_s: float, model: str = "a") -> RequestRecord:
    asker = Principal("anonymous", "tester", frozenset({"inference"}), patience_s=patience_s)
    return RequestRecord(f"hurry-{patience_s}-{len(world.records.kept)}", "openai", "/v1/x", asker, model)


@pytest.fixture
def vectors(world: World) -> World:
    """A world with an embedding model ``v`` that works on one request at a time."""
    world.add_model("v", embedding_dimensions=8, slots=1)
    return world


async def embed(world: World, *inputs: str, client: str = "tester") -> Embedded:
    return await world.engine.embed("v", list(inputs), None, world.record("v", client))


async def test_tokens_of_a_prompt_and_of_a_text(world: World) -> None:
    await world.begin()
    request = GenerateRequest(messages=[{"role": "user", "content": "hello"}])
    assert await world.engine.count("a", request, world.record()) == len("user: hello")
    tokens = await world.engine.tokenize("a", "héllo", True, world.record())
    assert await world.engine.detokenize("a", tokens, world.record()) == "héllo"
    for record in world.records.kept:
        assert (record.model, record.status, record.error_code, record.phase) == ("a", 200, None, "done")
        assert record.started
        assert record.finished
    assert [record.prompt_tokens for record in world.records.kept] == [11, 6, 0]
    assert world.engine.in_flight() == []


async def test_vectors_have_unit_length_and_their_record_is_whole(vectors: World) -> None:
    await vectors.begin()
    answer = await vectors.engine.embed("v", ["one", [116, 119, 111]], 4, vectors.record("v"))
    assert [round(math.hypot(*vector), 6) for vector in answer.vectors] == [1, 1]
    assert [len(vector) for vector in answer.vectors] == [4, 4]
    assert answer.vectors[0] != answer.vectors[1]
    (record,) = vectors.records.kept
    assert (record.prompt_tokens, record.status) == (6, 200)
    assert record.queued
    assert record.started
    assert vectors.status("v").running == 0


async def test_refusals_are_on_record(vectors: World) -> None:
    await vectors.begin()
    with pytest.raises(ModelNotFound):
        await vectors.engine.tokenize("nobody", "x", True, vectors.record("nobody"))
    with pytest.raises(Unsupported):
        await vectors.engine.embed("a", ["x"], None, vectors.record())
    with pytest.raises(Unsupported):
        await vectors.ask("v")
    assert [record.status for record in vectors.records.kept] == [404, 501, 501]
    assert len(vectors.events.of("request.refused")) == 3


async def test_embeddings_take_a_slot_and_turns(vectors: World) -> None:
    gate = vectors.gate()
    await vectors.begin()
    first = asyncio.create_task(embed(vectors, told("a", gate=gate.path), client="busy"))
    await gate.reached()
    done: list[str] = []

    async def one(name: str, client: str) -> None:
        await embed(vectors, name, client=client)
        done.append(name)

    tasks = [asyncio.create_task(one(f"busy-{n}", "busy")) for n in range(3)]
    await until(lambda: vectors.status("v").queued == 3)
    tasks.append(asyncio.create_task(one("other", "other")))
    await until(lambda: vectors.status("v").queued == 4)
    in_flight = vectors.engine.in_flight()
    assert [record.queue_position for record in in_flight] == [None, 1, 3, 4, 2]
    assert [record.phase for record in in_flight] == ["prefill", *["queued"] * 4]
    gate.open()
    await first
    await asyncio.gather(*tasks)
    assert done == ["busy-0", "other", "busy-1", "busy-2"]
    assert all(record.queue_position is None for record in vectors.records.kept)


@pytest.mark.parametrize("by", ["the client", "the owner"])
async def test_a_question_that_is_given_up_leaves_nothing(vectors: World, by: str) -> None:
    gate = vectors.gate()
    await vectors.begin()
    asking = asyncio.create_task(embed(vectors, told("a", gate=gate.path)))
    await gate.reached()
    (record,) = vectors.engine.in_flight()
    if by == "the owner":
        assert vectors.engine.cancel(record.id, by="owner")
        with pytest.raises(RequestCancelled):
            await asking
    else:
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    assert record.status == (409 if by == "the owner" else 499)
    assert vectors.engine.in_flight() == []
    assert vectors.status("v").running == 0
    gate.open()
    assert (await embed(vectors, "again")).prompt_tokens == 5


async def test_one_crash_is_forgiven_two_are_not(vectors: World) -> None:
    await vectors.begin(max_crashes=10)
    with pytest.raises(WorkerDied):
        await embed(vectors, told("poison", die_after=0))
    assert len(vectors.events.of("worker.died")) == 2
    assert [record.error_code for record in vectors.records.kept] == ["worker_died"]


async def test_who_waits_when_the_worker_dies_is_served_by_the_next(vectors: World) -> None:
    gate = vectors.gate()
    await vectors.begin()
    running = asyncio.create_task(embed(vectors, told("held", gate=gate.path)))
    await gate.reached()
    waiting = asyncio.create_task(embed(vectors, "waiting"))
    await until(lambda: vectors.status("v").queued == 1)
    os.kill(vectors.pid("v"), signal.SIGKILL)
    gate.open()
    assert (await waiting).prompt_tokens == len("waiting")
    assert (await running).vectors
    assert [record.status for record in vectors.records.kept] == [200, 200]


async def test_an_answer_that_never_comes(vectors: World) -> None:
    gate = vectors.gate()
    await vectors.begin(timeout_s=0.05)
    with pytest.raises(DeadlineExceeded, match="did not answer"):
        await embed(vectors, told("held", gate=gate.path))
    assert vectors.status("v").running == 0
    gate.open()


async def test_a_full_queue(vectors: World) -> None:
    gate = vectors.gate()
    await vectors.begin(queue_limit=1)
    running = asyncio.create_task(embed(vectors, told("held", gate=gate.path)))
    await gate.reached()
    waiting = asyncio.create_task(embed(vectors, "waiting"))
    await until(lambda: vectors.status("v").queued == 1)
    with pytest.raises(TooManyRequests) as refused:
        await embed(vectors, "too many")
    assert refused.value.retry_after
    gate.open()
    await asyncio.gather(running, waiting)


# --------------------------------------------------------------------------------------------------------- deadlines


async def test_a_deadline_in_the_queue(world: World) -> None:
    world.add_model("one", slots=1)
    gate = world.gate()
    await world.begin()
    running = await world.ask("one", hold_after=1, gate=gate.path)
    record = impatient(world, 0.02, "one")
    with pytest.raises(DeadlineExceeded) as late:
        await world.engine.generate("one", GenerateRequest(prompt="too late"), record)
    assert (late.value.status, late.value.code) == (504, "timeout")
    assert (record.status, record.error_code, record.cancelled_by) == (504, "timeout", "deadline")
    assert world.status("one").queued == 0
    gate.open()
    await collect(running)


async def test_a_deadline_while_the_answer_runs(world: World) -> None:
    gate = world.gate()
    await world.begin()
    await collect(await world.ask("a"))
    record = impatient(world, 0.5)
    request = GenerateRequest(prompt=told("slow", hold_after=1, gate=gate.path))
    events = await collect(await world.engine.generate("a", request, record))
    assert getattr(last(events), "code", None) == "timeout"
    assert (record.status, record.error_code, record.cancelled_by) == (504, "timeout", "deadline")
    await world.worker_running("a", 0)
    gate.open()


async def test_a_deadline_of_a_question_and_one_that_is_over_already(vectors: World) -> None:
    gate = vectors.gate()
    await vectors.begin()
    await embed(vectors, "warm")
    with pytest.raises(DeadlineExceeded):
        await vectors.engine.embed("v", [told("held", gate=gate.path)], None, impatient(vectors, 0.1, "v"))
    late = impatient(vectors, 0.0, "v")
    with pytest.raises(DeadlineExceeded):
        await vectors.engine.embed("v", ["late"], None, late)
    assert vectors.engine.in_flight() == []
    gate.open()
