"""``Verifier``: reads the models on disk as jobs, and keeps what is found of each file."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from inference.catalog import ModelRef
from inference.errors import Conflict, InternalError, LmxError, ModelUnavailable, TooManyRequests
from inference.fetching import JobStatus
from models_admin.busy import Busy
from models_admin.catalog import DiskCatalog
from models_admin.file_checks import Checked
from models_admin.job_runner import JobFailed
from models_admin.jobs import Jobs
from models_admin.row import Row

log = logging.getLogger(__name__)

PROGRAM = "models_admin.verify_worker"
MAX_AT_ONCE = 4
GOES_ON_S = 7 * 24 * 3600.0
"""A verification that was cut off longer ago begins anew."""


class _Run:
    """One verification under way. ``job`` is known, or ``failure``, once ``begun`` is set.

    ``gate`` is where a quiet one waits (``models_admin.quiet``); ``quiet`` until somebody waits for it.
    """

    def __init__(self, ref: ModelRef, row: Row, gate: Path | None) -> None:
        self.ref, self.row, self.gate = ref, row, gate
        self.quiet = gate is not None
        self.job: int | None = None
        self.begun = asyncio.Event()
        self.failure: LmxError | None = None
        self.task: asyncio.Task[None] | None = None
        self.parts: list[Checked] = []
        self.came = asyncio.Event()

    def on_start(self, job: int) -> None:
        self.job = job
        self.begun.set()

    def on_part(self, about: dict[str, Any]) -> None:
        self.parts.append(Checked(**about, at=time.time()))
        self.came.set()


class Verifier:
    """``status`` tells of a job by its number."""

    def __init__(
        self, jobs: Jobs, catalog: DiskCatalog, busy: Busy, status: Callable[[int], Awaitable[JobStatus]]
    ) -> None:
        self._jobs, self._catalog, self._busy, self._status = jobs, catalog, busy, status
        self._running: dict[Path, _Run] = {}

    async def verify(self, model_id: str, gate: Path | None = None) -> JobStatus:
        """See ``inference.models_on_disk.Keeper``. With a ``gate`` quietly: it keeps nobody from the model's files."""
        ref = self._catalog.resolve(model_id)
        run = self._running.get(ref.path)
        if run is not None and gate is None:
            run.quiet = False
        if run is None:
            row = self._catalog.row(ref.path)
            if row is None or row.vanished_at is not None:
                raise Conflict(f"{ref.id} cannot be verified: {ref.problem}", code="model_not_on_disk")
            self._busy.check(row.found.repo, "verify")
            if len(self._running) >= MAX_AT_ONCE:
                raise TooManyRequests(f"{MAX_AT_ONCE} models are being verified already; wait for one", retry_after=60)
            run = self._running[ref.path] = _Run(ref, row, gate)
            run.task = asyncio.create_task(self._work(run), name=f"verify {ref.id}")
        await run.begun.wait()
        if run.job is None:
            raise run.failure or ModelUnavailable("the server is stopping")
        return await self._status(run.job)

    def is_quiet(self, model_id: str) -> bool:
        """Whether nobody waits for the verification of that model, by its id."""
        return all(run.quiet for run in self._running.values() if run.ref.id == model_id)

    async def wait(self, job: int) -> JobStatus:
        """See ``inference.models_on_disk.Keeper``."""
        for run in list(self._running.values()):
            if run.job == job and run.task is not None:
                await asyncio.wait({run.task})
        return await self._status(job)

    async def stop(self) -> None:
        """Return when nothing runs any more, after ``Jobs.stop``."""
        tasks = [run.task for run in self._running.values() if run.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, run: _Run) -> None:
        path = run.ref.path
        try:
            # It only reads, and what it has read of a file that was replaced meanwhile holds for that file no more.
            with self._busy.work(run.row.found.repo, "verify") if run.gate is None else contextlib.nullcontext():
                began = await self._begin(path, run.row)
                await self._run(run, began)
        except JobFailed as failure:
            run.failure = failure
            if failure.code in ("unreadable", "file_changed"):  # it came to its end: the next run reads everything
                await self._catalog.record(path, lambda row: replace(row, verify_began=None))
        except LmxError as error:
            run.failure = error
        except Exception:
            log.exception("verifying %s", run.ref.id)
            run.failure = InternalError("the verification ended by a defect: see the log")
        finally:
            del self._running[path]
            run.begun.set()

    async def _begin(self, path: Path, row: Row) -> float:
        """When the run began that this one goes on with; now for a new one."""
        now = time.time()
        if row.verify_began is not None and 0 <= now - row.verify_began < GOES_ON_S:
            return row.verify_began
        await self._catalog.record(path, lambda row: replace(row, verify_began=now))
        return now

    async def _run(self, run: _Run, began: float) -> None:
        """The job, with every part of its result kept as it comes: what was read counts, however it ends."""
        keeper = asyncio.create_task(self._keep_forever(run), name=f"results of verifying {run.ref.id}")
        try:
            await self._jobs.run(
                "verify",
                PROGRAM,
                self._params(run.ref.path, run.row, began) | {"gate": str(run.gate) if run.gate else None},
                subject=run.ref.id,
                on_progress=lambda progress: None,
                on_start=run.on_start,
                on_part=run.on_part,
                settle=lambda result: self._settle(run, whole=result is not None),
            )
        finally:
            keeper.cancel()
            await asyncio.wait({keeper})

    async def _settle(self, run: _Run, *, whole: bool) -> None:
        await self._keep(run)
        if whole:
            await self._catalog.record(run.ref.path, _ended)

    async def _keep_forever(self, run: _Run) -> None:
        while True:
            await run.came.wait()
            await asyncio.shield(self._keep(run))

    async def _keep(self, run: _Run) -> None:
        run.came.clear()
        parts, run.parts = run.parts, []
        if parts:
            more = {check.name: check for check in parts}
            await self._catalog.record(run.ref.path, lambda row: replace(row, checks={**row.checks, **more}))

    def _params(self, path: Path, row: Row, began: float) -> dict[str, Any]:
        known = {
            check.name: {
                "sha256": check.expected,
                "basis": check.basis,
                "size": check.size,
                "mtime_ns": check.mtime_ns,
            }
            for check in row.checks.values()
        }
        read = {check.name: [check.size, check.mtime_ns] for check in row.checks.values() if check.at >= began}
        about = {"path": str(path), "root": str(row.found.root), "source": row.found.source}
        return about | {"known": known, "read": read}


def _ended(row: Row) -> Row:
    """Everything was read: now is when all was found sound, unless something was not."""
    return replace(row, verified_at=row.verified_at if row.bad else time.time(), verify_began=None)
