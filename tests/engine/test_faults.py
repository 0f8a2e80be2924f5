"""Workers that die, freeze or hang, and a web process that is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import textwrap
from pathlib import Path
from typing import Any

import psutil
import pytest

from inference.engine.child import child_environment
from inference.errors import LmxError, ModelUnavailable, WorkerDied
from inference.ipc import Delta, Failed, Finished
from tests.engine.conftest import World, collect, last, text_of, until


async def test_kill_9_mid_stream(world: World) -> None:
    """Its streams fail at once, the other model loses no token, the next request loads it again."""
    gate = world.gate()
    await world.begin()
    doomed = [await world.ask("a", hold_after=3, gate=gate.path) for _ in range(3)]
    other = await world.ask("b", "count", tokens=40, hold_after=5, gate=gate.path)
    for generation in doomed:
        await until(lambda g=generation: g.record.completion_tokens == 3)  # type: ignore[misc]
    killed = world.pid("a")
    os.kill(killed, signal.SIGKILL)
    for generation in doomed:
        events = await collect(generation)
        failure = last(events)
        assert isinstance(failure, Failed)
        assert failure.code == "worker_died"
        assert "SIGKILL" in failure.message
        assert len(text_of(events).split()) == 3
    await until(lambda: world.status("a").state == "failed")
    gate.open()
    assert isinstance(last(await collect(other)), Finished)
    assert isinstance(last(await collect(await world.ask("a"))), Finished)
    assert world.pid("a") != killed
    assert not psutil.pid_exists(killed)
    (died,) = world.events.of("worker.died")
    assert "SIGKILL" in died["cause"]


async def test_other_stream_is_whole(world: World) -> None:
    gate = world.gate()
    await world.begin()
    prompt: dict[str, Any] = {"tokens": 60, "hold_after": 10, "gate": gate.path}
    doomed = await world.ask("a", hold_after=1, gate=world.gate().path)
    other = await world.ask("b", "same", **prompt)
    await until(lambda: other.record.completion_tokens == 10)
    os.kill(world.pid("a"), signal.SIGKILL)
    assert isinstance(last(await collect(doomed)), Failed)
    gate.open()
    events = await collect(other)
    assert len([event for event in events if isinstance(event, Delta)]) == 60
    assert text_of(events) == text_of(await collect(await world.ask("b", "same", **prompt)))


@pytest.mark.parametrize(("how", "cause"), [("kill", "SIGKILL"), ("exit", "exit code 99")])
async def test_worker_that_ends_itself_says_how(world: World, how: str, cause: str) -> None:
    await world.begin()
    failure = last(await collect(await world.ask("a", die_after=4, die=how)))
    assert isinstance(failure, Failed)
    assert cause in failure.message


async def test_frozen_worker_misses_its_heartbeats(world: World) -> None:
    gate = world.gate()
    await world.begin(heartbeat_s=0.2, heartbeat_misses=15)
    generation = await world.ask("a", hold_after=1, gate=gate.path)
    await until(lambda: generation.record.completion_tokens == 1)
    os.kill(world.pid("a"), signal.SIGSTOP)
    failure = last(await collect(generation))
    assert isinstance(failure, Failed)
    assert (failure.code, "heartbeats" in failure.message) == ("worker_died", True)
    assert isinstance(last(await collect(await world.ask("a"))), Finished)


async def test_hung_stepping_is_timed_out_and_then_ended(world: World) -> None:
    """A worker that answers pings but does not step: its request times out, then it counts as dead."""
    await world.begin(timeout_s=0.4, cancel_grace_s=0.4)
    failure = last(await collect(await world.ask("a", hang_after=2)))
    assert isinstance(failure, Failed)
    assert failure.code == "timeout"
    assert world.records.kept[0].cancelled_by == "timeout"
    await until(lambda: bool(world.events.of("worker.died")))
    assert "stood still" in world.events.of("worker.died")[0]["cause"]
    assert world.events.of("request.timeout")[0]["model"] == "a"
    assert isinstance(last(await collect(await world.ask("a"))), Finished)


async def test_slow_answer_that_progresses_is_not_timed_out(world: World) -> None:
    await world.begin(timeout_s=0.5)
    events = await collect(await world.ask("a", tokens=8, interval_s=0.1))
    assert isinstance(last(events), Finished)


async def test_death_while_loading(world: World) -> None:
    world.add_model("dies", load_die="kill")
    await world.begin()
    with pytest.raises(WorkerDied, match="SIGKILL"):
        await world.ask("dies")
    assert world.status("dies").state == "failed"


async def test_stopped_after_crashes_outlives_the_server_until_the_owner_loads(world: World) -> None:
    await world.begin(max_crashes=2)
    for _ in range(2):
        last(await collect(await world.ask("a", die_after=0)))
    await until(lambda: world.status("a").state == "stopped-after-crashes")
    with pytest.raises(ModelUnavailable, match="stopped after 2 crashes"):
        await world.ask("a")
    await world.engine.stop(0)

    await world.begin(max_crashes=2)
    assert world.status("a").state == "stopped-after-crashes"
    with pytest.raises(ModelUnavailable, match="stopped after 2 crashes") as caught:
        await world.ask("a")
    assert caught.value.retry_after
    assert (await world.engine.load("a", context=None, slots=None, pin=None)).state == "ready"
    assert isinstance(last(await collect(await world.ask("a"))), Finished)


async def test_queued_request_survives_the_death_of_its_worker(world: World) -> None:
    """It had no slot yet, so a second worker answers it as if nothing had happened."""
    world.add_model("one", slots=1)
    await world.begin()
    gate = world.gate()
    running = await world.ask("one", hold_after=1, gate=gate.path)
    waiting = asyncio.create_task(world.ask("one", "patient"))
    await until(lambda: world.status("one").queued == 1)
    os.kill(world.pid("one"), signal.SIGKILL)
    assert isinstance(last(await collect(running)), Failed)
    assert isinstance(last(await collect(await waiting)), Finished)


async def test_stop_drains_and_ends_what_is_left(world: World) -> None:
    gate = world.gate()
    await world.begin()
    quick = await world.ask("a", hold_after=1, gate=gate.path)
    endless = await world.ask("b", tokens=5, hold_after=2, gate=world.gate().path)
    collecting = [asyncio.create_task(collect(quick)), asyncio.create_task(collect(endless))]
    await until(lambda: endless.record.completion_tokens == 2)
    stopping = asyncio.create_task(world.engine.stop(0.5))
    await until(lambda: world.status("a").state == "draining")
    with pytest.raises(LmxError):
        await world.ask("a")
    gate.open()
    await stopping
    quick_end, endless_end = [last(await task) for task in collecting]
    assert isinstance(quick_end, Finished)
    assert isinstance(endless_end, Failed)
    assert (quick_end.reason, endless_end.code) == ("stop", "model_unavailable")


async def test_children_die_with_a_killed_web_process(world: World, tmp_path: Path) -> None:
    """A program that runs an engine with two loaded models is killed; nothing of it stays."""
    program = textwrap.dedent(
        """
        import asyncio, sys
        from pathlib import Path
        from tests.engine.conftest import World

        async def main() -> None:
            world = World(Path(sys.argv[1]))
            world.add_model("a"), world.add_model("b")
            engine = await world.begin()
            await engine.load("a", context=None, slots=None, pin=None)
            await engine.load("b", context=None, slots=None, pin=None)
            sys.stdout.write(f"{world.pid('a')} {world.pid('b')}\\n")
            sys.stdout.flush()
            await asyncio.Event().wait()

        asyncio.run(main())
        """
    )
    web = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(tmp_path / "other"), stdout=asyncio.subprocess.PIPE, env=child_environment()
    )
    assert web.stdout is not None
    line = await asyncio.wait_for(web.stdout.readline(), 30)
    workers = [psutil.Process(int(pid)) for pid in line.split()]
    assert len(workers) == 2
    web.kill()
    await web.wait()
    await until(lambda: not any(_alive(worker) for worker in workers))


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
