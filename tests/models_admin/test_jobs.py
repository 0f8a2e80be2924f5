"""Jobs: real child processes, real rows."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
from asgiref.sync import sync_to_async

from models_admin.job_protocol import Progress
from models_admin.job_rows import INTERRUPTED, LEASE_S, MOST_FRUITLESS, began, reopen
from models_admin.job_runner import JobFailed, PlainRunner, run_program
from models_admin.jobs import Jobs
from models_admin.models import Job, JobState

PROGRAM = "tests.models_admin.job_program"
ROOT = Path(__file__).resolve().parents[2]
T = TypeVar("T")


class Sink:
    """Keeps domain events, and what is shown by key."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, Any]]] = []
        self.shown: dict[str | None, list[Any]] = {}

    def emit(self, kind: str, /, **fields: Any) -> None:
        self.seen.append((kind, fields))

    def publish(self, topic: str, payload: Any, *, key: str | None = None) -> None:
        assert topic == "jobs"
        self.shown.setdefault(key, []).append(payload)


class Watch:
    """Keeps progress and says when the first arrived."""

    def __init__(self) -> None:
        self.seen: list[Progress] = []
        self.first = asyncio.Event()

    def __call__(self, progress: Progress) -> None:
        self.seen.append(progress)
        self.first.set()

    async def pids(self) -> list[psutil.Process]:
        """The job and its own child, from the phase that ``wait`` reports."""
        await asyncio.wait_for(self.first.wait(), 30)
        return [psutil.Process(int(pid)) for pid in self.seen[0].phase.split()]


async def in_db(work: Callable[[], T]) -> T:
    return await sync_to_async(work)()


def ended(process: psutil.Process) -> bool:
    """Wait until a process that is not ours is gone (or a zombie that its parent has yet to reap)."""
    try:
        process.wait(20)
    except psutil.TimeoutExpired:
        return process.status() == psutil.STATUS_ZOMBIE
    return True


async def test_progress_and_result() -> None:
    watch = Watch()
    result = await PlainRunner().run("k", PROGRAM, {"do": "count", "a": 1, "b": 2}, subject="", on_progress=watch)
    assert result == {"sum": 3}
    assert watch.seen[0] == Progress("counting", 0, 1000, "steps")
    assert watch.seen[-1] == Progress("counting", 1000, 1000, "steps")
    assert len(watch.seen) < 1001, "progress is thinned out"


async def test_what_stands_still_is_shown_where_it_stands() -> None:
    """The second step comes too soon after the first to be told at once, and no third one follows."""
    told: asyncio.Queue[Progress] = asyncio.Queue()
    task = asyncio.create_task(run_program(PROGRAM, {"do": "stand"}, told.put_nowait))
    try:
        async with asyncio.timeout(30):
            assert [(await told.get()).done, (await told.get()).done] == [1, 2]
    finally:
        task.cancel()
        await asyncio.wait({task})


@pytest.mark.parametrize(
    ("do", "says"),
    [
        ("refuse", "It cannot be done today."),
        ("disk full", "The disk is full"),
        ("no access", "/there: Permission denied"),
        ("defect", "a defect of the program"),
        ("die", "SIGKILL"),
        ("babble", "not of this protocol"),
    ],
)
async def test_every_end_is_one_sentence(do: str, says: str) -> None:
    with pytest.raises(JobFailed) as failure:
        await run_program(PROGRAM, {"do": do}, Watch())
    assert says in failure.value.message
    assert "\n" not in failure.value.message


async def test_a_program_that_does_not_exist() -> None:
    with pytest.raises(JobFailed, match="No module named"):
        await run_program("models_admin.no_such_program", {}, Watch())


async def test_a_cancelled_caller_leaves_no_process() -> None:
    watch = Watch()
    task = asyncio.create_task(run_program(PROGRAM, {"do": "wait"}, watch))
    processes = await watch.pids()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert all(ended(process) for process in processes)


async def test_a_job_dies_with_its_server() -> None:
    code = f"""
import asyncio
from models_admin.job_runner import run_program
asyncio.run(run_program({PROGRAM!r}, {{"do": "wait"}}, lambda progress: print(progress.phase, flush=True)))
"""
    server = await asyncio.create_subprocess_exec(sys.executable, "-c", code, cwd=ROOT, stdout=subprocess.PIPE)
    assert server.stdout is not None
    line = await asyncio.wait_for(server.stdout.readline(), 30)
    processes = [psutil.Process(int(pid)) for pid in line.split()]
    server.kill()
    await server.wait()
    assert all(ended(process) for process in processes)


@pytest.mark.django_db(transaction=True)
async def test_a_row_tells_the_whole_story() -> None:
    sink = Sink()
    jobs = Jobs(sink)
    await jobs.run("sum", PROGRAM, {"do": "count", "a": 1, "b": 2}, subject="1+2", on_progress=Watch())
    job = await in_db(Job.objects.get)
    assert (job.state, job.result, job.error, job.lease_pid) == (JobState.DONE, {"sum": 3}, "", None)
    assert (job.kind, job.subject, job.phase, job.done, job.total, job.unit) == (
        "sum",
        "1+2",
        "counting",
        1000,
        1000,
        "steps",
    )
    assert job.started_at is not None
    assert job.finished_at is not None
    assert [kind for kind, _ in sink.seen] == ["job.started", "job.done"]
    ((key, shown),) = sink.shown.items()
    about = {"id": job.pk, "kind": "sum", "state": "running", "title": "1+2"}
    assert key == str(job.pk)
    assert shown[0] == {**about, "done": 0, "total": 0, "unit": "bytes", "message": "starting"}
    assert shown[-2] == {
        **about,
        "done": 1000,
        "total": 1000,
        "unit": "steps",
        "message": "counting 1000 of 1000 steps",
    }
    assert shown[-1] is None


@pytest.mark.django_db(transaction=True)
async def test_a_failure_is_recorded() -> None:
    with pytest.raises(JobFailed):
        await Jobs().run("k", PROGRAM, {"do": "refuse"}, subject="", on_progress=Watch())
    job = await in_db(Job.objects.get)
    assert (job.state, job.error) == (JobState.FAILED, "It cannot be done today.")


@pytest.mark.django_db(transaction=True)
async def test_cancel_stop_and_a_cancelled_caller_are_recorded() -> None:
    jobs = Jobs()
    watches = [Watch(), Watch(), Watch()]
    tasks = [asyncio.create_task(jobs.run("k", PROGRAM, {"do": "wait"}, subject="", on_progress=w)) for w in watches]
    processes = [process for watch in watches for process in await watch.pids()]
    running = await in_db(lambda: list(Job.objects.filter(state=JobState.RUNNING, lease_pid=os.getpid())))
    assert len(running) == 3
    tasks[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await tasks[0]
    left = await in_db(lambda: list(Job.objects.filter(state=JobState.RUNNING).values_list("pk", flat=True)))
    assert jobs.cancel(left[0])
    assert not jobs.cancel(10**6)
    await jobs.stop()
    for task in tasks[1:]:
        with pytest.raises(JobFailed, match="cancelled"):
            await task
    states = await in_db(lambda: set(Job.objects.values_list("state", flat=True)))
    assert states == {JobState.CANCELLED}
    assert all(ended(process) for process in processes)


@pytest.mark.django_db(transaction=True)
async def test_jobs_of_dead_servers_are_failed_and_those_of_living_ones_left() -> None:
    gone = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
    await gone.wait()
    now = datetime.now(UTC)

    def make(pid: int | None, age_s: float) -> int:
        beat = now - timedelta(seconds=age_s)
        return Job.objects.create(kind="k", state=JobState.RUNNING, lease_pid=pid, heartbeat_at=beat).pk

    def fill() -> tuple[list[int], int]:
        dead = [make(None, 0), make(gone.pid, 0), make(os.getpid(), 0), make(os.getppid(), LEASE_S + 1)]
        return dead, make(os.getppid(), 0)

    dead, alive = await in_db(fill)
    assert await Jobs().start() == sorted(dead, reverse=True)
    rows = await in_db(lambda: {job.pk: (job.state, job.error) for job in Job.objects.all()})
    assert {rows[pk] for pk in dead} == {(JobState.FAILED, INTERRUPTED)}
    assert rows[alive] == (JobState.RUNNING, "")


@pytest.mark.django_db(transaction=True)
async def test_a_fetch_goes_on_until_it_got_no_further_for_long() -> None:
    """One under which server after server ends may be what ends them; reading what is there counts for nothing."""

    def fill() -> int:
        return Job.objects.create(kind="fetch", state=JobState.RUNNING, done=5).pk

    def end(job: int, brought: int | None) -> None:
        """Run it once more, in a server that is killed."""
        reopen(job, {})
        if brought is not None:
            began(job, brought, 100)
        Job.objects.filter(pk=job).update(lease_pid=None, phase="check", done=1)

    async def state(job: int) -> tuple[str, int]:
        assert await Jobs().start() == []
        row = await Job.objects.aget(pk=job)
        return row.state, row.fruitless

    job = await in_db(fill)
    assert await state(job) == (JobState.QUEUED, 1)
    for brought, fruitless in [(7, 1), (8, 1), (8, 2), (None, 3), (9, 1), (None, 2)]:
        await sync_to_async(end)(job, brought)
        assert await state(job) == (JobState.QUEUED, fruitless)
    for _ in range(MOST_FRUITLESS - 2):
        await sync_to_async(end)(job, 9)
        assert (await state(job))[0] == JobState.QUEUED
    await sync_to_async(end)(job, 9)
    assert await state(job) == (JobState.PAUSED, MOST_FRUITLESS + 1)
    assert await Jobs().waiting("fetch") == []
    row = await Job.objects.aget(pk=job)
    assert "kept" in row.error
    await Jobs().requeue(row)
    assert await state(job) == (JobState.QUEUED, 0)
