"""A Hub that fails in every way: the real client library in real child processes."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from inference.errors import LmxError, NotFound
from inference.fetching import JobStatus
from models_admin import fetch_hash
from models_admin.catalog import DiskCatalog
from models_admin.fetch import HubFetcher
from models_admin.fetch_hash import PartFile
from models_admin.fetch_line import Fetch
from models_admin.job_child import JobError
from models_admin.job_rows import WAITS
from models_admin.jobs import Jobs
from tests.material.hub import BIG, COMMIT, MIB, REPO, Hub, HubRepo, nano_files
from tests.models_admin.site import Board

pytestmark = pytest.mark.django_db(transaction=True)

QUICK = (0.01, 0.05, 30.0)
IMPATIENT = (0.01, 0.05, 0.1)
SEED = int(os.environ.get("FETCH_SEED") or random.randrange(2**32))


class Site:
    """The parts of a server that fetching needs; what is shown of jobs is kept."""

    def __init__(self, models: Path) -> None:
        self.models = models
        self.board = Shown()
        self.jobs = Jobs(self.board)
        self.catalog = DiskCatalog([models])
        self.fetcher = self.made()

    def made(self, patience: tuple[float, float, float] = QUICK) -> HubFetcher:
        self.fetcher = HubFetcher(self.jobs, self.catalog, self.models, keep_free=0, patience=patience)
        return self.fetcher

    async def fetch(self) -> JobStatus:
        return await self.fetcher.wait((await self.fetcher.start(REPO)).job)

    @property
    def partial(self) -> Path:
        return self.models / REPO / f".{COMMIT}.partial"


class Shown(Board):
    """Keeps the messages of the jobs."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def publish(self, topic: str, payload: dict[str, object] | None, *, key: str | None = None) -> None:
        if payload is not None:
            self.said.append(str(payload["message"]))

    def waits(self) -> set[str]:
        """Why it was waited, without how long."""
        return {said.partition(": ")[2] for said in self.said if said.startswith("waits ") and "turn" not in said}


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    (tmp_path / "models").mkdir()
    found = Site(tmp_path / "models")
    yield found
    await found.jobs.stop()
    await found.fetcher.stop()
    found.catalog.close()


def whole(site: Site) -> bool:
    return (site.models / REPO / COMMIT / BIG).read_bytes() == nano_files()[BIG]


async def test_a_connection_that_is_cut_anywhere_is_gone_on_with(site: Site, hub: Hub) -> None:
    sys.stdout.write(f"FETCH_SEED={SEED}\n")
    dice, size = random.Random(SEED), len(nano_files()[BIG])
    cuts = [*sorted(dice.sample(range(size), 6)), size - 1]
    for cut in [0, *cuts]:
        hub.fault(BIG, after=cut)
    assert (await site.fetch()).state == "done", SEED
    assert whole(site)
    starts = [int(wanted.removeprefix("bytes=").removesuffix("-") or 0) for wanted in hub.ranges(BIG)]
    assert starts == [0, 0, *cuts], f"no byte twice, seed {SEED}"
    assert hub.sent[BIG] == size
    assert "the connection was cut" in site.board.waits()


@pytest.mark.parametrize("status", [500, 408, 429])
async def test_an_answer_that_passes_is_waited_for(site: Site, hub: Hub, status: int) -> None:
    hub.fault(BIG, after=MIB)
    hub.fault(BIG, status=status, headers={"Retry-After": "0"})
    hub.fault(BIG, status=status, headers={"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"})
    assert (await site.fetch()).state == "done"
    assert hub.ranges(BIG) == ["", *[f"bytes={MIB}-"] * 3]
    assert f"the Hub answered {status}" in site.board.waits()


async def test_retry_after_is_honoured(site: Site, hub: Hub) -> None:
    hub.fault(BIG, status=429, headers={"Retry-After": "1"})
    assert (await site.fetch()).state == "done"
    assert "waits 1 s: the Hub answered 429" in site.board.said


async def test_a_retry_after_without_end_is_bounded(site: Site, hub: Hub) -> None:
    hub.fault(BIG, status=503, headers={"Retry-After": "999999999"})
    job = (await site.fetcher.start(REPO)).job
    async with asyncio.timeout(30):
        while "waits 120 s: the Hub answered 503" not in site.board.said:
            await asyncio.sleep(0.01)
    assert (await site.fetcher.status(job)).message == "waits 120 s: the Hub answered 503"
    assert (await site.fetcher.pause(job)).state == "paused"


async def test_a_hub_that_falls_silent_is_asked_again(site: Site, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "1")
    hub.fault(BIG, after=MIB, hangs=True)
    assert (await site.fetch()).state == "done"
    assert hub.ranges(BIG) == ["", f"bytes={MIB}-"]
    assert site.board.waits() == {"the Hub has fallen silent"}


@pytest.mark.parametrize("status", [401, 403, 404, 410])
async def test_a_refusal_is_final(site: Site, hub: Hub, status: int) -> None:
    hub.fault(BIG, status=status)
    failed = await site.fetch()
    assert failed.state == "failed"
    assert failed.code == {404: "revision_gone", 410: "hub_error"}.get(status, "model_gated")
    assert hub.ranges(BIG) == [""]
    assert (await site.fetcher.wait((await site.fetcher.resume(failed.job)).job)).state == "done"


@pytest.mark.parametrize("length", [MIB, 5 * MIB])
async def test_another_length_costs_that_file_only(site: Site, hub: Hub, length: int) -> None:
    hub.fault(BIG, length=length)
    assert (await site.fetch()).state == "done"
    assert whole(site)
    assert hub.ranges(BIG) == ["", ""]
    assert len(hub.ranges("config.json")) == 1


async def test_a_file_that_stays_too_short_fails(site: Site, hub: Hub) -> None:
    hub.fault(BIG, after=2 * MIB)
    hub.fault(BIG, length=MIB)  # asked for from two MiB on: 416
    hub.fault(BIG, length=MIB)
    failed = await site.fetch()
    assert (failed.state, failed.code) == ("failed", "hash_mismatch")
    assert hub.ranges(BIG) == ["", f"bytes={2 * MIB}-", ""]
    assert not list(site.partial.glob(f"{BIG}*"))
    assert (site.partial / "config.json").exists()


async def test_a_wrong_byte_is_fetched_once_more(site: Site, hub: Hub) -> None:
    hub.repos[REPO].wrong = {BIG}
    hub.hold(BIG, 2 * MIB)
    job = (await site.fetcher.start(REPO)).job
    async with asyncio.timeout(30):
        while not hub.ranges(BIG):
            await asyncio.sleep(0.01)
    hub.repos[REPO].wrong = set()  # the first answer has its wrong byte already
    hub.release()
    ended = await site.fetcher.wait(job)
    assert ended.state == "done"
    assert whole(site)
    assert hub.ranges(BIG) == ["", ""]


async def test_the_token_stays_with_the_hub(site: Site, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with Hub({REPO: HubRepo(nano_files())}) as cdn:
        monkeypatch.setenv("HF_TOKEN", hub.token)
        hub.repos[REPO].gated, hub.repos[REPO].cdn = True, cdn.url
        assert (await site.fetch()).state == "done"
        assert cdn.ranges(BIG) == [""]
        assert {token for _, token in cdn.tokens} == {""}
        assert {token for _, token in hub.tokens} == {f"Bearer {hub.token}"}


async def test_without_a_network_it_is_paused_and_goes_on_at_the_next_start(site: Site, hub: Hub) -> None:
    site.made(IMPATIENT)
    for _ in range(500):
        hub.fault(BIG, after=2 * MIB)
    paused = await site.fetch()
    assert (paused.state, paused.code) == ("paused", "hub_unreachable")
    assert "kept" in paused.message
    assert (site.partial / f"{BIG}.part").stat().st_size == 2 * MIB
    assert paused.done >= 2 * MIB
    hub.faults.clear()
    await site.made().go_on()
    assert (await site.fetcher.wait(paused.job)).state == "done"
    assert whole(site)
    assert hub.sent[BIG] == len(nano_files()[BIG])


@pytest.mark.parametrize("status", [503, None])
async def test_a_hub_that_does_not_answer_at_all(
    site: Site, hub: Hub, status: int | None, monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    hub.status = status
    if status is None:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free_port}")
    started = await site.made((60.0, 60.0, 300.0)).start(REPO)
    assert (started.state, started.total) == ("running", 0)
    assert started.message.startswith("waits ")
    assert (await site.fetcher.cancel(started.job)).state == "cancelled"
    paused = await site.made(IMPATIENT).wait((await site.fetcher.resume(started.job)).job)
    assert (paused.job, paused.state, paused.code) == (started.job, "paused", "hub_unreachable")
    assert "\n" not in paused.message


async def test_offline(site: Site, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(LmxError, match="HF_HUB_OFFLINE") as refused:
        await site.fetcher.start(REPO)
    assert (await site.fetcher.status(refused.value.details["job"])).state == "paused"
    assert hub.asked == []


async def test_a_branch_that_moves_half_way_changes_nothing(site: Site, hub: Hub) -> None:
    hub.hold(BIG, 2 * MIB)
    job = (await site.fetcher.start(REPO)).job
    async with asyncio.timeout(30):
        while not hub.ranges(BIG):
            await asyncio.sleep(0.01)
    await site.fetcher.pause(job)
    repo = hub.repos[REPO]
    moved = {**repo.files, "config.json": b"{}"}
    hub.repos[REPO] = HubRepo(moved, commit="6" * 40, before={COMMIT: repo.files})
    hub.release()
    ended = await site.fetcher.wait((await site.fetcher.resume(job)).job)
    assert (ended.state, ended.result["revision"]) == ("done", COMMIT)
    assert (site.models / REPO / COMMIT / "config.json").read_bytes() == repo.files["config.json"]


async def test_a_commit_that_is_gone_is_said_and_trying_again_takes_the_new_one(site: Site, hub: Hub) -> None:
    hub.hold(BIG, 2 * MIB)
    job = (await site.fetcher.start(REPO)).job
    async with asyncio.timeout(30):
        while not hub.ranges(BIG):
            await asyncio.sleep(0.01)
    await site.fetcher.pause(job)
    hub.repos[REPO] = HubRepo(hub.repos[REPO].files, commit="6" * 40)
    hub.release()
    failed = await site.fetcher.wait((await site.fetcher.resume(job)).job)
    assert (failed.state, failed.code) == ("failed", "revision_gone")
    assert COMMIT[:12] in failed.message
    ended = await site.fetcher.wait((await site.fetcher.resume(job)).job)
    assert (ended.state, ended.result["revision"]) == ("done", "6" * 40)
    with pytest.raises(NotFound):
        await site.fetcher.start(REPO, COMMIT)


async def test_files_of_hostile_names_are_not_taken(site: Site, hub: Hub) -> None:
    names = ["../x.json", "/etc/x.json", "a/../../x.json", "..\\x.json", "x.json/../../y.json", ".x.json", "c\0.json"]
    hub.repos[REPO].files |= dict.fromkeys([*names, "evil.pkl", "modeling.py", "pytorch_model.bin"], b"{}")
    before = set(site.models.parent.rglob("*"))
    assert (await site.fetch()).state == "done"
    made = {path for path in site.models.parent.rglob("*") if path.is_file()} - before
    made = {path for path in made if not path.is_relative_to(site.models.parent / "hf")}
    assert {path.parent for path in made} == {site.models / REPO / COMMIT, site.models / REPO}
    assert not any(path.suffix in (".pkl", ".py", ".bin") for path in made)


def test_the_disk_is_watched_while_a_file_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has come stays; the code is that with which a job is paused."""
    monkeypatch.setattr(fetch_hash, "_LOOK_EVERY", MIB)
    part = PartFile.open(tmp_path / "a.part", 3 * MIB, lambda more: None, 1 << 60)
    with part:
        part.write(bytes(MIB))
        with pytest.raises(JobError, match="needs 2 MB more") as full:
            part.write(bytes(MIB))
    assert (full.value.code, full.value.code in WAITS) == ("insufficient_storage", True)
    assert full.value.details["needed_bytes"] == 2 * MIB
    assert (tmp_path / "a.part").stat().st_size == MIB


class Small(HubFetcher):
    """Has a disk with 6 MiB left, whatever happens on it."""

    def _reserve(self, fetch: Fetch, job: int, missing: int, free: int) -> None:
        super()._reserve(fetch, job, missing, 6 * MIB)


async def test_what_others_under_way_still_need_is_reserved(site: Site, hub: Hub) -> None:
    """There is room for one of the two, and none for both."""
    hub.repos["acme/other-4bit"] = HubRepo(nano_files(), commit="7" * 40)
    hub.hold(BIG, MIB)
    fetcher = site.fetcher = Small(site.jobs, site.catalog, site.models, keep_free=0)
    first = await fetcher.start(REPO)
    with pytest.raises(LmxError, match="promised to other downloads") as refused:
        await fetcher.start("acme/other-4bit")
    assert (refused.value.status, refused.value.code) == (507, "insufficient_storage")
    assert refused.value.details["promised_bytes"] > 2 * MIB
    paused = await fetcher.status(refused.value.details["job"])
    assert (paused.state, paused.code) == ("paused", "insufficient_storage")
    hub.release()
    assert (await fetcher.wait(first.job)).state == "done", "the other goes on"
    assert (await fetcher.wait((await fetcher.resume(paused.job)).job)).state == "done"
