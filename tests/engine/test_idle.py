"""Models that have nothing to do for their time to live are unloaded. Nobody sleeps here: the clock is moved."""

from __future__ import annotations

import asyncio
import time

from inference.ipc import Finished, GenerateRequest
from tests.engine.conftest import World, collect, last, until


class Clock:
    """The wall clock, and what a test adds to it."""

    def __init__(self, world: World) -> None:
        self.ahead = 0.0
        self._supervisor = world.engine._supervisor
        self._supervisor.departures.clock = lambda: time.time() + self.ahead

    async def forward(self, seconds: float) -> None:
        """Let so much time pass, and the engine look at what has become idle."""
        await self._supervisor.look()
        self.ahead += seconds
        await self._supervisor.look()
        await self._supervisor.look()


async def ask(world: World, model: str, ttl_s: float | None = None, text: str = "hello") -> None:
    request = GenerateRequest(prompt=text)
    generation = await world.engine.generate(model, request, world.record(model), ttl_s=ttl_s)
    assert isinstance(last(await collect(generation)), Finished)


async def gone(world: World, model: str) -> str:
    """Wait for the model to be unloaded; the reason that was told."""
    await until(lambda: world.status(model).state == "unloaded")
    (event,) = [event for event in world.events.of("model.unloaded") if event["model"] == model]
    assert [event["message"] for event in world.events.of("model.evicted")][-1] == event["message"]
    return str(event["message"])


async def test_the_request_that_loads_it_gives_it_its_time(world: World) -> None:
    await world.begin()
    clock = Clock(world)
    await ask(world, "a", ttl_s=600)
    await ask(world, "b")
    assert (world.status("a").ttl_s, world.status("b").ttl_s) == (600, None)
    await ask(world, "a", ttl_s=1)
    await clock.forward(590)
    assert world.status("a").state == "ready"
    assert world.status("a").ttl_s == 600
    await clock.forward(20)
    assert await gone(world, "a") == "idle for 10 m"
    assert world.status("a").ttl_s is None
    assert world.status("b").state == "ready"


async def test_every_use_begins_it_anew(world: World) -> None:
    await world.begin()
    clock = Clock(world)
    await ask(world, "a", ttl_s=100)
    await clock.forward(90)
    await world.engine.tokenize("a", "still here", True, world.record())
    await clock.forward(90)
    assert world.status("a").state == "ready"
    await clock.forward(20)
    await gone(world, "a")


async def test_not_while_it_is_busy_or_pinned(world: World) -> None:
    gate = world.gate()
    await world.begin()
    clock = Clock(world)
    running = await world.ask("a", hold_after=1, gate=gate.path)
    await world.engine.load("a", context=None, slots=None, pin=None, ttl_s=10)
    await world.engine.load("b", context=None, slots=None, pin=True, ttl_s=10)
    await clock.forward(1000)
    assert [world.status(name).state for name in ("a", "b")] == ["ready", "ready"]
    gate.open()
    await collect(running)
    await clock.forward(5)
    assert world.status("a").state == "ready"
    await clock.forward(1000)
    await gone(world, "a")
    await world.engine.load("b", context=None, slots=None, pin=False)
    await clock.forward(20)
    await gone(world, "b")


async def test_not_while_it_loads(world: World) -> None:
    gate = world.gate()
    world.add_model("slow", load_gate=gate.path)
    await world.begin()
    clock = Clock(world)
    loading = asyncio.create_task(world.engine.load("slow", context=None, slots=None, pin=None, ttl_s=1))
    await gate.reached()
    await clock.forward(1000)
    assert world.status("slow").state == "loading"
    assert world.status("slow").ttl_s == 1
    gate.open()
    assert (await loading).ttl_s == 1


async def test_the_owners_load_replaces_it(world: World) -> None:
    await world.begin()
    clock = Clock(world)
    await ask(world, "a", ttl_s=10)
    status = await world.engine.load("a", context=None, slots=None, pin=None, ttl_s=500)
    assert status.ttl_s == 500
    await clock.forward(400)
    assert world.status("a").state == "ready"
    assert (await world.engine.load("a", context=None, slots=None, pin=None)).ttl_s == 500
    await clock.forward(501)
    await gone(world, "a")


async def test_the_owner_who_waits_comes_before_a_request_that_was_first(world: World) -> None:
    gate = world.gate()
    world.add_model("slow", load_gate=gate.path)
    await world.begin()
    asking = asyncio.create_task(ask(world, "slow", ttl_s=10))
    await gate.reached()
    loading = asyncio.create_task(world.engine.load("slow", context=None, slots=None, pin=None, ttl_s=77))
    await until(lambda: world.status("slow").ttl_s == 77)
    gate.open()
    await asking
    assert (await loading).ttl_s == 77


async def test_the_configured_time_is_for_all_that_have_none(world: World) -> None:
    await world.begin(idle_unload_s=60)
    clock = Clock(world)
    await ask(world, "a")
    await ask(world, "b", ttl_s=600)
    assert (world.status("a").ttl_s, world.status("b").ttl_s) == (60, 600)
    await clock.forward(61)
    await gone(world, "a")
    assert world.status("b").state == "ready"
    await ask(world, "a")
    assert world.status("a").ttl_s == 60
