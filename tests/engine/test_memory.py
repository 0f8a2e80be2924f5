"""Memory in the running engine: evictions, refusals with numbers, and the barrier of an unload."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from inference.engine.contract import MemoryReading
from inference.engine.memory import MemoryWatch
from inference.engine.settings import EngineSettings
from inference.errors import InsufficientMemory, ModelUnavailable
from inference.ipc import Finished
from tests.engine.conftest import GIB, World, collect, last, until


def weigh(world: World, model: str, size: int) -> None:
    """Let the machine show ``size`` bytes for a model that is loaded now."""
    world.meter.sizes[world.pid(model)] = size
    world.meter.used += size


async def loaded(world: World, model: str, size: int, *, pin: bool | None = None) -> None:
    await world.engine.load(model, context=None, slots=None, pin=pin)
    weigh(world, model, size)


async def gives_back(world: World, model: str) -> None:
    """The machine gets the memory of a dead worker back as soon as its process is gone."""
    pid = world.pid(model)
    await until(lambda: world.meter.footprint(pid) == 0)
    world.meter.used -= world.meter.sizes.pop(pid)


async def test_idle_model_makes_room(world: World) -> None:
    for name in ("a", "b", "big"):
        world.add_model(name, weight_bytes=30 * GIB if name == "big" else 20 * GIB)
    await world.begin()
    await loaded(world, "a", 20 * GIB)
    await loaded(world, "b", 20 * GIB)
    back = asyncio.create_task(gives_back(world, "a"))
    assert isinstance(last(await collect(await world.ask("big"))), Finished)
    await back
    assert world.status("a").state == "unloaded"
    assert world.status("b").state == "ready"
    (evicted,) = world.events.of("model.evicted")
    assert (evicted["model"], evicted["message"]) == ("a", "room for big")


async def test_busy_model_is_waited_for(world: World) -> None:
    world.add_model("a", weight_bytes=30 * GIB)
    world.add_model("big", weight_bytes=40 * GIB)
    gate = world.gate()
    await world.begin()
    running = await world.ask("a", hold_after=1, gate=gate.path)
    weigh(world, "a", 30 * GIB)
    asking = asyncio.create_task(world.ask("big"))
    await until(lambda: world.status("big").queued == 1)
    with pytest.raises(InsufficientMemory, match="big needs"):
        await world.engine.load("big", context=None, slots=None, pin=None)
    assert world.status("a").state == "ready"
    asking.cancel()
    asking = asyncio.create_task(world.ask("big"))
    await until(lambda: world.status("big").queued == 1)
    back = asyncio.create_task(gives_back(world, "a"))
    gate.open()
    assert isinstance(last(await collect(running)), Finished)
    assert isinstance(last(await collect(await asking)), Finished)
    await back


@pytest.mark.parametrize("pinned", [True, False])
async def test_507_with_the_numbers(world: World, pinned: bool) -> None:
    world.add_model("a", weight_bytes=30 * GIB)
    world.add_model("big", weight_bytes=40 * GIB)
    await world.begin(auto_evict_lru=pinned)
    await loaded(world, "a", 30 * GIB, pin=pinned)
    with pytest.raises(InsufficientMemory) as caught:
        await world.ask("big")
    state = "pinned" if pinned else "idle 0 s"
    assert caught.value.message == f"big needs 40.0 GB; 23.6 GB is free. Unload a ({state})?"
    assert caught.value.details["unload"] == ["a"]
    assert world.records.kept[-1].status == 507
    assert world.status("a").state == "ready"


async def test_unload_waits_for_the_memory(world: World) -> None:
    world.add_model("a", weight_bytes=30 * GIB)
    await world.begin()
    await loaded(world, "a", 30 * GIB)
    pid = world.pid("a")
    unloading = asyncio.create_task(world.engine.unload("a"))
    await until(lambda: world.meter.footprint(pid) == 0)
    await asyncio.sleep(0.1)
    assert not unloading.done()
    world.meter.used -= world.meter.sizes.pop(pid)
    assert (await unloading).state == "unloaded"


async def test_answers_are_admitted_on_their_kv(world: World) -> None:
    """Two prompts of a third of the free memory each run together, a third waits; alone and too large it is a 507."""
    world.add_model("kv", weight_bytes=GIB, kv_bytes_per_token=GIB // 100, context=3000)
    world.meter.used = 3 * GIB
    gate = world.gate()
    await world.begin(max_memory_percent=60.0)
    await world.engine.load("kv", context=None, slots=None, pin=None)
    first = await world.ask("kv", "x" * 1000, max_tokens=200, start_gate=gate.path)
    second = await world.ask("kv", "x" * 1000, max_tokens=200, start_gate=gate.path)
    third = asyncio.create_task(world.ask("kv", "x" * 1000, max_tokens=200))
    await until(lambda: world.status("kv").queued == 1)
    gate.open()
    for generation in (first, second):
        assert isinstance(last(await collect(generation)), Finished)
    assert isinstance(last(await collect(await third)), Finished)
    world.meter.used = 30 * GIB
    await until(lambda: world.engine.memory_plan()["used_bytes"] == 30 * GIB)
    with pytest.raises(InsufficientMemory, match="this answer of kv needs"):
        await world.ask("kv", "x" * 1000, max_tokens=200)


async def test_pressure_evicts_the_idle(world: World) -> None:
    await world.begin()
    await loaded(world, "a", GIB)
    world.meter.used = 62 * GIB
    await until(lambda: bool(world.events.of("memory.pressure")))
    back = asyncio.create_task(gives_back(world, "a"))
    await until(lambda: world.status("a").state == "unloaded")
    await back


async def test_memory_plan_has_both_limits(world: World) -> None:
    world.meter.gpu_limit = 48 * GIB
    await world.begin()
    numbers = world.engine.memory_plan()
    assert numbers["machine_limit_bytes"] == int(57.6 * GIB)
    assert numbers["gpu_limit_bytes"] == 48 * GIB - 1024
    assert numbers["free_bytes"] == min(numbers["gpu_free_bytes"], numbers["machine_free_bytes"])


async def test_waiting_for_memory_has_an_end(world: World) -> None:
    world.add_model("a", weight_bytes=30 * GIB)
    world.add_model("big", weight_bytes=40 * GIB)
    gate = world.gate()
    await world.begin(queue_timeout_s=0.1, load_timeout_s=2.0)
    running = await world.ask("a", hold_after=1, gate=gate.path)
    weigh(world, "a", 30 * GIB)
    with pytest.raises(ModelUnavailable, match="was not ready within"):
        await world.ask("big")
    gate.open()
    await collect(running)
    assert world.status("big").queued == 0


class Machine:
    """96 GiB, 60 of them free, a GPU limit; ``broken`` makes it fail."""

    def __init__(self) -> None:
        self.broken = False

    def read(self) -> MemoryReading:
        if self.broken:
            raise OSError("no such device")
        return MemoryReading(96 * GIB, 60 * GIB, 36 * GIB, 72 * GIB)

    def footprint(self, pid: int) -> int:
        return pid * GIB


async def test_a_cap_makes_the_machine_small_and_our_own() -> None:
    watch = MemoryWatch(Machine(), EngineSettings(Path(), memory_cap_bytes=10 * GIB))
    await watch.measure([1, 3])
    assert watch.reading == MemoryReading(10 * GIB, 6 * GIB, 4 * GIB, 10 * GIB)
    await watch.measure([11])  # past the cap, and it says so
    assert watch.reading == MemoryReading(10 * GIB, 0, 11 * GIB, 10 * GIB)
    roomy = MemoryWatch(Machine(), EngineSettings(Path(), memory_cap_bytes=90 * GIB))
    await roomy.measure([])
    assert roomy.reading.available == 60 * GIB  # never more than the system says


async def test_a_reading_that_fails_leaves_the_last_and_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    machine = Machine()
    watch = MemoryWatch(machine, EngineSettings(Path()))
    await watch.measure([1])
    machine.broken = True
    await watch.measure([1])
    await watch.measure([1])
    assert watch.reading.total == 96 * GIB
    assert watch.footprints == {1: GIB}
    assert caplog.text.count("reading the memory failed") == 1
