"""The sampler: one sample in, the right topics out, and nothing makes it end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from inference.ipc import Stats
from monitoring.hub import Hub
from monitoring.sampler import Sampler, found_percent, get_sampler, request_payload, split
from tests.monitoring.fakes import GIB, FakeEngine, record


class World:
    def __init__(self) -> None:
        self.hub = Hub()
        self.engine = FakeEngine("org/one", "org/two", "broken")
        self.sampler = Sampler(self.hub, self.engine)
        broken = self.engine.statuses["broken"]
        broken.state, broken.reason = "failed", "model.safetensors is truncated"

    def load(self, model: str, footprint: int, **stats: Any) -> None:
        status = self.engine.make_ready(model, **stats)
        status.footprint_bytes = footprint


@pytest.fixture
def world() -> World:
    return World()


async def test_it_works(world: World) -> None:
    world.load("org/one", 10 * GIB, kv_bytes=2 * GIB, cache_bytes=GIB, tokens_per_second=41.26)
    world.sampler.tick()
    memory = world.hub.latest("memory")
    share = memory["models"][0]
    assert (share["weights"], share["kv"], share["cache"]) == (7 * GIB, 2 * GIB, GIB)
    assert memory["other"] == 26 * GIB
    assert memory["other"] + share["footprint"] == memory["used"] == 36 * GIB
    assert (memory["limit"], memory["gpu_limit"]) == (86 * GIB, 72 * GIB)
    status = world.hub.latest("status")
    assert (status["health"], status["tokens_per_second"], status["used"]) == ("healthy", 41.3, 36 * GIB)
    assert len(world.sampler.history) == 1


async def test_only_models_that_are_awake_have_a_card(world: World) -> None:
    world.load("org/one", GIB)
    world.sampler.tick()
    assert [model["id"] for model in world.hub.latest("models")] == ["org/one"]
    assert [(model["id"], model["reason"]) for model in world.hub.latest("catalog")] == [
        ("broken", "model.safetensors is truncated"),
        ("org/one", None),
        ("org/two", None),
    ]


async def test_the_catalog_is_published_when_it_changes_only(world: World) -> None:
    published: list[str] = []
    world.hub.tap(lambda topic, payload: published.append(topic))
    world.sampler.tick()
    world.sampler.tick()
    world.engine.statuses["org/two"].state = "loading"
    world.sampler.tick()
    assert published.count("catalog") == 2
    assert published.count("memory") == 3


async def test_requests_in_flight_show_where_they_are(world: World) -> None:
    world.engine.records = [
        record("org/one", id="a", received=100.0, prepared=100.1, prompt_tokens=900),
        record("org/one", id="b", received=100.0, prepared=100.1, started=100.2, prompt_tokens=900, prefill_done=512),
        record(
            "org/one", id="c", received=100.0, started=100.2, first_token=100.5, finished=102.5, completion_tokens=5
        ),
    ]
    world.engine.records[2].finished = None
    world.sampler.tick()
    requests = {request["id"]: request for request in world.hub.latest("requests")}
    assert [requests[name]["phase"] for name in "abc"] == ["queued", "prefill", "decode"]
    assert requests["b"]["prefill_done"] == 512
    assert requests["c"]["ttft_ms"] == 500.0
    assert requests["a"]["client"] == "bot-3"
    status = world.hub.latest("status")
    assert (status["running"], status["queued"]) == (2, 1)


async def test_a_model_keeps_its_colour(world: World) -> None:
    world.load("org/two", GIB)
    world.sampler.tick()
    world.load("org/one", GIB)
    world.sampler.tick()
    assert {model["id"]: model["colour"] for model in world.hub.latest("models")} == {"org/two": 1, "org/one": 2}


@pytest.mark.parametrize(("kv", "cache"), [(5, 0), (20, 0), (6, 20), (0, 0)])
def test_the_parts_of_a_footprint_add_up(kv: int, cache: int) -> None:
    parts = split(10, Stats(kv_bytes=kv, cache_bytes=cache))
    assert sum(parts) == 10
    assert min(parts) >= 0


@pytest.fixture
async def running(world: World, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr("monitoring.sampler._restore", lambda history: [])
    world.sampler = Sampler(world.hub, world.engine, period_s=0.05)
    task = asyncio.create_task(world.sampler.run())
    yield world
    task.cancel()
    await asyncio.wait({task})
    assert get_sampler() is None


async def test_it_goes_on_after_a_failure(running: World, caplog: pytest.LogCaptureFixture) -> None:
    subscription = running.hub.subscribe(["memory"])
    async with asyncio.timeout(5):
        await anext(subscription)
        assert get_sampler() is running.sampler
        running.engine.broken = OSError("no such device")
        while running.engine.failures < 2:
            await asyncio.sleep(0.01)
        running.engine.broken = None
        await anext(subscription)
    assert caplog.text.count("the sampler failed") == 1


def test_the_prefix_cache_and_the_place_in_the_queue(world: World) -> None:

    status = world.engine.make_ready(
        "org/one", kv_bytes=10, prefix_bytes=30, prefix_tokens_asked=8, prefix_tokens_found=6
    )
    status.footprint_bytes, status.ttl_s = 100, 60.0
    waiting = record()
    waiting.queue_position = 3
    (model,) = world.sampler.awake([status], [waiting])
    assert (model["kv"], model["weights"], model["prefix"], model["prefix_found"], model["ttl"]) == (
        40,
        60,
        30,
        75.0,
        60,
    )
    assert request_payload(waiting)["position"] == 3
    assert found_percent(Stats()) is None
