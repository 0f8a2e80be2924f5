"""What the owner keeps for a model, in the running engine: bounds of a load, pins, times to live, prefix caches."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from inference.engine.contract import ModelStatus
from inference.errors import InsufficientMemory
from inference.model_settings import ModelSettings
from tests.engine.conftest import GIB, World
from tests.engine.test_idle import Clock, ask, gone
from tests.engine.test_memory import gives_back, loaded, weigh


def keep(world: World, model: str, **values: Any) -> None:
    """As it is found in the catalog; ``changed`` tells the engine, too."""
    refs = world.catalog.refs
    refs[model] = replace(refs[model], settings=ModelSettings(**values))


async def changed(world: World, model: str, **values: Any) -> ModelStatus:
    keep(world, model, **values)
    await world.engine.apply_settings()
    return world.status(model)


async def test_a_lazy_load_has_their_bounds_and_a_loads_own_words_win(world: World) -> None:
    keep(world, "a", context=256, slots=3)
    await world.begin()
    await ask(world, "a")
    assert (world.status("a").context, world.status("a").slots) == (256, 3)
    await world.engine.load("a", context=128, slots=None, pin=None)
    assert (world.status("a").context, world.status("a").slots) == (128, 3)
    assert not world.status("a").reload_needed


async def test_new_bounds_hold_from_the_next_load_of_the_owner_on(world: World) -> None:
    await world.begin()
    await ask(world, "a")
    pid, whole = world.pid("a"), world.status("a").context
    assert not (await changed(world, "a", temperature=0.5)).reload_needed
    status = await changed(world, "a", context=512, tool_parser="hermes")
    assert (status.reload_needed, status.context) == (True, whole)
    await ask(world, "a")
    assert world.pid("a") == pid
    await world.engine.load("a", context=None, slots=None, pin=None)
    assert (world.status("a").context, world.status("a").reload_needed) == (512, False)
    assert not (await changed(world, "a", context=512, tool_parser="hermes")).reload_needed
    await world.engine.load("a", context=64, slots=None, pin=None)
    assert (await changed(world, "a", context=1024, tool_parser="hermes")).reload_needed
    await world.engine.load("a", context=None, slots=None, pin=None)
    assert world.status("a").context == 1024


async def test_as_much_as_the_model_has_is_no_change(world: World) -> None:
    await world.begin()
    await ask(world, "a")
    assert not (await changed(world, "a", context=world.catalog.refs["a"].context_length)).reload_needed
    pid = world.pid("a")
    await world.engine.load("a", context=None, slots=None, pin=None)
    assert world.pid("a") == pid


async def test_what_is_pinned_gives_way_to_nobody(world: World) -> None:
    for name in ("kept", "big"):
        world.add_model(name, weight_bytes=40 * GIB)
    keep(world, "kept", pinned=True)
    await world.begin(idle_unload_s=10)
    assert world.status("kept").pinned
    clock = Clock(world)
    await ask(world, "kept")
    weigh(world, "kept", 40 * GIB)
    await clock.forward(1000)
    with pytest.raises(InsufficientMemory, match=r"Unload kept \(pinned\)"):
        await world.engine.load("big", context=None, slots=None, pin=None)
    assert world.status("kept").state == "ready"
    back = asyncio.create_task(gives_back(world, "kept"))
    assert not (await changed(world, "kept")).pinned
    await clock.forward(1000)
    await gone(world, "kept")
    await back


async def test_a_loads_own_word_on_pinning_holds_until_the_setting_is_changed(world: World) -> None:
    keep(world, "a", pinned=True)
    await world.begin()
    await loaded(world, "a", GIB, pin=False)
    assert not world.status("a").pinned
    assert not (await changed(world, "a", pinned=True, slots=2)).pinned
    assert not (await changed(world, "a")).pinned
    assert (await changed(world, "a", pinned=True)).pinned


async def test_the_time_to_live(world: World) -> None:
    world.add_model("c")
    keep(world, "a", ttl=600.0)
    keep(world, "b", ttl="never")
    await world.begin(idle_unload_s=50)
    clock = Clock(world)
    await ask(world, "a")
    await ask(world, "b")
    await ask(world, "c", ttl_s=20)
    assert [world.status(name).ttl_s for name in "abc"] == [600, None, 20]
    assert (await changed(world, "c", ttl=700.0)).ttl_s == 700
    assert (await changed(world, "c")).ttl_s == 50
    await clock.forward(601)
    await gone(world, "a")
    assert world.status("b").state == "ready"


async def test_the_prefix_cache_has_its_bound(world: World) -> None:
    await world.begin()
    await ask(world, "a")
    run = world.engine._supervisor.runs["a"]
    assert run.cache_limit != 3 * 1024 * 1024
    world.catalog.refs["a"] = replace(run.ref, settings=ModelSettings(prefix_cache_mb=3))
    assert run.loaded is not None
    await world.engine.apply_settings()
    capable = run.loaded.capabilities.prefix_cache
    assert run.cache_limit == (3 * 1024 * 1024 if capable else 0)
    assert capable


async def test_an_engine_that_stops_leaves_nobody_waiting(world: World) -> None:
    await world.begin()
    await world.engine.stop(0)
    await world.engine.apply_settings()
