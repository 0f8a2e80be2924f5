"""The prefix caches' share of memory and disk: promised once, given back first, and never over the quota."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inference.engine.launch import load_command
from inference.engine.prefix_disk import PrefixDisk
from inference.errors import InsufficientMemory
from inference.ipc import Finished
from tests.engine.conftest import GIB, World, collect, last, until
from tests.engine.test_memory import gives_back, loaded

# ------------------------------------------------------------------------------------------------------------- memory


async def told(world: World, model: str, size: int) -> None:
    """Wait until the worker says that its cache holds ``size`` bytes."""

    def said() -> bool:
        stats = world.status(model).stats
        return stats is not None and stats.prefix_bytes == size

    await until(said)


async def with_cache(world: World, model: str, cached: int) -> None:
    """Load a model of 20 GiB, of which ``cached`` bytes are its cache."""
    await loaded(world, model, 20 * GIB)
    await told(world, model, cached)


async def trims(world: World, model: str, before: int) -> None:
    """The machine gets back what the worker says that it no longer keeps."""
    pid = world.pid(model)

    def smaller() -> bool:
        stats = world.status(model).stats
        return stats is not None and stats.prefix_bytes < before

    await until(smaller)
    stats = world.status(model).stats
    assert stats is not None
    world.meter.sizes[pid] -= before - stats.prefix_bytes
    world.meter.used -= before - stats.prefix_bytes


async def test_a_cache_gives_way_before_a_model_does(world: World) -> None:
    world.add_model("a", weight_bytes=12 * GIB, prefix_bytes=8 * GIB)
    world.add_model("big", weight_bytes=38 * GIB)
    await world.begin()
    await with_cache(world, "a", 8 * GIB)
    back = asyncio.create_task(trims(world, "a", 8 * GIB))
    assert isinstance(last(await collect(await world.ask("big"))), Finished)
    await back
    assert world.status("a").state == "ready"
    assert not world.events.of("model.evicted")
    (shrunk,) = world.events.of("cache.shrunk")
    assert (shrunk["model"], shrunk["message"]) == ("a", "room for big")


async def test_a_model_goes_where_the_caches_are_not_enough(world: World) -> None:
    world.add_model("a", weight_bytes=12 * GIB, prefix_bytes=4 * GIB)
    world.add_model("big", weight_bytes=45 * GIB)
    await world.begin()
    await with_cache(world, "a", 4 * GIB)
    back = asyncio.create_task(gives_back(world, "a"))
    assert isinstance(last(await collect(await world.ask("big"))), Finished)
    await back
    assert world.status("a").state == "unloaded"


async def test_a_refusal_counts_what_caches_would_give(world: World) -> None:
    world.add_model("a", weight_bytes=12 * GIB, prefix_bytes=4 * GIB)
    world.add_model("big", weight_bytes=45 * GIB)
    await world.begin(auto_evict_lru=False)
    await with_cache(world, "a", 4 * GIB)
    with pytest.raises(InsufficientMemory, match=r"37\.6 GB is free"):
        await world.ask("big")
    plan = world.engine.memory_plan()
    assert plan["free_bytes"] == plan["machine_limit_bytes"] - plan["used_bytes"] + 4 * GIB
    assert (plan["prefix_cache_bytes"], plan["promised_bytes"]) == (4 * GIB, 0)


async def test_two_caches_are_never_promised_the_same_memory(world: World) -> None:
    await world.begin()
    await loaded(world, "a", 10 * GIB)
    await loaded(world, "b", 10 * GIB)
    runs = world.engine._supervisor.runs
    ledger = world.engine._supervisor.ledger
    await world.engine._supervisor.look()
    limits = [runs[name].cache_limit for name in ("a", "b")]
    assert all(limit > 0 for limit in limits)
    assert sum(limits) + ledger.spare() <= ledger.free()


@pytest.mark.parametrize(("configured", "expected"), [(0, 0), (GIB, GIB), (1000 * GIB, None)])
async def test_a_configured_size(world: World, configured: int, expected: int | None) -> None:
    await world.begin(prefix_cache_bytes=configured)
    await collect(await world.ask("a"))
    run = world.engine._supervisor.runs["a"]
    if expected is None:
        assert 0 < run.cache_limit <= world.engine.memory_plan()["free_bytes"]
    else:
        assert run.cache_limit == expected


async def test_an_answer_takes_its_memory_from_caches(world: World) -> None:
    world.add_model("kv", weight_bytes=GIB, kv_bytes_per_token=GIB // 100, context=3000)
    world.meter.used = 3 * GIB
    await world.begin(max_memory_percent=60.0, prefix_cache_bytes=100 * GIB)
    await world.engine.load("kv", context=None, slots=None, pin=None)
    run = world.engine._supervisor.runs["kv"]
    assert world.engine._supervisor.ledger.spare() == 0
    before = run.cache_limit
    assert isinstance(last(await collect(await world.ask("kv", "x" * 1000, max_tokens=200))), Finished)
    assert run.cache_limit < before


async def test_pressure_takes_caches_first_then_models(world: World) -> None:
    world.add_model("a", weight_bytes=12 * GIB, prefix_bytes=4 * GIB)
    await world.begin(oom_threshold_percent=95.0)
    await with_cache(world, "a", 4 * GIB)
    world.meter.used = 63 * GIB
    await until(lambda: bool(world.events.of("cache.shrunk")))
    (shrunk,) = world.events.of("cache.shrunk")
    assert shrunk["message"] == "the machine is short of memory"
    assert 2 * GIB < shrunk["freed_bytes"] < 3 * GIB
    assert not world.events.of("model.evicted")
    back = asyncio.create_task(gives_back(world, "a"))
    await until(lambda: bool(world.events.of("memory.pressure")))
    await back


# --------------------------------------------------------------------------------------------------------------- disk


def entry(directory: Path, name: str, size: int, used: float) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    path.write_bytes(b"x" * size)
    os.utime(path, (used, used))
    return path


def held(root: Path) -> int:
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())


def test_the_least_recently_used_goes_first_whosever_it_is(tmp_path: Path) -> None:
    disk = PrefixDisk(tmp_path, 100)
    one, two = disk.directory("one"), disk.directory("two")
    kept = [entry(one, "new", 40, 4), entry(two, "newer", 40, 5)]
    gone = [entry(one, "old", 40, 1), entry(two, "older.partial", 40, 2)]
    disk.tidy({})
    assert [path.exists() for path in (*kept, *gone)] == [True, True, False, False]
    disk.tidy({})
    assert held(tmp_path) == 80


def test_a_loaded_models_directory_is_its_own(tmp_path: Path) -> None:
    disk = PrefixDisk(tmp_path, 100)
    assert disk.grant("live") == 50
    mine = entry(disk.directory("live"), "old", 50, 1)
    other = entry(disk.directory("other"), "new", 51, 9)
    disk.tidy(disk.grants)
    assert mine.exists()
    assert not other.exists()
    assert not disk.directory("other").exists()


def test_what_a_model_left_is_cut_down_to_its_grant(tmp_path: Path) -> None:
    disk = PrefixDisk(tmp_path, 100)
    disk.grant("first")
    old, new = entry(disk.directory("second"), "old", 20, 1), entry(disk.directory("second"), "new", 20, 2)
    assert disk.grant("second") == 25
    disk.tidy(disk.grants, "second")
    assert (old.exists(), new.exists()) == (False, True)


def test_a_quota_of_nothing_leaves_nothing_of_ours(tmp_path: Path) -> None:
    disk = PrefixDisk(tmp_path / "prefix", 0)
    disk.tidy({})
    entry(disk.directory("a"), "x", 10, 1)
    entry(disk.directory("a"), "empty", 0, 1)
    strange = entry(tmp_path / "prefix" / "notes", "mine.txt", 10, 1)
    (tmp_path / "prefix" / disk.directory("b").name).symlink_to(strange.parent)
    assert disk.grant("a") == 0
    disk.tidy(disk.grants, "a")
    assert not disk.directory("a").exists()
    assert strange.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may delete everything")
def test_what_cannot_be_deleted_is_left(tmp_path: Path) -> None:
    disk = PrefixDisk(tmp_path, 10)
    stuck = entry(disk.directory("a"), "x", 100, 1)
    stuck.parent.chmod(0o500)
    disk.tidy({})
    stuck.parent.chmod(0o700)
    assert stuck.exists()


models = st.sampled_from("abcd")


@given(steps=st.lists(st.tuples(models, st.booleans(), st.integers(0, 60)), max_size=25))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_never_over_the_quota(tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, bool, int]]) -> None:
    """Models come and go in any order, and each writes as much as it was given."""
    root, quota = tmp_path_factory.mktemp("prefix"), 100
    disk = PrefixDisk(root, quota)
    for at, (model, comes, size) in enumerate(steps):
        if model in disk.grants and not comes:
            disk.release(model)
        elif comes and model not in disk.grants:
            granted = disk.grant(model)
            disk.tidy(disk.grants, model)
            here = disk.directory(model)
            left = granted - (held(here) if here.exists() else 0)
            assert left >= 0
            entry(here, str(at), min(size, left), at)
        assert held(root) <= quota


async def test_a_worker_is_told_its_place_and_leaves_it(world: World, tmp_path: Path) -> None:
    root = tmp_path / "prefix"
    await world.begin(prefix_dir=root, prefix_disk_bytes=1000)
    await collect(await world.ask("a"))
    caches = world.engine._supervisor._caches
    run = world.engine._supervisor.runs["a"]
    saved = run.saves
    command = load_command(run.ref, world.settings(), run.wanted_bounds(64))
    caches.admit(run, command)
    assert command.prefix_disk_dir == str(PrefixDisk(root, 0).directory("a"))
    assert command.prefix_disk_bytes == 500
    await world.engine.unload("a")
    assert (saved, run.saves) == (True, False)
    assert caches._disk is not None
    assert dict(caches._disk.grants) == {}


async def test_what_is_over_the_quota_goes_at_the_start(world: World, tmp_path: Path) -> None:
    disk = PrefixDisk(tmp_path / "prefix", 0)
    left = entry(disk.directory("gone"), "x", 2000, 1)
    await world.begin(prefix_dir=tmp_path / "prefix", prefix_disk_bytes=1000)
    await until(lambda: not left.exists())


async def test_a_load_is_given_up_while_the_disk_is_tidied(world: World) -> None:
    await world.begin()
    loading = asyncio.create_task(world.engine.load("a", context=None, slots=None, pin=None))
    await until(lambda: world.status("a").state == "loading")
    await world.engine.unload("a")
    assert world.status("a").state == "unloaded"
    await asyncio.gather(loading, return_exceptions=True)


async def test_nothing_is_promised_to_a_worker_that_keeps_no_cache(world: World) -> None:
    world.add_model("texts", weight_bytes=12 * GIB)
    world.add_model("vectors", weight_bytes=12 * GIB, embedding_dimensions=4)
    await world.begin()
    await world.engine.load("texts", context=None, slots=None, pin=None)
    await world.engine.load("vectors", context=None, slots=None, pin=None)
    limits = {name: run.cache_limit for name, run in world.engine._supervisor.runs.items()}
    assert limits["vectors"] == 0 < limits["texts"]
