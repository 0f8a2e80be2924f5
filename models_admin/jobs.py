"""Jobs with a row: every run of a job program is recorded, shown while it runs, and can be cancelled or paused.

Until it has ended, a job is a cell of the hub's ``jobs`` topic under its number: ``{"id", "kind", "state", "title",
"done", "total", "unit", "message"}``; while it runs, for bytes also ``bytes_per_second`` and ``seconds_left`` (null
when unknown), and for the file under way ``file`` and ``file_done``; while it is queued, its ``place``.

All methods belong to the server's event loop; rows are written in short transactions on Django's own thread.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from asgiref.sync import sync_to_async
from django.db import DatabaseError

from inference.records import EventSink
from models_admin import job_rows
from models_admin.job_protocol import Progress
from models_admin.job_rate import Rate
from models_admin.job_rows import INTERRUPTED, RESUMABLE, WAITS
from models_admin.job_runner import JobFailed, OnPart, OnProgress, run_program
from models_admin.job_words import describe
from models_admin.models import Job, JobState

log = logging.getLogger(__name__)

HEARTBEAT_S = 10.0
_SAVE_EVERY_S = 1.0
_EVENTS = {JobState.QUEUED: "interrupted"}

Settle = Callable[[dict[str, Any] | None], Awaitable[None]]


class Board(EventSink, Protocol):
    """Where jobs are shown; the hub is one."""

    def publish(self, topic: str, payload: Any, *, key: str | None = None) -> None:
        """Set a cell; None removes it. Must not block."""
        ...


@dataclass(frozen=True, slots=True)
class End:
    """How a job ends: what becomes of it, and the sentence and code for who waits for it, or its result."""

    state: JobState
    message: str
    code: str
    details: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)

    @property
    def kept(self) -> dict[str, Any]:
        """The row's result; one that was cancelled needs no code."""
        if not self.code or self.state in (JobState.CANCELLED, JobState.QUEUED):
            return self.result
        return {"code": self.code, "details": self.details}


CANCELLED = End(JobState.CANCELLED, "cancelled", "job_cancelled")
PAUSED = End(JobState.PAUSED, "paused", "job_paused")
_DEFECT = End(JobState.FAILED, "a defect: see the log", "")
_INTERRUPTED = End(JobState.QUEUED, "", "interrupted")


class Jobs:
    """Runs and records job programs. ``board`` shows them and hears ``job.started``, ``job.done``, ..."""

    def __init__(self, board: Board | None = None) -> None:
        self._board = board
        self._running: dict[int, asyncio.Task[Any]] = {}
        self._rates: dict[int, Rate] = {}
        self._latest: dict[int, Progress] = {}
        self._over: dict[int, asyncio.Event] = {}
        self._ends: dict[int, End] = {}
        self._stopping = asyncio.Event()

    async def start(self) -> list[int]:
        """Settle what servers that are gone have left. Call it once, before the first ``run``.

        Jobs that can go on wait for ``run`` to resume them; the others have failed, and their ids are returned. One
        that got no further while server after server ended is paused: it may be what ends them.
        """
        return await sync_to_async(job_rows.settle_interrupted)()

    async def waiting(self, kind: str) -> list[Job]:
        """Jobs of that kind whose turn is to come, in its order."""
        return await sync_to_async(job_rows.waiting)(kind)

    async def paused(self) -> list[Job]:
        """The oldest first."""
        return await sync_to_async(job_rows.paused)()

    async def enqueue(self, kind: str, subject: str, params: dict[str, Any]) -> int:
        """The number of a new job that waits for its turn: for a ``run`` that ``resumes`` it."""
        job_id = await sync_to_async(job_rows.create)(kind, subject, params, JobState.QUEUED)
        self._emit("queued", job_id, kind, subject)
        return job_id

    async def requeue(self, row: Job) -> None:
        """Have a job that is paused, or has ended without a result, wait for its turn again."""
        await sync_to_async(job_rows.requeue)(row.pk)
        self._emit("queued", row.pk, row.kind, row.subject)

    async def settle(self, row: Job, end: End) -> None:
        """Write down what became of a job that does not run."""
        await _quietly(job_rows.finish, row.pk, end.state, end.message, end.kept)
        if end.state is JobState.PAUSED:
            self.show_waiting(row, end.state, end.message)
        else:
            self.hide(row.pk)
        self._emit(end.state.value, row.pk, row.kind, row.subject, error=end.message)

    async def give_up(self, row: Job, error: str = INTERRUPTED, code: str = "") -> None:
        """A job that waits for its turn, and cannot have it, has failed."""
        await self.settle(row, End(JobState.FAILED, error, code))

    async def note(
        self, job_id: int, *, params: dict[str, Any] | None = None, result: dict[str, Any] | None = None
    ) -> None:
        """Add to what is known of a job."""
        await _quietly(job_rows.note, job_id, params=params, result=result)

    async def keep_files(self, job_id: int, files: list[list[Any]]) -> None:
        """Keep ``[name, size, done]`` of a job's files."""
        await _quietly(job_rows.keep_files, job_id, files)

    async def began(self, job_id: int, done: int, total: int) -> None:
        """A job that can go on does something now, with ``done`` of ``total`` done before."""
        await _quietly(job_rows.began, job_id, done, total)

    async def stop(self) -> None:
        """End what runs; return when each child and its row are done. What can go on, waits for the next start."""
        self._stopping.set()
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *(over.wait() for over in self._over.values()), return_exceptions=True)

    def cancel(self, job_id: int, end: End = CANCELLED) -> bool:
        """End a running job; its ``run`` raises ``JobFailed``. False when no such job runs here."""
        task = self._running.get(job_id)
        if task is None or not task.cancel():
            return False
        self._ends.setdefault(job_id, end)
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
        """See ``job_runner.Runner.run``. The row ends as done, failed, cancelled or paused, or waits, in any case.

        ``on_start`` hears the job's number before its program starts, ``on_part`` each part of the result;
        ``settle`` is awaited with the result, or None, before anybody hears that the job has ended. ``resumes`` is the
        number of one of ``waiting``.
        """
        if self._stopping.is_set():
            raise _refusal(kind, subject, _INTERRUPTED)
        job_id, first = await self._opened(kind, subject, params, resumes)
        tell = self._begin(job_id, kind, subject, on_progress, first)
        work = self._work(job_id, program, params, tell, on_part, settle)
        task: asyncio.Task[dict[str, Any]] = asyncio.create_task(work, name=f"job {job_id} {kind}")
        self._running[job_id] = task
        on_start(job_id)
        if self._stopping.is_set():
            task.cancel()
        end = _DEFECT
        try:
            # Two ways to be cancelled: the caller is (that goes on up), or the job is by ``cancel`` (a refusal).
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError:
                end = self._cut_off(job_id, kind)
                task.cancel()
                await asyncio.wait({task})
                raise
            end = self._end_of(job_id, kind, task)
            if task.cancelled():
                raise _refusal(kind, subject, end)
            if isinstance(failure := task.exception(), OSError):
                raise JobFailed(end.message) from failure
            return task.result()
        finally:
            await self._close(job_id, kind, subject, end)

    def _end_of(self, job_id: int, kind: str, task: asyncio.Task[dict[str, Any]]) -> End:
        if task.cancelled():
            return self._cut_off(job_id, kind)
        match task.exception():
            case None:
                return End(JobState.DONE, "", "", result=task.result())
            case JobFailed() as failure:
                waits = kind in RESUMABLE and failure.code in WAITS
                code = "" if failure.code == JobFailed.code else failure.code or ""
                return End(JobState.PAUSED if waits else JobState.FAILED, failure.message, code, failure.details)
            case OSError() as failure:
                return End(JobState.FAILED, f"the program cannot be started: {failure.strerror or failure}", "")
            case _:
                return _DEFECT

    async def _close(self, job_id: int, kind: str, subject: str, end: End) -> None:
        """Write down how a job has ended, and tell everybody, whatever happens meanwhile."""
        del self._running[job_id]
        try:
            await asyncio.shield(_quietly(job_rows.finish, job_id, end.state, end.message, end.kept))
        finally:  # who waits for it must not wait for ever
            self._show_end(job_id, kind, subject, end)
            self._emit(_EVENTS.get(end.state, end.state.value), job_id, kind, subject, error=end.message)
            self._ends.pop(job_id, None)
            self._latest.pop(job_id, None)
            del self._rates[job_id]
            self._over.pop(job_id).set()

    async def _opened(
        self, kind: str, subject: str, params: dict[str, Any], resumes: int | None
    ) -> tuple[int, Progress]:
        """The job's number, and what of it is done already."""
        if resumes is None:
            job_id = await sync_to_async(job_rows.create)(kind, subject, params, JobState.RUNNING)
            self._emit("started", job_id, kind, subject)
            return job_id, Progress("starting")
        before = await sync_to_async(job_rows.reopen)(resumes, params)
        self._emit("started" if before.started_at is None else "resumed", resumes, kind, subject)
        return resumes, Progress("starting", before.done, before.total, before.unit)

    def _cut_off(self, job_id: int, kind: str) -> End:
        """What becomes of a job that was ended, by its owner or with the server."""
        wanted = self._ends.get(job_id)
        if wanted is None and self._stopping.is_set() and kind in RESUMABLE:
            return _INTERRUPTED
        return wanted or CANCELLED

    def _begin(self, job_id: int, kind: str, subject: str, on_progress: OnProgress, first: Progress) -> OnProgress:
        """Show the job, and return what is to hear of its progress."""
        rate = self._rates[job_id] = Rate()
        self._over[job_id] = asyncio.Event()
        self._show(job_id, kind, subject, first)

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
                    await _quietly(job_rows.save_progress, job_id, saved)

        saver = asyncio.create_task(save_forever(), name=f"job {job_id} progress")
        try:
            result = await run_program(program, params, keep, on_part)
            return result
        finally:
            saver.cancel()
            await asyncio.wait({saver})
            if settle is not None:
                await asyncio.shield(settle(result))
            await asyncio.shield(_quietly(job_rows.save_progress, job_id, latest))

    def _emit(self, what: str, job_id: int, kind: str, subject: str, **more: Any) -> None:
        if self._board is not None:
            self._board.emit(f"job.{what}", job=job_id, job_kind=kind, subject=subject, **more)

    def _show(self, job_id: int, kind: str, subject: str, progress: Progress) -> None:
        if self._board is not None:
            shown = {"id": job_id, "kind": kind, "state": JobState.RUNNING.value, "title": subject}
            shown |= {"done": progress.done, "total": progress.total, "unit": progress.unit}
            shown["message"] = describe(progress)
            rate = self._rates[job_id]
            if progress.unit == "bytes" and rate.bytes_per_second and not progress.note:
                shown |= {"bytes_per_second": round(rate.bytes_per_second), "seconds_left": rate.seconds_left}
            if progress.file:
                shown |= {"file": progress.file, "file_done": progress.file_done}
            self._board.publish("jobs", shown, key=str(job_id))

    def show_waiting(self, row: Job, state: JobState, message: str, place: int | None = None) -> None:
        """Show a job that does not run and has not ended."""
        if self._board is not None:
            shown = {"id": row.pk, "kind": row.kind, "state": state.value, "title": row.subject}
            shown |= {"done": row.done, "total": row.total, "unit": row.unit, "message": message}
            self._board.publish("jobs", shown | ({} if place is None else {"place": place}), key=str(row.pk))

    def _show_end(self, job_id: int, kind: str, subject: str, end: End) -> None:
        if end.state is not JobState.PAUSED:
            return self.hide(job_id)
        at = self._latest.get(job_id, Progress(""))
        row = Job(pk=job_id, kind=kind, subject=subject, done=at.done, total=at.total)
        return self.show_waiting(row, end.state, end.message)

    def hide(self, job_id: int) -> None:
        """Show a job no more."""
        if self._board is not None:
            self._board.publish("jobs", None, key=str(job_id))


def _refusal(kind: str, subject: str, end: End) -> JobFailed:
    """Of a job that was ended, for who waits for it."""
    if end is _INTERRUPTED:
        message = "the server is stopping; the job goes on when it starts again"
    elif end.code in (CANCELLED.code, PAUSED.code):
        message = f"The job {kind} {subject} was {end.state.value}"
    else:
        message = end.message
    return JobFailed(message, code=end.code, details=end.details)


async def _quietly(write: Any, *args: Any, **more: Any) -> None:
    """A row that cannot be written must not end the work it describes."""
    try:
        await sync_to_async(write)(*args, **more)
    except DatabaseError as error:
        log.warning("a job's row cannot be written: %s", error)
