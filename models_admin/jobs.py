"""Jobs with a row: every run of a job program is recorded, shown while it runs, and can be cancelled.

While it runs, a job is a cell of the hub's ``jobs`` topic under its number: ``{"id", "kind", "state", "title", "done",
"total", "message"}``, for bytes also ``bytes_per_second`` and ``seconds_left`` (null when unknown).

All methods belong to the server's event loop; rows are written in short transactions on Django's own thread.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import psutil
from asgiref.sync import sync_to_async
from django.db import DatabaseError
from django.db.models import F, Q

from inference.records import EventSink
from models_admin.job_protocol import Progress
from models_admin.job_rate import Rate
from models_admin.job_runner import JobFailed, OnPart, OnProgress, run_program
from models_admin.job_words import describe
from models_admin.models import Job, JobState

log = logging.getLogger(__name__)

HEARTBEAT_S = 10.0
LEASE_S = 60.0
_SAVE_EVERY_S = 1.0
_ENDS = {JobState.QUEUED: "interrupted"}
INTERRUPTED = "interrupted: the server ended while it ran"
RESUMABLE = frozenset({"fetch"})
"""The kinds of jobs that go on where they stopped when their server has ended."""


Settle = Callable[[dict[str, Any] | None], Awaitable[None]]


class Board(EventSink, Protocol):
    """Where jobs are shown; the hub is one."""

    def publish(self, topic: str, payload: Any, *, key: str | None = None) -> None:
        """Set a cell; None removes it. Must not block."""
        ...


class Jobs:
    """Runs and records job programs. ``board`` shows them and hears ``job.started``, ``job.done``, ..."""

    def __init__(self, board: Board | None = None) -> None:
        self._board = board
        self._running: dict[int, asyncio.Task[Any]] = {}
        self._rates: dict[int, Rate] = {}
        self._latest: dict[int, Progress] = {}
        self._over: dict[int, asyncio.Event] = {}
        self._cancelled: set[int] = set()
        self._stopping = False

    async def start(self) -> list[int]:
        """Settle what servers that are gone have left. Call it once, before the first ``run``.

        Jobs that can go on wait for ``run`` to resume them; the others have failed, and their ids are returned. One
        that brought nothing since it was last resumed is not resumed again: it may be what ends the server.
        """
        return await sync_to_async(_settle_interrupted)()

    async def waiting(self, kind: str) -> list[Job]:
        """Jobs of that kind to be resumed, the oldest first."""
        return await sync_to_async(lambda: list(Job.objects.filter(state=JobState.QUEUED, kind=kind).order_by("pk")))()

    async def give_up(self, job_id: int) -> None:
        """A job that waits to be resumed, and cannot be, has failed."""
        await _quietly(_finish, job_id, JobState.FAILED, INTERRUPTED, {})

    async def stop(self) -> None:
        """End what runs; return when each child and its row are done. What can go on, waits for the next start."""
        self._stopping = True
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *(over.wait() for over in self._over.values()), return_exceptions=True)

    def cancel(self, job_id: int) -> bool:
        """End a running job; its ``run`` raises ``JobFailed``. False when no such job runs here."""
        task = self._running.get(job_id)
        if task is None or not task.cancel():
            return False
        self._cancelled.add(job_id)
        return True

    async def ended(self, job_id: int) -> None:
        """Return when the job's program is gone and its row says so; at once when it does not run here."""
        if (over := self._over.get(job_id)) is not None:
            await over.wait()

    def rate(self, job_id: int) -> Rate:
        """How fast a running job is; a new one, which knows nothing, for any other."""
        return self._rates.get(job_id) or Rate()

    def latest(self, job_id: int) -> Progress | None:
        """How far a running job is; None when it does not run here, or has not said."""
        return self._latest.get(job_id)

    async def run(
        self,
        kind: str,
        program: str,
        params: dict[str, Any],
        *,
        subject: str,
        on_progress: OnProgress,
        on_start: Callable[[int], None] = lambda job_id: None,
        resumes: int | None = None,
        on_part: OnPart = lambda about: None,
        settle: Settle | None = None,
    ) -> dict[str, Any]:
        """See ``job_runner.Runner.run``. The row ends as done, failed or cancelled, or waits, whatever happens.

        ``on_start`` hears the job's number before its program starts, ``on_part`` each part of the result;
        ``settle`` is awaited with the result, or None, before anybody hears that the job has ended. ``resumes`` is the
        number of one of ``waiting``.
        """
        job_id = await self._opened(kind, subject, params, resumes)
        tell, over = self._begin(job_id, kind, subject, on_progress), self._over[job_id]
        work = self._work(job_id, program, params, tell, on_part, settle)
        task: asyncio.Task[dict[str, Any]] = asyncio.create_task(work, name=f"job {job_id} {kind}")
        self._running[job_id] = task
        on_start(job_id)
        state, error, result = JobState.FAILED, "a defect: see the log", dict[str, Any]()
        try:
            # Two ways to be cancelled: the caller is (that goes on up), or the job is by ``cancel`` (a refusal).
            await asyncio.wait({task})
            if task.cancelled():
                state, error = self._cut_off(job_id, kind)
                raise _refusal(kind, subject, state)
            result = task.result()
            state, error = JobState.DONE, ""
            return result
        except JobFailed as failure:
            error = failure.message
            if failure.code not in (JobFailed.code, "job_cancelled", "interrupted"):
                result = {"code": failure.code, "details": failure.details}
            raise
        except OSError as failure:
            error = f"the program cannot be started: {failure.strerror or failure}"
            raise JobFailed(error) from failure
        except asyncio.CancelledError:
            state, error = self._cut_off(job_id, kind)
            task.cancel()
            await asyncio.wait({task})
            raise
        finally:
            del self._running[job_id]
            try:
                await asyncio.shield(_quietly(_finish, job_id, state, error, result))
            finally:  # who waits for it must not wait for ever
                self._hide(job_id)
                self._emit(_ENDS.get(state, state.value), job_id, kind, subject, error=error)
                self._latest.pop(job_id, None)
                del self._rates[job_id], self._over[job_id]
                over.set()

    async def _opened(self, kind: str, subject: str, params: dict[str, Any], resumes: int | None) -> int:
        if resumes is None:
            job_id = await sync_to_async(_create)(kind, subject, params)
        else:
            job_id = await sync_to_async(_reopen)(resumes, params)
        self._emit("started" if resumes is None else "resumed", job_id, kind, subject)
        return job_id

    def _cut_off(self, job_id: int, kind: str) -> tuple[JobState, str]:
        """What becomes of a job that was ended, by its owner or with the server."""
        wanted = job_id in self._cancelled
        self._cancelled.discard(job_id)
        if self._stopping and kind in RESUMABLE and not wanted:
            return JobState.QUEUED, ""
        return JobState.CANCELLED, "cancelled"

    def _begin(self, job_id: int, kind: str, subject: str, on_progress: OnProgress) -> OnProgress:
        """Show the job, and return what is to hear of its progress."""
        rate = self._rates[job_id] = Rate()
        self._over[job_id] = asyncio.Event()
        self._show(job_id, kind, subject, Progress("starting"))

        def tell(progress: Progress) -> None:
            rate.add(progress)
            self._latest[job_id] = progress
            self._show(job_id, kind, subject, progress)
            on_progress(progress)

        return tell

    async def _work(
        self,
        job_id: int,
        program: str,
        params: dict[str, Any],
        on_progress: OnProgress,
        on_part: OnPart,
        settle: Settle | None,
    ) -> dict[str, Any]:
        latest = Progress("")
        result: dict[str, Any] | None = None

        def keep(progress: Progress) -> None:
            nonlocal latest
            latest = progress
            on_progress(progress)

        async def save_forever() -> None:
            saved, beat = latest, time.monotonic()
            while True:
                await asyncio.sleep(_SAVE_EVERY_S)
                if latest is not saved or time.monotonic() - beat > HEARTBEAT_S:
                    saved, beat = latest, time.monotonic()
                    await _quietly(_save_progress, job_id, saved)

        saver = asyncio.create_task(save_forever(), name=f"job {job_id} progress")
        try:
            result = await run_program(program, params, keep, on_part)
            return result
        finally:
            saver.cancel()
            await asyncio.wait({saver})
            if settle is not None:
                await asyncio.shield(settle(result))
            await asyncio.shield(_quietly(_save_progress, job_id, latest))

    def _emit(self, what: str, job_id: int, kind: str, subject: str, **more: Any) -> None:
        if self._board is not None:
            self._board.emit(f"job.{what}", job=job_id, job_kind=kind, subject=subject, **more)

    def _show(self, job_id: int, kind: str, subject: str, progress: Progress) -> None:
        if self._board is not None:
            shown = {"id": job_id, "kind": kind, "state": JobState.RUNNING.value, "title": subject}
            shown |= {"done": progress.done, "total": progress.total, "message": describe(progress)}
            rate = self._rates[job_id]
            if progress.unit == "bytes" and rate.bytes_per_second:
                shown |= {"bytes_per_second": round(rate.bytes_per_second), "seconds_left": rate.seconds_left}
            self._board.publish("jobs", shown, key=str(job_id))

    def _hide(self, job_id: int) -> None:
        if self._board is not None:
            self._board.publish("jobs", None, key=str(job_id))


def _refusal(kind: str, subject: str, state: JobState) -> JobFailed:
    """Of a job that was ended, for who waits for it."""
    if state is JobState.QUEUED:
        return JobFailed("the server is stopping; the job goes on when it starts again", code="interrupted")
    return JobFailed(f"The job {kind} {subject} was cancelled", code="job_cancelled")


async def _quietly(write: Any, *args: Any) -> None:
    """A row that cannot be written must not end the work it describes."""
    try:
        await sync_to_async(write)(*args)
    except DatabaseError as error:
        log.warning("a job's row cannot be written: %s", error)


def _create(kind: str, subject: str, params: dict[str, Any]) -> int:
    now = datetime.now(UTC)
    job = Job.objects.create(
        kind=kind,
        subject=subject,
        params=params,
        state=JobState.RUNNING,
        lease_pid=os.getpid(),
        heartbeat_at=now,
        started_at=now,
    )
    return job.pk


def _save_progress(job_id: int, progress: Progress) -> None:
    Job.objects.filter(pk=job_id, state=JobState.RUNNING).update(
        phase=progress.phase,
        done=progress.done,
        total=progress.total,
        unit=progress.unit,
        heartbeat_at=datetime.now(UTC),
    )


def _finish(job_id: int, state: JobState, error: str, result: dict[str, Any]) -> None:
    finished_at = None if state is JobState.QUEUED else datetime.now(UTC)
    Job.objects.filter(pk=job_id).update(
        state=state, error=error, result=result, finished_at=finished_at, lease_pid=None
    )


def _reopen(job_id: int, params: dict[str, Any]) -> int:
    Job.objects.filter(pk=job_id).update(
        params=params,
        state=JobState.RUNNING,
        lease_pid=os.getpid(),
        heartbeat_at=datetime.now(UTC),
        resumed_from=F("done"),
    )
    return job_id


def _settle_interrupted() -> list[int]:
    """A lease is lost when its process is gone, or has not been heard of for so long that its id means another."""
    now = datetime.now(UTC)
    unfinished = Job.objects.filter(Q(state=JobState.RUNNING) | Q(state=JobState.QUEUED))
    lost = [job for job in unfinished if not _is_leased(job, now)]
    going_on = [job.pk for job in lost if _goes_on(job)]
    over = [job.pk for job in lost if job.pk not in going_on]
    Job.objects.filter(pk__in=going_on).update(state=JobState.QUEUED, lease_pid=None)
    Job.objects.filter(pk__in=over).update(state=JobState.FAILED, error=INTERRUPTED, finished_at=now, lease_pid=None)
    return over


def _goes_on(job: Job) -> bool:
    return job.kind in RESUMABLE and (job.resumed_from is None or job.done > job.resumed_from)


def _is_leased(job: Job, now: datetime) -> bool:
    if job.lease_pid is None or job.heartbeat_at is None or job.lease_pid == os.getpid():
        return False
    return now - job.heartbeat_at < timedelta(seconds=LEASE_S) and psutil.pid_exists(job.lease_pid)
