"""What a server does by itself: real jobs and a real Hub on this machine, an engine that says what it is told."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import psutil
import pytest

from inference.engine.contract import ModelStatus
from inference.errors import InsufficientMemory, LmxError, ModelUnavailable
from inference.ipc import GenerateRequest
from inference.principal import Principal
from inference.records import RequestRecord, new_record
from models_admin import updates_worker
from models_admin.decisions import Decisions
from models_admin.facts import Facts
from models_admin.fetch_names import take
from models_admin.job_child import JobError, Reporter
from models_admin.keeping import Keeping
from models_admin.quiet import Gate
from models_admin.row import Row
from models_admin.scan import Found
from models_admin.schedule import Wishes, due
from tests.api.fake_engine import FakeEngine, FakeGeneration
from tests.material import nano_model
from tests.material.hub import BIG, COMMIT, REPO, Hub, nano_files
from tests.models_admin.site import Board, Site, copy, rot, site_on

pytestmark = pytest.mark.django_db(transaction=True)

NEXT = "6" * 40
DAY = 24 * 3600.0


class Engine(FakeEngine):
    """``busy``: a request is in flight. ``refusal`` is what a generation ends in before it begins."""

    def __init__(self, site: Site) -> None:
        super().__init__(cast(Any, site.catalog))
        self.busy = False
        self.refusal: LmxError | None = None

    def in_flight(self) -> list[RequestRecord]:
        asker = Principal("owner", "x", frozenset({"inference"}))
        return [new_record("openai", "x-", "m", asker, "/v1")] if self.busy else super().in_flight()

    def models(self) -> list[ModelStatus]:
        return [self.states.get(ref.id) or ModelStatus(ref.id, "unloaded") for ref in self.catalog.all()]

    async def generate(
        self, model: str, request: GenerateRequest, record: RequestRecord, *, ttl_s: float | None = None
    ) -> FakeGeneration:
        if self.refusal is not None:
            self.scripts.append([self.refusal])
        return await super().generate(model, request, record, ttl_s=ttl_s)


class Kept:
    """A site with all that keeps its models."""

    def __init__(self, site: Site, wishes: Wishes) -> None:
        self.site, self.engine = site, Engine(site)
        self.board = Board()
        self.decisions = Decisions()
        self.gate = site.models.parent / "run" / "quiet.lock"
        site.catalog._standing = self.decisions.standing
        self.keeping = Keeping(
            site.jobs,
            site.catalog,
            self.decisions,
            site.busy,
            site.fetcher,
            site.keeper,
            self.engine,
            events=self.board,
            models=site.models,
            gate=self.gate,
            wishes=wishes,
        )
        self.schedule, self.updates, self.revisions = (
            self.keeping.schedule,
            self.keeping.updates,
            self.keeping.revisions,
        )


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """Our own directory, and one that others filled."""
    (tmp_path / "others").mkdir()
    async with site_on(tmp_path / "models", tmp_path / "others") as found:
        yield found


@pytest.fixture
async def kept(site: Site) -> AsyncIterator[Kept]:
    found = Kept(site, Wishes(keep_days=1.0))
    yield found
    await found.keeping.stop()


def others(kept: Kept) -> Path:
    return kept.site.models.parent / "others"


def row(name: str, **fields: Any) -> Row:
    found = Found(Path("/models") / name, Path("/models"), "local", name)
    return replace(Row(found, Facts()), **fields)


def test_who_is_next() -> None:
    now, month = 1e9, Wishes()
    fresh, begun = row("fresh"), row("begun", verify_began=now - 5, verified_at=None)
    old = row("a", disk_state="verified", verified_at=now - 31 * DAY)
    older = row("b", disk_state="verified", verified_at=now - 40 * DAY)
    young = row("young", verified_at=now - 29 * DAY)
    never = [
        row("corrupt", disk_state="corrupt"),
        row("partial", disk_state="partial"),
        row("offline", disk_state="offline", vanished_at=now),
        young,
    ]
    rows = [old, *never, older, fresh, begun]
    for expected in (begun, fresh, older, old):
        assert due(rows, month, now, {}) is expected
        rows.remove(expected)
    assert due(rows, month, now, {}) is None
    assert due([fresh], Wishes(verify_days=0), now, {}) is None
    assert due([fresh], month, now, {fresh.found.path: now + 1}) is None


async def test_what_was_adopted_is_read_once_when_nothing_runs(kept: Kept) -> None:
    model = copy(others(kept) / "mine")
    await kept.site.catalog.refresh()
    kept.engine.busy = True
    assert await kept.schedule.verify_one() is None
    kept.engine.busy = False
    assert (await kept.schedule.verify_one() or row("none")).found.path == model
    ref = kept.site.catalog.resolve("mine")
    assert (ref.disk_state, ref.verified_at is not None) == ("adopted", True)
    assert await kept.schedule.verify_one() is None
    job = (await kept.site.fetcher.jobs())[0]
    assert (job.kind, job.state) == ("verify", "done")
    assert sorted(job.result["first_sight"]) == sorted(os.listdir(nano_model()))


@pytest.mark.skipif(sys.platform != "linux", reason="who waits for a lock is read from /proc/locks")
async def test_it_stands_still_while_the_engine_is_busy_and_keeps_nobody_from_the_files(kept: Kept) -> None:
    copy(kept.site.models / "mine")
    await kept.site.catalog.refresh()
    before = Gate(kept.gate)
    assert before.close()
    reading = asyncio.create_task(kept.schedule.verify_one())
    async with asyncio.timeout(60):
        while not (pids := waiting_for_a_lock()):
            await asyncio.sleep(0.01)
        child = psutil.Process(pids[0])
        assert (child.nice(), child.ionice()[0]) == (19, psutil.IOPRIO_CLASS_IDLE)
        assert not reading.done()
        assert (await kept.site.keeper.delete("mine", dry_run=True)).files == len(os.listdir(nano_model()))
        kept.engine.busy = True
        before.open()
        # Now it is the server's own gate; the owner, who waits for the same model, opens it.
        assert (await kept.site.verify("mine")).state == "done"
        await reading
    assert Gate(kept.gate).close(), "nobody holds it any more"


def waiting_for_a_lock() -> list[int]:
    ours = {child.pid for child in psutil.Process().children() if "models_admin.verify_worker" in child.cmdline()}
    waits = [line.split() for line in Path("/proc/locks").read_text().splitlines() if "->" in line]
    return [int(words[5]) for words in waits if int(words[5]) in ours]


async def test_what_is_the_hubs_becomes_verified(kept: Kept, hub: Hub) -> None:
    files = {name: text for name, text in nano_files().items() if name in take(nano_files())}
    for place in ("acme/nano-4bit", "acme/other", "acme/none"):
        model = others(kept) / place
        model.mkdir(parents=True)
        for name, text in files.items():
            (model / name).write_bytes(text)
    rot(others(kept) / "acme" / "other" / BIG)
    hub.repos["acme/other"] = hub.repos[REPO]
    await kept.site.catalog.refresh()
    for _ in range(3):
        assert await kept.schedule.verify_one() is not None
    states = {ref.id: ref.disk_state for ref in kept.site.catalog.all()}
    assert states == {"acme/nano-4bit": "verified", "acme/other": "adopted", "acme/none": "adopted"}
    asked = len(hub.asked)
    await kept.schedule.look()
    assert len(hub.asked) == asked + 2, "both that are not known, once a day"
    await kept.schedule.look()
    assert len(hub.asked) == asked + 2


async def test_the_hub_is_asked_once_a_day(kept: Kept, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    await kept.site.fetch(REPO)
    hub.repos[REPO].commit = NEXT
    hub.repos[REPO].files |= {BIG: nano_files()[BIG] + b"\0"}
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    asked = len(hub.asked)
    await kept.schedule.look()
    assert len(hub.asked) == asked
    monkeypatch.delenv("HF_HUB_OFFLINE")
    await kept.schedule.look()
    assert kept.board.events == ["model.update_available"]
    assert kept.updates.kept(kept.site.catalog.all())[0].update is not None
    # A server that starts again knows when it was.
    again = Kept(kept.site, Wishes())
    await again.decisions.load()
    asked = len(hub.asked)
    await again.schedule.look()
    assert len(hub.asked) == asked
    never = Kept(kept.site, Wishes(check_updates=False))
    await never.schedule.look()
    assert len(hub.asked) == asked


async def test_what_could_not_be_tried_is_tried_again_and_the_old_one_goes_in_time(kept: Kept, hub: Hub) -> None:
    await kept.site.fetch(REPO)
    hub.repos[REPO].commit = NEXT
    kept.engine.refusal = InsufficientMemory("not enough memory: 1 of 2 bytes")
    begun = await kept.updates.update(REPO)
    done = await kept.updates.wait(REPO, begun.job.job)
    assert (done.outcome, done.reason) == ("waiting", "not enough memory: 1 of 2 bytes")
    assert kept.site.catalog.resolve(REPO).revision == COMMIT
    kept.engine.refusal = None
    await kept.schedule.look()
    await kept.revisions.tried(REPO)
    assert kept.site.catalog.resolve(REPO).revision == NEXT
    assert kept.board.events == ["model.updated"]
    await kept.schedule.look()
    assert (kept.site.models / REPO / COMMIT).is_dir(), "it is not time yet"
    past = time.time() - DAY
    await kept.decisions.change(REPO, lambda old: replace(old, superseded={COMMIT: past - 1}))
    await kept.schedule.look()
    assert kept.board.events[1:] == ["revision.deleted"]
    assert [one.name for one in (kept.site.models / REPO).glob("[0-9]*")] == [NEXT]
    assert kept.site.catalog.resolve(REPO).disk_state == "verified"


async def test_one_that_cannot_be_loaded_is_not_tried_again(kept: Kept, hub: Hub) -> None:
    await kept.site.fetch(REPO)
    hub.repos[REPO].commit = NEXT
    kept.engine.refusal = ModelUnavailable("it does not load")
    failed = f"{REPO}@{NEXT[:12]}"
    kept.engine.states[failed] = ModelStatus(failed, "failed")
    begun = await kept.updates.update(REPO)
    assert (await kept.updates.wait(REPO, begun.job.job)).outcome == "failed"
    await kept.schedule.look()
    await kept.revisions.tried(REPO)
    assert len(kept.engine.requests) == 1
    shutil.rmtree(kept.site.models / REPO / COMMIT)
    await kept.site.catalog.refresh()
    assert kept.site.catalog.resolve(REPO).revision == NEXT, "a name means something as long as there is a revision"


def test_a_hub_that_fell_silent_is_not_asked_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def look(model: dict[str, str]) -> dict[str, Any]:
        asked.append(model["path"])
        if model["path"] in ("0", "2"):
            return {"path": model["path"]}
        raise JobError("nobody answers", code="hub_unreachable")

    monkeypatch.setattr(updates_worker, "look", look)
    report = Report()
    with pytest.raises(JobError, match="nobody answers"):
        updates_worker.compare({"models": [{"path": str(number)} for number in range(9)]}, cast(Reporter, report))
    assert asked == ["0", "1", "2", "3", "4", "5"]
    assert [part["path"] for part in report.parts] == ["0", "1", "2", "3", "4"]


class Report:
    """Keeps the parts of a job's result."""

    def __init__(self) -> None:
        self.parts: list[dict[str, Any]] = []

    def __call__(self, phase: str, done: int = 0, total: int = 0, unit: str = "bytes") -> None:
        pass

    def part(self, about: dict[str, Any]) -> None:
        self.parts.append(about)
