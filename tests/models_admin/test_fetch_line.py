"""The line of downloads: order, places, pause, resume, cancel, restarts, loading when done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from inference.errors import Conflict, InsufficientMemory, NotFound, TooManyRequests
from inference.fetching import JobStatus
from models_admin import fetch as fetch_module
from models_admin.catalog import DiskCatalog
from models_admin.fetch import HubFetcher
from models_admin.jobs import Jobs
from models_admin.models import Job, JobState
from tests.material.hub import BIG, MIB, REPO, Hub, HubRepo, nano_files

pytestmark = pytest.mark.django_db(transaction=True)
NAMES = [f"acme/model-{letter}" for letter in "abcde"]


class Board:
    """Keeps the cells that are shown now, and what was said."""

    def __init__(self) -> None:
        self.cells: dict[str | None, dict[str, object]] = {}
        self.events: list[str] = []

    def emit(self, kind: str, /, **fields: object) -> None:
        self.events.append(f"{kind} {fields['job']}")

    def publish(self, topic: str, payload: dict[str, object] | None, *, key: str | None = None) -> None:
        self.cells.pop(key, None)
        if payload is not None:
            self.cells[key] = payload


class Site:
    """The parts of a server that fetching needs, one at a time; ``loaded`` are the models that were to be loaded."""

    def __init__(self, models: Path) -> None:
        self.board, self.loaded, self.refusal = Board(), list[str](), False
        self.jobs = Jobs(self.board)
        self.catalog = DiskCatalog([models])
        self.fetcher = HubFetcher(self.jobs, self.catalog, models, keep_free=0, at_once=1, load=self._load)

    async def _load(self, model: str) -> None:
        self.loaded.append(model)
        if self.refusal:
            raise InsufficientMemory(f"{model} needs more memory than there is")

    async def ask(self, name: str) -> int:
        return (await self.fetcher.start(name)).job

    async def states(self) -> dict[int, str]:
        return {job.job: job.state for job in reversed(await self.fetcher.jobs())}

    async def ended(self, job: int) -> JobStatus:
        return await self.fetcher.wait(job)


@asynccontextmanager
async def site_on(models: Path) -> AsyncIterator[Site]:
    """A server; entered again on the same directory, it is one that was restarted."""
    found = Site(models)
    try:
        await found.jobs.start()
        await found.fetcher.go_on()
        yield found
    finally:
        await found.jobs.stop()
        await found.fetcher.stop()
        found.catalog.close()


@pytest.fixture
def models(tmp_path: Path, hub: Hub) -> Path:
    """Where five models are fetched to that stand still after a MiB until ``hub.release()``."""
    for number, name in enumerate(NAMES):
        hub.repos[name] = HubRepo(nano_files(), commit=str(number) * 40)
    hub.hold(BIG, MIB)
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


async def test_one_at_a_time_in_order(models: Path, hub: Hub) -> None:
    async with site_on(models) as site:
        a, b, c, d, e = [await site.ask(name) for name in NAMES]
        assert await site.states() == {a: "running", b: "queued", c: "queued", d: "queued", e: "queued"}
        assert [(await site.fetcher.status(job)).place for job in (a, b, e)] == [None, 1, 4]
        assert "3 before it" in (await site.fetcher.status(e)).message
        assert site.board.cells[str(c)]["place"] == 2
        assert await site.ask(NAMES[2].upper()) == c, "the same model twice is one job"
        assert (await site.fetcher.cancel(b)).state == "cancelled"
        assert (await site.fetcher.pause(c)).state == "paused"
        assert (await site.fetcher.status(e)).place == 2
        assert {key: cell["state"] for key, cell in site.board.cells.items()} == {
            str(a): "running",
            str(c): "paused",
            str(d): "queued",
            str(e): "queued",
        }
        assert (await site.fetcher.resume(c)).place == 3, "behind those that wait"
        hub.release()
        assert [(await site.ended(job)).state for job in (a, c, d, e)] == ["done"] * 4
        started = [word for word in site.board.events if word.startswith("job.started")]
        assert started == [f"job.started {job}" for job in (a, d, e, c)]
        assert site.board.cells == {}


async def test_a_paused_one_frees_its_place_and_goes_on_where_it_was(models: Path, hub: Hub) -> None:
    async with site_on(models) as site:
        a, b = await site.ask(NAMES[0]), await site.ask(NAMES[1])
        paused = await site.fetcher.pause(a)
        assert (paused.state, paused.code, paused.finished_at) == ("paused", "job_paused", None)
        assert await site.fetcher.pause(a) == paused, "pausing twice is no error"
        assert (await site.fetcher.resume(b)).state in ("queued", "running"), "nor is resuming what was not paused"
        hub.release()
        assert (await site.ended(b)).state == "done"
        assert await site.states() == {a: "paused", b: "done"}
        assert await site.ask(NAMES[0]) == a, "asked for again, it goes on under its number"
        done = await site.ended(a)
        assert done.state == "done"
        assert {file.name: file.done for file in done.files} == {file.name: file.size for file in done.files}
        assert sum(file.size for file in done.files) == done.total
        assert [job.files for job in await site.fetcher.jobs()] == [(), ()], "long lists stay short"


async def test_files_are_told_while_they_come(models: Path, hub: Hub) -> None:
    async with site_on(models) as site:
        a = await site.ask(NAMES[0])
        async with asyncio.timeout(30):
            while (await site.fetcher.status(a)).done < MIB:
                await asyncio.sleep(0.01)
        told = await site.fetcher.status(a)
        sizes = {file.name: (file.size, file.done) for file in told.files}
        assert sizes[BIG] == (len(nano_files()[BIG]), MIB)
        assert sum(done for _, done in sizes.values()) == told.done
        assert site.board.cells[str(a)]["file"] == BIG
        await site.fetcher.pause(a)
        assert {file.name: file.done for file in (await site.fetcher.status(a)).files}[BIG] == MIB


async def test_the_line_and_what_is_paused_survive_a_restart(models: Path, hub: Hub) -> None:
    async with site_on(models) as site:
        a, b, c, d = [await site.ask(name) for name in NAMES[:4]]
        await site.fetcher.pause(b)
        await site.fetcher.pause(a)
        await site.fetcher.resume(a)
        await site.fetcher.pause(c)
        await site.fetcher.resume(c)
    async with site_on(models) as site:
        assert await site.states() == {a: "queued", b: "paused", c: "queued", d: "running"}
        assert [(await site.fetcher.status(job)).place for job in (a, c)] == [1, 2]
        assert site.board.cells[str(b)]["state"] == "paused"
        hub.release()
        assert [(await site.ended(job)).state for job in (a, c, d)] == ["done"] * 3
    async with site_on(models) as site:
        assert (await site.states())[b] == "paused", "what its owner paused waits for its owner"
        assert (await site.fetcher.cancel(b)).state == "cancelled"
        assert site.board.cells == {}


async def test_what_has_failed_or_was_cancelled_is_tried_again_under_its_number(models: Path, hub: Hub) -> None:
    kept = hub.repos.pop(NAMES[0])
    async with site_on(models) as site:
        with pytest.raises(NotFound) as refused:
            await site.ask(NAMES[0])
        a = refused.value.details["job"]
        assert await site.states() == {a: "failed"}
        hub.repos[NAMES[0]] = kept
        b = await site.ask(NAMES[1])
        assert (await site.fetcher.resume(a)).state == "queued"
        await site.fetcher.cancel(b)
        hub.release()
        assert (await site.ended(a)).state == "done"
        assert (await site.ended((await site.fetcher.resume(b)).job)).state == "done"
        for job, work in [(a, "resume"), (a, "pause"), (a, "cancel")]:
            with pytest.raises(Conflict, match="done"):
                await getattr(site.fetcher, work)(job)
        for work in ("resume", "pause", "cancel"):
            with pytest.raises(NotFound):
                await getattr(site.fetcher, work)(10**6)


async def test_other_kinds_cannot_be_paused_or_resumed(models: Path, hub: Hub) -> None:
    async with site_on(models) as site:
        row = await Job.objects.acreate(kind="verify", state=JobState.FAILED)
        with pytest.raises(Conflict, match="verify cannot be paused"):
            await site.fetcher.pause(row.pk)
        with pytest.raises(Conflict, match="cannot be resumed"):
            await site.fetcher.resume(row.pk)


async def test_an_old_job_of_a_model_that_is_fetched_now_is_not_resumed(models: Path, hub: Hub) -> None:
    async with site_on(models) as site:
        a = await site.ask(NAMES[0])
        await site.fetcher.cancel(a)
        b = await site.ask(NAMES[0])
        with pytest.raises(Conflict, match=f"by the job {b}"):
            await site.fetcher.resume(a)


async def test_everything_at_once(models: Path, hub: Hub) -> None:
    """Pause, resume and cancel of the same job at the same time: one of them is what happens, and nothing hangs."""
    async with site_on(models) as site:
        jobs = [await site.ask(name) for name in NAMES[:3]]
        works = [work(job) for job in jobs for work in (site.fetcher.pause, site.fetcher.resume, site.fetcher.cancel)]
        await asyncio.gather(*works, return_exceptions=True)
        hub.release()
        for job in jobs:
            assert (await site.ended(job)).state in ("done", "paused", "cancelled")


@pytest.mark.parametrize("by", ["resume", "start"])
@pytest.mark.parametrize("end", ["cancel", "pause"])
@pytest.mark.parametrize("waits", [False, True])
async def test_what_is_ended_while_it_begins_to_go_on_has_ended(
    models: Path, hub: Hub, by: str, end: str, waits: bool
) -> None:
    async with site_on(models) as site:
        a = await site.ask(NAMES[0])
        await site.fetcher.pause(a)
        other = await site.ask(NAMES[1]) if waits else None
        going = asyncio.create_task(site.fetcher.resume(a) if by == "resume" else site.fetcher.start(NAMES[0]))
        ending = asyncio.create_task(site.fetcher.cancel(a) if end == "cancel" else site.fetcher.pause(a))
        await asyncio.wait({going, ending})
        ended = ending.result()
        assert ended.state == {"cancel": "cancelled", "pause": "paused"}[end]
        assert (await site.states())[a] == ended.state
        assert {fetch.job for fetch in site.fetcher._line} == ({other} if waits else set())


async def test_the_line_has_an_end(models: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_module, "MOST_WAITING", 2)
    async with site_on(models) as site:
        jobs = [await site.ask(name) for name in NAMES[:3]]
        with pytest.raises(TooManyRequests):
            await site.ask(NAMES[3])
        assert await site.ask(NAMES[2]) == jobs[2]
        await site.fetcher.pause(jobs[2])
        await site.ask(NAMES[3])
        with pytest.raises(TooManyRequests):
            await site.fetcher.resume(jobs[2])


async def test_what_is_fetched_is_loaded_if_that_was_asked(models: Path, hub: Hub) -> None:
    hub.release()
    async with site_on(models) as site:
        done = await site.ended((await site.fetcher.start(NAMES[0], auto_load=True)).job)
        assert (done.state, done.result["auto_loaded"], site.loaded) == ("done", True, [NAMES[0]])
        again = await site.ended((await site.fetcher.start(NAMES[0], auto_load=True)).job)
        assert (again.state, again.result["auto_loaded"]) == ("already_downloaded", True)
        assert "auto_loaded" not in (await site.ended(await site.ask(NAMES[1]))).result
        site.refusal = True
        done = await site.ended((await site.fetcher.start(NAMES[2], auto_load=True)).job)
        assert (done.state, done.result["auto_loaded"]) == ("done", False)
        assert "memory" in done.result["load_error"]


async def test_to_be_loaded_survives_a_restart_and_may_be_asked_late(models: Path, hub: Hub) -> None:
    async with site_on(models) as site:
        a = await site.ask(NAMES[0])
        assert (await site.fetcher.start(NAMES[0], auto_load=True)).job == a
    hub.release()
    async with site_on(models) as site:
        assert (await site.ended(a)).result["auto_loaded"] is True
        assert site.loaded == [NAMES[0]]


async def test_a_model_that_may_be_fetched_twice_is_fetched_once(models: Path, hub: Hub) -> None:
    async with site_on(models) as site:
        jobs = await asyncio.gather(*(site.fetcher.start(REPO) for _ in range(5)))
        assert len({job.job for job in jobs}) == 1
        assert await Job.objects.acount() == 1
        hub.release()
        assert (await site.ended(jobs[0].job)).state == "done"
