"""The default backend on a tiny random model, through the engine: a crash, a cancel, the next load."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from inference.catalog import ModelRef
from inference.ipc import Failed, Finished, GenerateRequest, Sampling
from tests.engine.conftest import World, collect, last, text_of, until
from tests.material import tiny_model

pytestmark = pytest.mark.slow
GREEDY = Sampling(temperature=0.0)


@pytest.fixture
async def real(world: World) -> World:
    path = tiny_model()
    for name in ("one", "two"):
        size = (path / "model.safetensors").stat().st_size
        world.catalog.refs[name] = ModelRef(name, path, weight_bytes=size, context_length=2048)
    await world.begin(worker_backend=None, heartbeat_s=1.0)
    return world


async def test_it_works(real: World) -> None:
    request = GenerateRequest(prompt="The sea", max_tokens=24, sampling=GREEDY)
    events = await collect(await real.engine.generate("one", request, real.record("one")))
    finished = last(events)
    assert isinstance(finished, Finished)
    assert finished.usage.completion_tokens == 24
    assert text_of(events) == text_of(await collect(await real.engine.generate("one", request, real.record("one"))))
    status = real.status("one")
    assert status.capabilities is not None
    assert status.context == 2048


async def test_whole_through_vllm_mlx_one_request_at_a_time(world: World) -> None:
    path = tiny_model()
    world.catalog.refs["one"] = ModelRef("one", path, context_length=2048)
    await world.begin(worker_backend="vllm_engine", heartbeat_s=1.0)
    long = GenerateRequest(prompt="Once upon a time", max_tokens=1500, sampling=GREEDY)
    first = await world.engine.generate("one", long, world.record("one"))
    assert world.status("one").slots == 1
    await until(lambda: first.record.completion_tokens > 3)
    short = GenerateRequest(prompt="The sea", max_tokens=24, sampling=GREEDY)
    waiting = asyncio.create_task(world.engine.generate("one", short, world.record("one")))
    await until(lambda: world.status("one").queued == 1)
    assert first.cancelled_at is None
    first.cancel("owner")
    finished = last(await collect(await waiting))
    assert isinstance(finished, Finished)
    assert finished.usage.completion_tokens == 24
    assert last(await collect(first)).reason == "cancelled"  # type: ignore[union-attr]


async def test_killed_mid_stream_and_loaded_again(real: World) -> None:
    """The other model's answer is what it is without the crash beside it."""
    long = GenerateRequest(prompt="Once upon a time", max_tokens=400, ignore_eos=True, sampling=GREEDY)
    alone = text_of(await collect(await real.engine.generate("two", long, real.record("two"))))
    doomed = await real.engine.generate("one", long, real.record("one"))
    await until(lambda: doomed.record.completion_tokens > 3)
    beside = await real.engine.generate("two", long, real.record("two"))
    os.kill(real.pid("one"), signal.SIGKILL)
    failure = last(await collect(doomed))
    assert isinstance(failure, Failed)
    assert failure.code == "worker_died"
    assert text_of(await collect(beside)) == alone
    again = await real.engine.generate("one", long, real.record("one"))
    assert text_of(await collect(again)) == alone


async def test_leaving_ends_the_decoding(real: World) -> None:
    endless = GenerateRequest(prompt="On and on", max_tokens=1900, ignore_eos=True)
    async with await real.engine.generate("one", endless, real.record("one")) as generation:
        async for _ in generation:
            break
    await until(lambda: len(real.records.kept) == 1)
    record = real.records.kept[0]
    assert record.finish_reason == "cancelled"
    assert record.completion_tokens < 1900
    await real.worker_running("one", 0)
