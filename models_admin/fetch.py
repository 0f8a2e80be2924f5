"""``HubFetcher``: fetches models from the Hub as jobs, and tells of jobs of every kind. Implements ``Fetcher``."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from pathlib import Path
from typing import Any

from asgiref.sync import sync_to_async

from inference.errors import Conflict, InternalError, LmxError, ModelUnavailable, TooManyRequests
from inference.fetching import JobStatus
from models_admin.busy import Busy
from models_admin.fetch_line import Fetch, Line
from models_admin.fetch_names import Wanted, parse_wanted
from models_admin.fetch_parts import Arrivals, Chooser, Load, Models
from models_admin.fetch_room import Room, no_room
from models_admin.fetch_rows import checked, paused_fetch, recounted, row_of
from models_admin.fetch_told import refusal, told_now, wanted_of
from models_admin.fetch_volume import check_volume, ended_by
from models_admin.hub_variants import names_quantization
from models_admin.job_protocol import Progress
from models_admin.job_runner import JobFailed
from models_admin.job_words import in_line
from models_admin.jobs import CANCELLED, PAUSED, End, Jobs
from models_admin.models import Job, JobState
from models_admin.quota import ModelsQuota

log = logging.getLogger(__name__)

PROGRAM = "models_admin.fetch_worker"
KEEP_FREE_BYTES = 1 << 30
"""What must stay free on the disk of the models."""

AT_ONCE = 2
MOST_WAITING = 100
PATIENCE = (1.0, 60.0, 300.0)
"""Seconds: the first wait before trying again, the longest, and how long nothing may come before it is given up."""


def patience(give_up_s: float) -> tuple[float, float, float]:
    """``PATIENCE`` with another end."""
    return (*PATIENCE[:2], give_up_s)


_LOCK_PATIENCE_S = 10.0
"""How long one that goes on waits for the program of the server before to be gone."""

_GO_ON_BY_THEMSELVES = ("hub_unreachable", "insufficient_storage", "volume_not_mounted")
_OPEN = ("queued", "running", "paused")
_ENDED = (JobState.PAUSED, JobState.FAILED, JobState.CANCELLED)


class HubFetcher:
    """``models`` gets ``org/name/<commit>/``; ``catalog`` is refreshed after each success.

    ``at_once`` are fetched at a time, the others wait in line. ``load`` loads a model by its id. ``patience`` is
    described at ``PATIENCE``. ``chooser`` may be set once there is one: see ``hub_finder.HubFinder.choose``.
    """

    def __init__(
        self,
        jobs: Jobs,
        catalog: Models,
        models: Path,
        *,
        keep_free: int = KEEP_FREE_BYTES,
        busy: Busy | None = None,
        at_once: int = AT_ONCE,
        patience: tuple[float, float, float] = PATIENCE,
        load: Load | None = None,
        quota: ModelsQuota | None = None,
    ) -> None:
        self._quota = quota
        self._jobs, self._catalog, self._models, self._keep_free = jobs, catalog, models, keep_free
        self._busy, self._patience, self._load = busy or Busy(), patience, load
        self._line = Line(at_once)
        self._opening = asyncio.Lock()
        """Held from the look at a row of what does not run until it is written, so that no two decide on one row."""
        self.chooser: Chooser | None = None
        self.arrivals: Arrivals | None = None

    async def start(
        self,
        repo: str,
        revision: str | None = None,
        quantization: str | None = None,
        *,
        auto_load: bool = False,
        exact: bool = False,
    ) -> JobStatus:
        """See ``inference.fetching.Fetcher``; ``exact``: no other repository stands in for this one."""
        wanted = parse_wanted(repo, revision) if exact else await self._chosen(repo, revision, quantization)
        fetch = self._line.get(wanted)
        if fetch is None:
            self._check_room(wanted)
            fetch = self._begin(Fetch(wanted, auto_load=auto_load))
        elif auto_load and not fetch.auto_load:
            fetch.auto_load = True
            if fetch.job is not None:
                await self._jobs.note(fetch.job, params={"auto_load": True})
        await fetch.known.wait()
        if fetch.failure is not None:
            raise fetch.failure
        if fetch.job is None:
            raise ModelUnavailable("the server is stopping")
        return await self.status(fetch.job)

    async def _chosen(self, repo: str, revision: str | None, quantization: str | None) -> Wanted:
        """What is meant: a name without a quantization may stand for a repository in each of several."""
        plain = parse_wanted(repo, revision)
        is_whole = names_quantization(plain.repo) or (quantization is None and plain.revision != "main")
        if self.chooser is None or is_whole:
            return parse_wanted(repo, revision, quantization)
        return dataclasses.replace(plain, repo=await self.chooser(plain.repo, quantization))

    async def go_on(self) -> None:
        """Go on, under their old numbers, with what a server that has ended has left. Once, after ``Jobs.start``."""
        for row in await self._jobs.waiting("fetch"):
            wanted = wanted_of(row)
            if wanted is None or self._line.get(wanted) is not None:
                await self._jobs.give_up(row)
            else:
                self._begin(Fetch(wanted, await recounted(self._models, row)))
        for row in await self._jobs.paused():
            await recounted(self._models, row)
            wanted = wanted_of(row) if row.result.get("code") in _GO_ON_BY_THEMSELVES else None
            if wanted is not None and self._line.get(wanted) is None:
                self._begin(Fetch(wanted, row))
            else:
                self._jobs.show_waiting(row, JobState.PAUSED, row.error)

    async def wait(self, job: int) -> JobStatus:
        """See ``inference.fetching.Fetcher``."""
        fetch = self._line.of(job)
        if fetch is not None and fetch.task is not None:
            await asyncio.wait({fetch.task})
        return await self.status(job)

    async def status(self, job: int) -> JobStatus:
        """See ``inference.fetching.Fetcher``."""
        return self._told(await row_of(job))

    async def jobs(self, limit: int = 100) -> list[JobStatus]:
        """See ``inference.fetching.Fetcher``."""
        told = [self._told(row) for row in await sync_to_async(lambda: list(Job.objects.all()[:limit]))()]
        return [job if job.state in _OPEN else dataclasses.replace(job, files=()) for job in told]

    async def cancel(self, job: int) -> JobStatus:
        """See ``inference.fetching.Fetcher``."""
        if self._line.of(job) is not None:
            return await self._end(job, CANCELLED)
        if self._jobs.cancel(job):
            await self._jobs.ended(job)
            return await self.status(job)
        async with self._opening:
            row = await row_of(job)
            if not self._goes_on(row):
                if row.state != JobState.PAUSED:
                    raise Conflict(f"the job {job} does not run: it is {self._told(row).state}", code="job_not_running")
                await self._jobs.settle(row, CANCELLED)
                return await self.status(job)
        return await self._end(job, CANCELLED)

    async def pause(self, job: int) -> JobStatus:
        """See ``inference.fetching.Fetcher``."""
        if self._line.of(job) is not None:
            return await self._end(job, PAUSED)
        async with self._opening:
            row = await row_of(job)
            goes_on, told = self._goes_on(row), self._told(row)
        if goes_on:
            return await self._end(job, PAUSED)
        if told.state == "paused":
            return told
        if told.kind != "fetch":
            raise Conflict(f"a job of the kind {told.kind} cannot be paused, only cancelled", code="job_not_pausable")
        raise Conflict(f"the job {job} does not run: it is {told.state}", code="job_not_running")

    async def resume(self, job: int) -> JobStatus:
        """See ``inference.fetching.Fetcher``."""
        if self._line.of(job) is not None:
            return await self.status(job)
        async with self._opening:
            row = await row_of(job)
            if not self._goes_on(row):
                self._begin(Fetch(self._resumable(row), row))
        fetch = self._line.of(job)
        if fetch is not None:
            await fetch.known.wait()
        return await self.status(job)

    async def repos(self) -> frozenset[str]:
        """Of what is being fetched, waits for its turn or is paused, in lower case: their parts are of use."""
        found = {fetch.wanted.repo for fetch in self._line} | {row.subject for row in await self._jobs.paused()}
        return frozenset(repo.lower() for repo in found)

    async def stop(self) -> None:
        """Return when nothing runs any more, after ``Jobs.stop``."""
        tasks = [fetch.task for fetch in self._line if fetch.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ------------------------------------------------------------------------------------------------------ inside

    def _goes_on(self, row: Job) -> bool:
        """Whether a job that was looked up has begun to go on meanwhile. Hold ``_opening``: it is no other's then."""
        wanted = wanted_of(row) if row.kind == "fetch" else None
        fetch = None if wanted is None else self._line.get(wanted)
        if fetch is not None and fetch.row is None and row.state == JobState.PAUSED:
            fetch.row = row  # asked for by its name: this is the one that it would find
        return fetch is not None and fetch.job == row.pk

    def _resumable(self, row: Job) -> Wanted:
        wanted = wanted_of(row) if row.kind == "fetch" and row.state in _ENDED else None
        if wanted is None:
            state = self._told(row).state
            raise Conflict(f"the job {row.pk} cannot be resumed: it is {state}", code="job_not_resumable")
        if (other := self._line.get(wanted)) is not None:
            raise Conflict(f"{wanted.repo} is being fetched already, by the job {other.job}", code="model_busy")
        self._check_room(wanted)
        return wanted

    def _check_room(self, wanted: Wanted) -> None:
        if len(self._line.waiting()) >= MOST_WAITING:
            raise TooManyRequests(f"{MOST_WAITING} models wait to be fetched already", retry_after=60)
        self._busy.check(wanted.repo, "fetch")

    def _begin(self, fetch: Fetch) -> Fetch:
        self._line.add(fetch)
        fetch.task = asyncio.create_task(self._live(fetch), name=f"fetch {fetch.wanted.repo}")
        return fetch

    async def _end(self, job: int, end: End) -> JobStatus:
        """Cancel or pause one that has not ended, whatever it is at; return when it is gone."""
        fetch = self._line.of(job)
        if fetch is not None and fetch.task is not None and fetch.stage != "loading":
            fetch.end = fetch.end or end
            if fetch.stage == "line":  # a task that is cancelled before its first step would not even clean up
                fetch.turn.set()
            else:
                self._jobs.cancel(job, end)
            await asyncio.wait({fetch.task})
        told = await self.status(job)
        if told.state != end.state.value:
            raise Conflict(f"the job {job} does not run: it is {told.state}", code="job_not_running")
        return told

    async def _live(self, fetch: Fetch) -> None:
        try:
            async with self._opening:
                row = fetch.row = await self._opened(fetch)
            if fetch.stage == "line":
                self._show_line()
                fetch.known.set()
            await fetch.turn.wait()
            if fetch.end is not None:
                await self._jobs.settle(row, fetch.end)
                return
            await self._work(fetch, row)
            self._line.fetched(fetch)
            self._show_line()
            fetch.known.set()
            if fetch.result is not None and fetch.auto_load:
                await self._load_it(row.pk, fetch.result)
        except asyncio.CancelledError:
            if fetch.end is None or fetch.row is None:  # the server stops
                raise
            await self._jobs.settle(fetch.row, fetch.end)
        except Exception:
            log.exception("fetching %s", fetch.wanted.repo)
            fetch.failure = InternalError("the fetch ended by a defect: see the log")
        finally:
            self._line.remove(fetch)
            self._show_line()
            fetch.known.set()

    async def _opened(self, fetch: Fetch) -> Job:
        """The row, queued: a new one, or that of the same fetch which was cut off."""
        wanted = fetch.wanted
        row = fetch.row or await paused_fetch(wanted)
        if row is None:
            params = {"repo": wanted.repo, "revision": wanted.revision, "auto_load": fetch.auto_load}
            return await row_of(await self._jobs.enqueue("fetch", wanted.repo, params))
        if row.state != JobState.QUEUED:
            gone = row.result.get("code") == "revision_gone"
            await self._jobs.note(row.pk, params={"auto_load": fetch.auto_load} | ({"commit": None} if gone else {}))
            await self._jobs.requeue(row)
            row = await row_of(row.pk)
        await recounted(self._models, row)
        fetch.latest, fetch.files = Progress("resolve", row.done, row.total), row.files
        return row

    async def _work(self, fetch: Fetch, row: Job) -> None:
        params = {name: row.params.get(name) for name in ("repo", "revision", "commit")}
        params |= {"auto_load": fetch.auto_load, "models": str(self._models), "keep_free": self._keep_free}
        params |= {"patience": self._patience, "lock_patience_s": _LOCK_PATIENCE_S if row.started_at else 0.0}

        def on_start(job: int) -> None:
            if fetch.end is not None:
                self._jobs.cancel(job, fetch.end)

        try:
            with self._busy.work(fetch.wanted.repo, "fetch"):
                await check_volume(self._catalog.rows(), self._models)
                if self.arrivals is not None:
                    await self.arrivals.before(fetch.wanted.repo)
                if self._quota is not None:
                    await self._quota.look()
                fetch.result = await self._jobs.run(
                    "fetch",
                    PROGRAM,
                    params | {"checked": checked(self._catalog.rows_of(fetch.wanted.repo))},
                    subject=fetch.wanted.repo,
                    on_progress=fetch.on_progress,
                    on_start=on_start,
                    resumes=row.pk,
                    on_part=lambda about: self._learn(fetch, row.pk, about),
                    settle=lambda result: self._settle(fetch, row.pk, result),
                )
        except JobFailed as failure:
            fetch.failure = refusal(failure, row.pk)
        except LmxError as error:
            fetch.failure = error
            await self._jobs.settle(row, ended_by(error))

    def _learn(self, fetch: Fetch, job: int, about: dict[str, Any]) -> None:
        """What the program says before it brings the first byte."""
        if "commit" in about:
            fetch.commit = about["commit"]
            fetch.write(self._jobs.note(job, params={"commit": about["commit"]}))
        if "files" in about:
            fetch.files, done, total = about["files"], about["done"], about["done"] + about["missing"]
            fetch.latest = Progress("download", done, total)
            fetch.write(self._jobs.keep_files(job, [list(file) for file in fetch.files]))
            fetch.write(self._jobs.began(job, done, total))
            self._reserve(fetch, job, about["missing"], about["free"])

    def _reserve(self, fetch: Fetch, job: int, missing: int, free: int) -> None:
        """Pause it where the limit, or what is promised to others under way, leaves no room for it."""
        room = Room(missing, free, self._keep_free, self._line.promised(fetch))
        end = no_room(fetch, room, self._line.held(fetch), self._quota)
        if end is None:
            fetch.is_promised = True
        else:
            fetch.end = end
            self._jobs.cancel(job, end)

    async def _settle(self, fetch: Fetch, job: int, result: dict[str, Any] | None) -> None:
        """Whoever hears that a fetch is done finds its model in the catalog."""
        await asyncio.gather(*fetch.writing)
        await self._jobs.keep_files(job, fetch.files)
        if self._quota is not None:
            await self._quota.look()
        if result is not None:
            await self._catalog.refresh()
            if self.arrivals is not None:
                fetched = not result["already_downloaded"]
                await self.arrivals.arrived(Path(result["path"]), fetch.wanted.revision, fetched=fetched)

    async def _load_it(self, job: int, result: dict[str, Any]) -> None:
        """Load what was fetched; the fetch stays done however that ends."""
        found = next((ref for ref in self._catalog.all() if str(ref.path) == result["path"]), None)
        try:
            if found is None or self._load is None:
                raise ModelUnavailable("the model is not in the catalog")
            await self._load(found.id)
            more: dict[str, Any] = {"auto_loaded": True}
        except LmxError as error:
            more = {"auto_loaded": False, "load_error": error.message}
        await self._jobs.note(job, result=more)

    def _show_line(self) -> None:
        for place, fetch in enumerate(self._line.waiting(), 1):
            if fetch.row is not None:
                self._jobs.show_waiting(fetch.row, JobState.QUEUED, in_line(place), place)

    def _told(self, row: Job) -> JobStatus:
        fetch = self._line.of(row.pk)
        place = None if fetch is None else self._line.place(fetch)
        return told_now(row, fetch, place, self._jobs.rate(row.pk), self._jobs.latest(row.pk))
