"""A client that leaves is forgotten, wherever its request stands."""

from __future__ import annotations

import asyncio

import pytest

from inference.errors import RequestCancelled, TooManyRequests
from inference.ipc import Finished
from tests.engine.conftest import World, collect, last, until


async def nothing_left(world: World, model: str) -> None:
    """Neither engine nor worker knows of any request, and the model could be evicted."""
    await until(lambda: world.engine.in_flight() == [])
    await world.worker_running(model, 0)
    status = world.status(model)
    assert (status.running, status.queued) == (0, 0)
    assert isinstance(last(await collect(await world.ask(model))), Finished)


async def test_in_prepare(world: World) -> None:
    gate = world.gate()
    await world.begin()
    asking = asyncio.create_task(world.ask("a", prepare_gate=gate.path))
    await gate.reached()
    behind = asyncio.create_task(world.ask("a", "never prepared"))
    await until(lambda: len(world.engine.in_flight()) == 2)
    for task in (asking, behind):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert [record.cancelled_by for record in world.records.kept] == ["client", "client"]
    gate.open()
    await nothing_left(world, "a")


async def test_in_the_queue(world: World) -> None:
    world.add_model("one", slots=1)
    gate = world.gate()
    await world.begin()
    running = await world.ask("one", hold_after=1, gate=gate.path)
    waiting = asyncio.create_task(world.ask("one"))
    await until(lambda: world.status("one").queued == 1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert world.status("one").queued == 0
    gate.open()
    await collect(running)
    await nothing_left(world, "one")


async def test_in_prefill(world: World) -> None:
    gate = world.gate()
    await world.begin()
    generation = await world.ask("a", "x" * 500, prefill_chunk=100, prefill_gate=gate.path)
    async with generation:
        await gate.reached()
        assert generation.record.phase == "prefill"
        generation.cancel("owner")
        (finished,) = [event async for batch in generation for event in batch if isinstance(event, Finished)]
    assert finished.reason == "cancelled"
    assert world.records.kept[0].cancelled_by == "owner"
    await nothing_left(world, "a")


async def test_in_decode_by_leaving_the_block(world: World) -> None:
    gate = world.gate()
    await world.begin()
    async with await world.ask("a", n=2, hold_after=3, gate=gate.path) as generation:
        async for _ in generation:
            if generation.record.completion_tokens >= 6:
                break
    await until(lambda: len(world.records.kept) == 1)
    record = world.records.kept[0]
    assert (record.cancelled_by, record.finish_reason, record.completion_tokens) == ("server", "cancelled", 6)
    await nothing_left(world, "a")


async def test_task_cancelled_while_it_streams(world: World) -> None:
    gate = world.gate()
    await world.begin()
    generation = await world.ask("a", hold_after=2, gate=gate.path)
    streaming = asyncio.create_task(collect(generation))
    await until(lambda: generation.record.completion_tokens == 2)
    streaming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await streaming
    await until(lambda: len(world.records.kept) == 1)
    assert world.records.kept[0].cancelled_by == "client"
    await nothing_left(world, "a")


async def test_waiter_that_left_triggers_no_load(world: World) -> None:
    await world.begin()
    asking = asyncio.create_task(world.ask("a"))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await collect(await world.ask("b"))
    assert [event["model"] for event in world.events.of("model.loading")] == ["b"]


async def test_all_waiters_of_a_load_leave(world: World) -> None:
    """The load goes on, since the next request will want it; nothing holds on to the model."""
    gate = world.gate()
    world.add_model("slow", load_gate=gate.path)
    await world.begin()
    asks = [asyncio.create_task(world.ask("slow")) for _ in range(3)]
    await gate.reached()
    for ask in asks:
        ask.cancel()
    await asyncio.gather(*asks, return_exceptions=True)
    gate.open()
    await until(lambda: world.status("slow").state == "ready")
    await nothing_left(world, "slow")
    assert (await world.engine.unload("slow")).state == "unloaded"


async def test_by_id_before_the_start(world: World) -> None:
    world.add_model("one", slots=1)
    gate = world.gate()
    await world.begin()
    running = await world.ask("one", hold_after=1, gate=gate.path)
    waiting = asyncio.create_task(world.ask("one"))
    await until(lambda: world.status("one").queued == 1)
    queued = world.engine.in_flight()[-1]
    assert queued.phase == "queued"
    assert world.engine.cancel(queued.id, "owner")
    with pytest.raises(RequestCancelled, match="owner"):
        await waiting
    assert not waiting.cancelled()
    assert not world.engine.cancel("no such id", "owner")
    assert world.engine.cancel(running.record.id, "owner")
    assert last(await collect(running)).reason == "cancelled"  # type: ignore[union-attr]


async def test_full_queue_is_429_with_retry_after(world: World) -> None:
    world.add_model("one", slots=1)
    gate = world.gate()
    await world.begin(queue_limit=2)
    running = await world.ask("one", hold_after=1, gate=gate.path)
    waiting = [asyncio.create_task(world.ask("one")) for _ in range(2)]
    await until(lambda: world.status("one").queued == 2)
    with pytest.raises(TooManyRequests) as caught:
        await world.ask("one")
    assert caught.value.retry_after >= 1  # type: ignore[operator]
    gate.open()
    for generation in [running, *[await task for task in waiting]]:
        assert isinstance(last(await collect(generation)), Finished)


async def test_queue_timeout(world: World) -> None:
    world.add_model("one", slots=1)
    gate = world.gate()
    await world.begin(queue_timeout_s=0.1)
    running = await world.ask("one", hold_after=1, gate=gate.path)
    with pytest.raises(TooManyRequests) as caught:
        await world.ask("one")
    assert caught.value.code == "queue_timeout"
    gate.open()
    await collect(running)
    await nothing_left(world, "one")


async def test_slots_are_shared_in_turns_between_clients(world: World) -> None:
    world.add_model("one", slots=1)
    gate = world.gate()
    await world.begin()
    running = await world.ask("one", hold_after=1, gate=gate.path)
    order: list[str] = []

    async def ask(client: str) -> None:
        generation = await world.ask("one", client=client)
        order.append(client)
        await collect(generation)

    tasks = []
    for client in ("greedy", "greedy", "greedy", "modest"):
        tasks.append(asyncio.create_task(ask(client)))
        await until(lambda: world.status("one").queued == len(tasks))
    gate.open()
    await collect(running)
    await asyncio.gather(*tasks)
    assert order == ["greedy", "modest", "greedy", "greedy"]
