"""The engine's ordinary life: loading on demand, streaming, refusing, letting go."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from inference.errors import ContextLengthExceeded, InvalidRequest, LmxError, ModelNotFound, ModelUnavailable
from inference.ipc import Failed, Finished
from tests.engine.conftest import World, collect, last, open_descriptors, text_of, until


async def test_it_works(world: World) -> None:
    await world.begin()
    events = await collect(await world.ask("a", tokens=8))
    finished = last(events)
    assert isinstance(finished, Finished)
    assert finished.reason == "stop"
    assert len(text_of(events).split()) == 8
    (record,) = world.records.kept
    assert (record.status, record.completion_tokens, record.finish_reason) == (200, 8, "stop")
    assert record.prepared
    assert record.queued
    assert record.started
    assert record.first_token
    assert record.finished
    assert world.status("a").state == "ready"
    assert world.engine.in_flight() == []
    assert world.engine.health() == ("healthy", [])


async def test_same_prompt_same_answer_and_choices_differ(world: World) -> None:
    await world.begin()
    first = await collect(await world.ask("a", "tell me", n=2))
    second = await collect(await world.ask("b", "tell me", n=2))
    assert text_of(first) == text_of(second)
    assert text_of(first, 1) == text_of(second, 1) != text_of(first)


async def test_concurrent_first_requests_share_one_load(world: World) -> None:
    gate = world.gate()
    world.add_model("slow", load_gate=gate.path, load_steps=3)
    await world.begin()
    asks = [asyncio.create_task(world.ask("slow", f"n{i}")) for i in range(5)]
    await gate.reached()
    await until(lambda: world.status("slow").load_done == 3000)
    assert world.status("slow").state == "loading"
    assert world.status("slow").queued == 5
    gate.open()
    for ask in asks:
        assert isinstance(last(await collect(await ask)), Finished)
    assert len(world.events.of("model.loading")) == 1
    assert world.records.kept[0].load_waited_s > 0


async def test_several_models_at_once(world: World) -> None:
    gate = world.gate()
    await world.begin()
    one, two = await world.ask("a", hold_after=2, gate=gate.path), await world.ask("b", hold_after=2, gate=gate.path)
    assert world.pid("a") != world.pid("b")
    gate.open()
    assert isinstance(last(await collect(one)), Finished)
    assert isinstance(last(await collect(two)), Finished)


async def test_unknown_model(world: World) -> None:
    await world.begin()
    with pytest.raises(ModelNotFound):
        await world.ask("nobody")
    assert world.records.kept[0].status == 404
    assert world.events.of("request.refused")[0]["code"] == "model_not_found"


async def test_prompt_over_context_names_both_numbers(world: World) -> None:
    world.add_model("small", context=64)
    await world.begin()
    with pytest.raises(ContextLengthExceeded, match="64") as caught:
        await world.ask("small", "x" * 100)
    assert "100" in caught.value.message
    assert caught.value.details == {"context": 64, "prompt_tokens": 100}
    with pytest.raises(ContextLengthExceeded):
        await world.ask("small", "x" * 64)
    events = await collect(await world.ask("small", "x" * 60, max_tokens=1000))
    assert last(events).reason == "length"  # type: ignore[union-attr]
    assert len([e for e in events if type(e).__name__ == "Delta"]) == 4
    await world.worker_running("small", 0)


async def test_refusal_and_defect_in_prepare_touch_that_request_alone(world: World) -> None:
    gate = world.gate()
    await world.begin()
    other = await world.ask("a", hold_after=1, gate=gate.path)
    with pytest.raises(InvalidRequest) as refused:
        await world.ask("a", prepare_error="refuse")
    assert refused.value.param == "messages"
    with pytest.raises(LmxError) as failed:
        await world.ask("a", "secret words", prepare_error="crash")
    assert (failed.value.status, failed.value.code) == (500, "internal_error")
    gate.open()
    assert isinstance(last(await collect(other)), Finished)
    assert "secret" not in str(world.events.kept)
    assert "RuntimeError at fake.py" in world.events.of("worker.log")[0]["message"]


async def test_failure_mid_stream(world: World) -> None:
    await world.begin()
    generation = await world.ask("a", fail_after=3)
    await generation.wait_started(10)
    events = await collect(generation)
    assert isinstance(last(events), Failed)
    assert len(text_of(events).split()) == 3
    assert world.records.kept[0].error_code == "internal_error"
    word, reasons = world.engine.health()
    assert word == "error"
    assert "ago: an error inside the server" in reasons[0]
    await collect(await world.ask("a"))
    assert world.engine.health()[0] == "healthy"


async def test_wait_started_raises_what_came_first(world: World) -> None:
    gate = world.gate()
    await world.begin()
    generation = await world.ask("a", start_gate=gate.path)
    async with generation:
        await generation.wait_started(0.01)
        assert world.engine.in_flight()[0].phase == "queued"
        waiting = asyncio.create_task(generation.wait_started(10))
        await asyncio.sleep(0)
        generation.fail("overloaded", "too slow")
        with pytest.raises(LmxError, match="too slow"):
            await waiting
    gate.open()


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ({"load_error": "no tensors named so and so"}, "no tensors named so and so"),
        ({"no_such_field": 1}, "no_such_field"),
    ],
)
async def test_load_failure_has_its_reason_and_is_not_repeated_at_once(
    world: World, script: dict[str, Any], reason: str
) -> None:
    world.add_model("broken", **script)
    await world.begin()
    for _ in range(2):
        with pytest.raises(ModelUnavailable, match=reason) as caught:
            await world.ask("broken")
        assert caught.value.retry_after
    assert len(world.events.of("model.loading")) == 1
    status = world.status("broken")
    assert status.state == "failed"
    assert reason in (status.reason or "")
    assert isinstance(last(await collect(await world.ask("a"))), Finished)
    assert world.engine.health()[0] == "degraded"
    world.add_model("broken")
    assert (await world.engine.load("broken", context=None, slots=None, pin=None)).state == "ready"


async def test_model_with_a_problem_is_not_even_tried(world: World) -> None:
    world.add_model("torn", problem="model.safetensors is cut off")
    await world.begin()
    with pytest.raises(ModelUnavailable, match="cut off"):
        await world.ask("torn")
    assert world.status("torn").state == "failed"
    assert not world.events.of("model.loading")


async def test_unload_waits_for_the_end_of_running_answers(world: World) -> None:
    gate = world.gate()
    await world.begin()
    generation = await world.ask("a", hold_after=2, gate=gate.path)
    unloading = asyncio.create_task(world.engine.unload("a"))
    await until(lambda: world.status("a").state == "draining")
    pid = world.pid("a")
    gate.open()
    assert last(await collect(generation)).reason == "stop"  # type: ignore[union-attr]
    assert (await unloading).state == "unloaded"
    assert world.meter.footprint(pid) == 0
    assert isinstance(last(await collect(await world.ask("a"))), Finished)


async def test_request_while_draining_loads_again(world: World) -> None:
    gate = world.gate()
    await world.begin()
    generation = await world.ask("a", hold_after=2, gate=gate.path)
    unloading = asyncio.create_task(world.engine.unload("a"))
    await until(lambda: world.status("a").state == "draining")
    asking = asyncio.create_task(world.ask("a"))
    await until(lambda: world.status("a").queued == 1)
    gate.open()
    await collect(generation)
    await unloading
    assert isinstance(last(await collect(await asking)), Finished)
    assert len(world.events.of("model.loaded")) == 2


async def test_unload_gives_up_a_load(world: World) -> None:
    gate = world.gate()
    world.add_model("slow", load_gate=gate.path)
    await world.begin()
    asking = asyncio.create_task(world.ask("slow"))
    await gate.reached()
    assert (await world.engine.unload("slow")).state == "unloaded"
    with pytest.raises(ModelUnavailable, match="given up"):
        await asking


async def test_load_with_other_bounds_reloads(world: World) -> None:
    await world.begin()
    assert (await world.engine.load("a", context=None, slots=None, pin=True)).context == 32768
    status = await world.engine.load("a", context=512, slots=2, pin=None)
    assert (status.context, status.slots, status.pinned) == (512, 2, True)
    assert len(world.events.of("model.loaded")) == 2


async def test_auto_load_reports_what_is_absent(world: World) -> None:
    await world.begin(auto_load=("absent", "b"))
    await until(lambda: world.status("b").state == "ready")
    assert world.events.of("auto_load.failed")[0]["model"] == "absent"


async def test_nothing_is_left_after_stop(world: World) -> None:
    before = open_descriptors()
    await world.begin()
    for model in ("a", "b"):
        await collect(await world.ask(model))
    await world.engine.stop(1.0)
    await until(lambda: open_descriptors() <= before + 1)
    with pytest.raises(LmxError):
        async with asyncio.timeout(5):
            await world.ask("a")
