"""Freeing what nobody needs: exactly what the ledger says, also with links, races and other servers in the way."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from inference.engine.prefix_disk import PrefixDisk
from inference.models_on_disk import DiskUse, Reclaimed
from lmx_site.cli import main
from models_admin import reclaim as reclaim_module
from models_admin.fetch_lock import locked
from models_admin.reclaim import NotReclaimable, remove_folder
from tests.live.process import LiveServer
from tests.material.hub import BIG, COMMIT, MIB, REPO, Hub
from tests.models_admin.site import WEIGHTS, Site, ask, copy, lmx, site_on
from tests.models_admin.test_delete import allocated

pytestmark = pytest.mark.django_db(transaction=True)


def partial(models: Path, repo: str = "org/model", revision: str = "0" * 40) -> Path:
    left = models / repo / f".{revision}.partial"
    left.mkdir(parents=True)
    (left / f"{WEIGHTS}.part").write_bytes(b"x" * MIB)
    return left


def prefix_cache(site: Site, name: str) -> Path:
    folder = PrefixDisk(site.models.parent / "prefix", 0).directory(name)
    folder.mkdir(parents=True)
    (folder / "entry").write_bytes(b"x" * 5000)
    return folder


async def test_a_kind_goes_and_the_others_stay(tmp_path: Path) -> None:
    models = tmp_path / "models"
    model, left = copy(models / "org" / "model" / "r1", signed=True), partial(models, "org/other")
    async with site_on(models) as site:
        gone, here = prefix_cache(site, "gone"), prefix_cache(site, "org/model")
        size = allocated(left)
        plan = await site.keeper.reclaim(kind="partial", dry_run=True)
        assert (plan.freed_bytes, plan.dry_run, left.exists()) == (size, True, True)
        done = await site.keeper.reclaim(kind="partial")
        assert (done.freed_bytes, [use.path for use in done.freed], done.skipped) == (size, [str(left)], ())
        assert (left.exists(), (models / "org" / "other").exists(), gone.exists()) == (False, False, True)
        await site.keeper.reclaim()
        assert (gone.exists(), here.exists(), model.exists()) == (False, True, True)
        assert (await site.keeper.reclaim()).freed_bytes == 0
        assert not [path for path in models.rglob("*") if path.name.endswith((".lock", ".lmx-deleted"))]


async def test_nothing_but_what_the_ledger_lists(tmp_path: Path) -> None:
    models = tmp_path / "models"
    model, left = copy(models / "org" / "model" / "r1", signed=True), partial(models)
    (models / "stray").mkdir()
    (models / "stray" / "mine").write_bytes(b"x" * 5000)
    async with site_on(models) as site:
        for path in (model, models, left.parent, left / "..", models / "stray", Path("/etc"), Path("relative")):
            with pytest.raises(NotReclaimable):
                await site.keeper.reclaim(path=str(path))
        assert (await site.keeper.reclaim(kind="model")).freed == ()
        assert (await site.keeper.reclaim(kind="orphan")).freed == ()
        assert {use.kind for use in (await site.keeper.disk()).others} == {"partial", "orphan"}
        done = await site.keeper.reclaim(path=str(left))
        assert [use.path for use in done.freed] == [str(left)]
        assert (model / WEIGHTS).exists()


async def test_what_is_being_fetched_stays(tmp_path: Path, hub: Hub) -> None:
    async with site_on(tmp_path / "models") as site:
        hub.hold(BIG, 2 * MIB)
        started = await site.fetcher.start(REPO)
        part = site.models / REPO / f".{COMMIT}.partial" / f"{BIG}.part"
        async with asyncio.timeout(60):
            while not part.exists():
                await asyncio.sleep(0.01)
        assert (await site.keeper.reclaim()).freed == ()
        assert part.exists()
        await site.fetcher.cancel(started.job)


async def test_a_paused_download_keeps_its_part_until_it_is_cancelled(tmp_path: Path, hub: Hub) -> None:
    async with site_on(tmp_path / "models") as site:
        hub.hold(BIG, 2 * MIB)
        started = await site.fetcher.start(REPO)
        part = site.models / REPO / f".{COMMIT}.partial" / f"{BIG}.part"
        async with asyncio.timeout(60):
            while not part.exists():
                await asyncio.sleep(0.01)
        await site.fetcher.pause(started.job)
        [use] = (await site.keeper.disk()).others
        assert (use.kind, use.reclaimable) == ("partial", 0)
        assert (await site.keeper.reclaim()).freed == ()
        await site.fetcher.cancel(started.job)
        assert len((await site.keeper.reclaim()).freed) == 1
        assert not part.exists()


class Gate:
    """Lets something happen between the look at the disk and what is done about it."""

    def __init__(self, site: Site, then: Callable[[], object]) -> None:
        reclaimer = site.keeper._reclaimer
        before = reclaimer._look

        async def look() -> DiskUse:
            found = await before()
            then()
            return found

        reclaimer._look = look


async def test_a_download_that_begins_meanwhile_keeps_its_part(tmp_path: Path) -> None:
    models = tmp_path / "models"
    left = partial(models)
    async with site_on(models) as site:
        work = site.busy.work("org/model", "fetch")
        Gate(site, work.__enter__)
        done = await site.keeper.reclaim()
        assert (done.freed, left.exists()) == ((), True)
        assert "is being downloaded" in done.skipped[0].why
        work.__exit__(None, None, None)


async def test_another_server_that_fetches_keeps_its_part(tmp_path: Path) -> None:
    left = partial(tmp_path / "models")
    async with site_on(tmp_path / "models") as site:
        with locked(left.with_name("0" * 40)):
            done = await site.keeper.reclaim()
        assert (done.freed, left.exists()) == ((), True)
        assert "another process" in done.skipped[0].why


async def test_a_link_put_in_the_way_is_not_followed(tmp_path: Path) -> None:
    models, precious = tmp_path / "models", tmp_path / "precious"
    left = partial(models)
    partial(precious, "model")

    def swap() -> None:
        left.parent.rename(tmp_path / "aside")
        left.parent.symlink_to(precious / "model")

    async with site_on(models) as site:
        Gate(site, swap)
        done = await site.keeper.reclaim()
    assert done.freed == ()
    assert len(done.skipped) == 1
    assert (precious / "model" / f".{'0' * 40}.partial" / f"{WEIGHTS}.part").exists()


def test_a_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "precious").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "precious")
    (tmp_path / "root" / "file").write_text("x")
    for name in ("link", "file", "nothing"):
        with pytest.raises(OSError, match=r"no folder|No such file"):
            remove_folder(tmp_path / "root", tmp_path / "root" / name)
    assert (tmp_path / "precious").exists()


async def test_the_only_copy_of_a_model_under_another_name_stays(tmp_path: Path) -> None:
    model = copy(tmp_path / "models" / "org" / "model" / COMMIT, signed=True)
    async with site_on(tmp_path / "models") as site:
        model.rename(model.with_name(f".{COMMIT}.replaced"))
        done = await site.keeper.reclaim(kind="leftover")
        assert (done.freed, "only copy" in done.skipped[0].why) == ((), True)
        shutil.copytree(model.with_name(f".{COMMIT}.replaced"), model)
        assert len((await site.keeper.reclaim(kind="leftover")).freed) == 1
        assert model.exists()


async def test_hidden_folders_of_others_are_never_ours(tmp_path: Path) -> None:
    models = tmp_path / "models"
    copy(models / "org" / "model" / "r1", signed=True)
    names = [".rsync.partial", "org/.partial", f"org/.{COMMIT}.partial", "org/model/.x.partial", "org/.mine.replaced"]
    names += [".lmx-deleted", f"org/model/.{COMMIT}.replaced.bak", f"org/model/.{'A' * 40}.partial"]
    theirs = [copy(models / name) for name in names]
    async with site_on(models) as site:
        found = (await site.keeper.disk()).others
        assert {use.kind for use in found} <= {"orphan"}
        assert str(models / ".rsync.partial") in {use.path for use in found}
        assert (await site.keeper.reclaim()).freed == ()
        await site.keeper.finish_deletions()
    assert all((place / WEIGHTS).is_file() for place in theirs)


async def test_the_prefix_cache_of_what_runs_or_comes_back_stays(tmp_path: Path) -> None:
    running = ["runs"]
    async with site_on(tmp_path / "models") as site:
        site.keeper._running = lambda: running
        runs, back = prefix_cache(site, "runs"), prefix_cache(site, "back")
        Gate(site, lambda: running.append("back"))
        done = await site.keeper.reclaim()
        assert (runs.exists(), back.exists(), done.freed) == (True, True, ())
        assert "here now" in done.skipped[0].why


async def test_two_at_once_free_it_once(tmp_path: Path) -> None:
    left = partial(tmp_path / "models")
    size = allocated(left)
    async with site_on(tmp_path / "models") as site:
        both: tuple[Reclaimed, ...] = await asyncio.gather(site.keeper.reclaim(), site.keeper.reclaim())
    assert sorted(one.freed_bytes for one in both) == [0, size]


async def test_one_that_the_disk_will_not_give_up_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck, other = partial(tmp_path / "models", "org/a"), partial(tmp_path / "models", "org/b")

    def refusing(root: Path, place: Path, *, as_name: str | None = None) -> None:
        if place == stuck:
            raise OSError(5, "Input/output error", str(place))
        remove_folder(root, place, as_name=as_name)

    monkeypatch.setattr(reclaim_module, "remove_folder", refusing)
    async with site_on(tmp_path / "models") as site:
        done = await site.keeper.reclaim()
    assert [one.why for one in done.skipped] == ["Input/output error"]
    assert (stuck.exists(), other.exists()) == (True, False)


def test_over_the_api_and_by_command(start_server: Callable[..., LiveServer], tmp_path: Path) -> None:
    home = tmp_path / "home"
    copy(home / "models" / "org" / "model" / "r1", signed=True)
    left = partial(home / "models")
    server = start_server(home)
    assert ask(server, "/admin/disk/reclaim", {"path": str(home)})[1]["error"]["code"] == "not_reclaimable"
    for body in ({"kind": 7}, {"path": ""}, {"dry_run": "yes"}, {"all": True}):
        assert ask(server, "/admin/disk/reclaim", body)[0] == 400
    assert lmx(server, "disk", "--yes").exit_code == 2
    assert "nothing to delete of the kind leftover" in lmx(server, "disk", "--reclaim", "leftover").stdout
    assert "1 MB would be freed" in lmx(server, "disk", "--reclaim", "partial", "--dry-run").stdout
    refused = CliRunner().invoke(main, ["disk", "--reclaim", "all"], env={"LMX_URL": server.url, "LMX_KEY": None})
    assert (refused.exit_code, left.exists()) == (1, True)
    done = lmx(server, "disk", "--reclaim", "all", "--yes")
    assert (done.exit_code, left.exists()) == (0, False)
    assert done.stdout.endswith("1 MB freed\n")
    assert not os.listdir(left.parent) or os.listdir(left.parent) == ["r1"]
