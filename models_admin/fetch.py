"""``HubFetcher``: fetches models from the Hub as jobs, and tells of jobs of every kind. Implements ``Fetcher``."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, cast

import msgspec
from asgiref.sync import sync_to_async

from inference.errors import (
    Conflict,
    InsufficientStorage,
    InternalError,
    InvalidRequest,
    LmxError,
    ModelNotFound,
    ModelUnavailable,
    NotFound,
    TooManyRequests,
)
from inference.fetching import JobStatus, JobWord
from models_admin.busy import Busy
from models_admin.fetch_names import Wanted, parse_wanted
from models_admin.job_protocol import Progress
from models_admin.job_runner import JobFailed
from models_admin.job_words import describe
from models_admin.jobs import Jobs
from models_admin.models import Job
from models_admin.row import Row

log = logging.getLogger(__name__)

PROGRAM = "models_admin.fetch_worker"
KEEP_FREE_BYTES = 1 << 30
"""What must stay free on the disk of the models."""

MAX_AT_ONCE = 4
_LOCK_PATIENCE_S = 10.0
"""How long one that goes on waits for the program of the server before to be gone."""

_REFUSALS: dict[str, Callable[..., LmxError]] = {
    "model_not_found": ModelNotFound,
    "revision_not_found": NotFound,
    "unsupported_model": InvalidRequest,
    "insufficient_storage": InsufficientStorage,
    "hub_unreachable": ModelUnavailable,
    "hub_error": ModelUnavailable,
    "busy": Conflict,
    "job_cancelled": Conflict,
    "interrupted": ModelUnavailable,
}


class ModelGated(LmxError):
    """The Hub gives the model only to those who accepted its terms."""

    status, code = 403, "model_gated"


class _Catalog(Protocol):
    async def refresh(self) -> None: ...

    def rows_of(self, repo: str) -> list[Row]: ...


class _Fetch:
    """One fetch under way. ``job`` is None until it has a number; ``known`` is set with its size, or at its end.

    ``resumes`` is the row of one that goes on.
    """

    def __init__(self, wanted: Wanted, resumes: Job | None = None) -> None:
        self.wanted, self.resumes = wanted, resumes
        self.job: int | None = None
        self.latest = Progress("resolve")
        if resumes is not None:
            self.latest = Progress("resolve", resumes.done, resumes.total)
        self.known = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self.failure: LmxError | None = None

    def on_start(self, job: int) -> None:
        self.job = job

    def on_progress(self, progress: Progress) -> None:
        if progress.total:
            self.latest = progress
            self.known.set()
        else:  # what was known before stays
            self.latest = msgspec.structs.replace(self.latest, phase=progress.phase)


class HubFetcher:
    """``models`` gets ``org/name/<commit>/``; ``catalog`` is refreshed after each success."""

    def __init__(
        self,
        jobs: Jobs,
        catalog: _Catalog,
        models: Path,
        *,
        keep_free: int = KEEP_FREE_BYTES,
        busy: Busy | None = None,
    ) -> None:
        self._jobs, self._catalog, self._models, self._keep_free = jobs, catalog, models, keep_free
        self._busy = busy or Busy()
        self._running: dict[tuple[str, str], _Fetch] = {}

    async def start(self, repo: str, revision: str | None = None, quantization: str | None = None) -> JobStatus:
        """See ``inference.fetching.Fetcher``."""
        wanted = parse_wanted(repo, revision, quantization)
        fetch = self._running.get(wanted.key)
        if fetch is None:
            if len(self._running) >= MAX_AT_ONCE:
                raise TooManyRequests(f"{MAX_AT_ONCE} models are being fetched already; wait for one", retry_after=60)
            self._busy.check(wanted.repo, "fetch")
            fetch = self._begin(_Fetch(wanted))
        await fetch.known.wait()
        if fetch.failure is not None:
            raise fetch.failure
        if fetch.job is None:
            raise ModelUnavailable("the server is stopping")
        return await self.status(fetch.job)

    async def resume(self) -> None:
        """Go on, under their old numbers, with the fetches of a server that has ended. Once, after ``Jobs.start``."""
        for row in await self._jobs.waiting("fetch"):
            wanted = _wanted_of(row)
            if wanted is None or wanted.key in self._running or len(self._running) >= MAX_AT_ONCE:
                await self._jobs.give_up(row.pk)
            else:
                self._begin(_Fetch(wanted, row)).on_start(row.pk)

    def _begin(self, fetch: _Fetch) -> _Fetch:
        self._running[fetch.wanted.key] = fetch
        fetch.task = asyncio.create_task(self._work(fetch), name=f"fetch {fetch.wanted.repo}")
        return fetch

    async def wait(self, job: int) -> JobStatus:
        """See ``inference.fetching.Fetcher``."""
        fetch = self._of(job)
        if fetch is not None and fetch.task is not None:
            await asyncio.wait({fetch.task})
        return await self.status(job)

    async def status(self, job: int) -> JobStatus:
        """See ``inference.fetching.Fetcher``."""
        row = await Job.objects.filter(pk=job).afirst() if 0 < job < 2**63 else None
        if row is None:
            raise NotFound(f"there is no job {job}", code="job_not_found", param="job")
        return self._told(row)

    async def jobs(self, limit: int = 100) -> list[JobStatus]:
        """See ``inference.fetching.Fetcher``."""
        return [self._told(row) for row in await sync_to_async(lambda: list(Job.objects.all()[:limit]))()]

    async def cancel(self, job: int) -> JobStatus:
        """See ``inference.fetching.Fetcher``."""
        if not self._jobs.cancel(job):
            told = await self.status(job)
            raise Conflict(f"the job {job} does not run: it is {told.state}", code="job_not_running")
        await self._jobs.ended(job)
        return await self.wait(job)

    async def stop(self) -> None:
        """Return when nothing runs any more, after ``Jobs.stop``."""
        tasks = [fetch.task for fetch in self._running.values() if fetch.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, fetch: _Fetch) -> None:
        wanted, row = fetch.wanted, fetch.resumes
        params: dict[str, Any] = {"models": str(self._models), "repo": wanted.repo, "revision": wanted.revision}
        params |= {"keep_free": self._keep_free, "lock_patience_s": 0.0 if row is None else _LOCK_PATIENCE_S}
        try:
            with self._busy.work(wanted.repo, "fetch"):
                await self._jobs.run(
                    "fetch",
                    PROGRAM,
                    params | {"checked": self._checked(wanted.repo)},
                    subject=wanted.repo,
                    on_progress=fetch.on_progress,
                    on_start=fetch.on_start,
                    resumes=None if row is None else row.pk,
                    settle=self._list_it,
                )
        except JobFailed as failure:
            fetch.failure = _refusal(failure)
        except LmxError as error:
            fetch.failure = error
            if row is not None:
                await self._jobs.give_up(row.pk)
        except Exception:
            log.exception("fetching %s", wanted.repo)
            fetch.failure = InternalError("the fetch ended by a defect: see the log")
        finally:
            del self._running[wanted.key]
            fetch.known.set()

    async def _list_it(self, result: dict[str, Any] | None) -> None:
        """Whoever hears that a fetch is done finds its model in the catalog."""
        if result is not None:
            await self._catalog.refresh()

    def _checked(self, repo: str) -> dict[str, dict[str, dict[str, Any]]]:
        """What reading the files of a model has shown: a fetch repairs what is bad, and need not read what is good."""
        return {
            str(row.found.path): {
                check.name: {"size": check.size, "mtime_ns": check.mtime_ns, "sound": check.sound}
                for check in row.checks.values()
                if check.basis == "published"
            }
            for row in self._catalog.rows_of(repo)
        }

    def _of(self, job: int) -> _Fetch | None:
        return next((fetch for fetch in self._running.values() if fetch.job == job), None)

    def _told(self, row: Job) -> JobStatus:
        """The row, with what is newer than it where the job runs here."""
        told = _from_row(row)
        if told.state != "running":
            return told
        rate, fetch = self._jobs.rate(row.pk), self._of(row.pk)
        if fetch is not None:
            progress = fetch.latest
        else:
            progress = self._jobs.latest(row.pk) or Progress(row.phase, row.done, row.total, row.unit)
        return dataclasses.replace(
            told,
            phase=progress.phase,
            done=progress.done,
            total=progress.total,
            unit=progress.unit,
            message=describe(progress),
            bytes_per_second=rate.bytes_per_second if progress.unit == "bytes" else 0.0,
            seconds_left=rate.seconds_left,
        )


def _from_row(row: Job) -> JobStatus:
    state: JobWord = cast("JobWord", str(row.state))
    result: dict[str, Any] = dict(row.result)
    if state == "done" and result.get("already_downloaded"):
        state = "already_downloaded"
    done, total = row.done, row.total
    if row.kind == "fetch" and "bytes" in result:
        done = total = result["bytes"]
    return JobStatus(
        job=row.pk,
        kind=row.kind,
        subject=row.subject,
        state=state,
        phase=row.phase,
        done=done,
        total=total,
        unit=row.unit,
        message=row.error,
        code=result.get("code", "job_failed") if state == "failed" else "job_cancelled" if state == "cancelled" else "",
        started_at=_seconds(row.started_at),
        finished_at=_seconds(row.finished_at),
        result=result,
    )


def _wanted_of(row: Job) -> Wanted | None:
    """What a row's parameters ask for; None where they are not of this version."""
    repo, revision = row.params.get("repo"), row.params.get("revision")
    if not isinstance(repo, str) or not isinstance(revision, str):
        return None
    try:
        return parse_wanted(repo, revision)
    except InvalidRequest:
        return None


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()


def _refusal(failure: JobFailed) -> LmxError:
    if failure.code == ModelGated.code:
        return ModelGated(failure.message, param="model_id")
    make = _REFUSALS.get(failure.code)
    if make is None:
        return failure
    param = "revision" if failure.code == "revision_not_found" else None
    if make in (ModelNotFound, InvalidRequest):
        param = "model_id"
    return make(failure.message, code=failure.code, param=param, details=failure.details)
