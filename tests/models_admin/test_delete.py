"""Deleting: real files, real links; what is somebody else's stays."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from inference.errors import Conflict, ModelNotFound
from models_admin import delete
from models_admin.delete import DeleteIncomplete
from models_admin.models import ModelRecord
from tests.live.process import LiveServer
from tests.material.hub import BIG, COMMIT, MIB, REPO, Hub
from tests.models_admin.site import WEIGHTS, Site, ask, copy, lmx, site_on

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """With ``org/model`` of our own, and another root beside."""
    copy(tmp_path / "models" / "org" / "model" / "r1", signed=True)
    (tmp_path / "other").mkdir()
    async with site_on(tmp_path / "models", tmp_path / "other") as found:
        yield found


@pytest.fixture
async def fetched(tmp_path: Path) -> AsyncIterator[Site]:
    """With ``org/model`` as a fetch leaves it."""
    copy(tmp_path / "models" / "org" / "model" / COMMIT, signed=True)
    async with site_on(tmp_path / "models") as found:
        yield found


def allocated(directory: Path) -> int:
    return sum(path.lstat().st_blocks * 512 for path in directory.rglob("*") if path.is_file())


async def test_a_model_is_deleted_with_all_that_is_its_own(fetched: Site) -> None:
    model = fetched.models / "org" / "model" / COMMIT
    for left in (f".{COMMIT}.partial", f".{COMMIT}.replaced"):
        (model.parent / left).mkdir()
        (model.parent / left / f"{WEIGHTS}.part").write_bytes(b"x" * 10_000)
    size = allocated(model.parent)
    plan = await fetched.keeper.delete("org/model", dry_run=True)
    assert (plan.model_id, plan.deleted, plan.freed_bytes, plan.shared_bytes) == ("org/model", False, size, 0)
    assert plan.files == 7
    assert model.is_dir()
    done = await fetched.keeper.delete("org/model")
    assert (done.deleted, done.freed_bytes, done.path) == (True, size, str(model))
    assert list(fetched.models.iterdir()) == [], "nor is an empty directory of the organisation left"
    assert fetched.catalog.all() == []
    record = await asyncio.to_thread(ModelRecord.objects.get)
    assert (record.disk_state, record.vanished_at is None, record.path) == ("absent", False, str(model))
    with pytest.raises(ModelNotFound):
        await fetched.keeper.delete("org/model")


@pytest.mark.parametrize("length", [200, 243, 255])
async def test_a_name_as_long_as_the_disk_allows(site: Site, length: int) -> None:
    model = copy(site.models / ("n" * length))
    await site.catalog.refresh()
    assert (await site.keeper.delete("n" * length)).deleted
    assert not model.exists()
    assert [path.name for path in site.models.iterdir()] == ["org"]


async def test_what_comes_back_is_there_again(site: Site) -> None:
    model = site.models / "org" / "model" / "r1"
    await site.keeper.delete("org/model")
    copy(model)
    await site.catalog.refresh()
    assert site.catalog.resolve("org/model").problem is None


async def test_what_is_used_is_not_deleted(site: Site) -> None:
    for state, said in {"loading": "loading", "ready": "in memory", "draining": "draining"}.items():
        site.run_states[site.models / "org" / "model" / "r1"] = state
        with pytest.raises(Conflict, match=f"is {said}: unload it") as refused:
            await site.keeper.delete("org/model", dry_run=True)
        assert refused.value.code == "model_loaded"
    del site.run_states[site.models / "org" / "model" / "r1"]
    for kind, words in (("fetch", "downloaded"), ("verify", "verified"), ("delete", "deleted")):
        with site.busy.work("Org/Model", kind), pytest.raises(Conflict, match=words) as refused:
            await site.keeper.delete("org/model")
        assert refused.value.code == "model_busy"
    lock = FileLock(site.models / "org" / "model" / ".r1.lock")
    with lock, pytest.raises(Conflict, match="another process"):
        await site.keeper.delete("org/model")
    assert site.catalog.resolve("org/model").problem is None


async def test_a_load_that_begins_meanwhile_wins(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between what is asked first and the new name there is time; the last look is without any."""
    look = delete._look

    def slow(path: Path, others: dict[str, Path]) -> Any:
        site.run_states[site.models / "org" / "model" / "r1"] = "loading"
        return look(path, others)

    monkeypatch.setattr(delete, "_look", slow)
    with pytest.raises(Conflict, match="is loading"):
        await site.keeper.delete("org/model")
    assert (site.models / "org" / "model" / "r1" / WEIGHTS).is_file()


async def test_a_scan_meanwhile_does_not_list_it_as_gone(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    loop, rest = asyncio.get_running_loop(), delete._remove

    def scanned(path: Path, hidden: list[Path]) -> None:
        asyncio.run_coroutine_threadsafe(site.catalog.refresh(), loop).result(30)
        rest(path, hidden)

    monkeypatch.setattr(delete, "_remove", scanned)
    await site.keeper.delete("org/model")
    assert site.catalog.all() == []


async def test_two_at_once(site: Site) -> None:
    one, two = await asyncio.gather(
        site.keeper.delete("org/model"), site.keeper.delete("org/model"), return_exceptions=True
    )
    assert not isinstance(one, BaseException)
    assert isinstance(two, Conflict)


async def test_a_client_that_leaves_leaves_no_half(site: Site) -> None:
    task = asyncio.create_task(site.keeper.delete("org/model"))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait({task})
    async with asyncio.timeout(30):
        while site.catalog.all() or any(site.models.iterdir()):
            await asyncio.sleep(0.01)


async def test_models_of_others_are_refused_and_can_be_forgotten(tmp_path: Path) -> None:
    studio, hub, other = tmp_path / ".lmstudio" / "models", tmp_path / "hub", tmp_path / "other"
    copy(studio / "org" / "studio")
    copy(hub / "models--org--cached" / "snapshots" / "aaaa")
    copy(other / "org" / "plain")
    async with site_on(tmp_path / "models", studio, hub, other) as site:
        for name, owner in (
            ("org/studio", "LM Studio"),
            ("org/cached", "Hugging Face cache"),
            ("org/plain", str(other)),
        ):
            with pytest.raises(Conflict, match=owner) as refused:
                await site.keeper.delete(name)
            assert refused.value.code == "model_not_ours"
            assert (await site.keeper.delete(name, forget=True, dry_run=True)).forgotten is False
            done = await site.keeper.delete(name, forget=True)
            assert (done.deleted, done.forgotten, done.freed_bytes) == (False, True, 0)
            with pytest.raises(ModelNotFound):
                site.catalog.resolve(name)
    assert (other / "org" / "plain" / WEIGHTS).is_file()
    async with site_on(tmp_path / "models", studio, hub, other) as site:
        assert site.catalog.all() == [], "after a restart too"
        (other / "org" / "plain" / "config.json").touch()
        await site.catalog.refresh()
        assert [ref.id for ref in site.catalog.all()] == ["org/plain"], "its files changed"


async def test_our_directory_in_that_of_lm_studio(tmp_path: Path) -> None:
    studio = tmp_path / ".lmstudio" / "models"
    studio.parent.mkdir()
    copy(studio / "org" / "theirs")
    copy(studio / "org" / "ours" / "r1", signed=True)
    async with site_on(studio) as site:
        with pytest.raises(Conflict, match="LM Studio"):
            await site.keeper.delete("org/theirs")


async def test_no_link_is_followed(site: Site, tmp_path: Path) -> None:
    outside = copy(tmp_path / "outside")
    (site.models / "linked").symlink_to(outside)
    copy(site.models / "other-org" / "real")
    (site.models / "alias").symlink_to(site.models / "other-org")
    model = site.models / "org" / "model" / "r1"
    (model / "folder").symlink_to(outside)
    (model / "file.json").symlink_to(outside / "config.json")
    model = model.rename(model.with_name(COMMIT))
    (model.parent / f".{COMMIT}.partial").symlink_to(outside)
    await site.catalog.refresh()
    for name in ("linked", "alias/real"):
        with pytest.raises(Conflict, match="through a link") as refused:
            await site.keeper.delete(name)
        assert refused.value.code == "model_not_ours"
    assert (await site.keeper.delete("org/model")).deleted
    assert {path.name for path in outside.iterdir()} >= {WEIGHTS, "config.json"}
    assert not model.exists()


async def test_a_root_that_is_a_model_stays(tmp_path: Path) -> None:
    async with site_on(copy(tmp_path / "mine")) as site:
        with pytest.raises(Conflict, match="directory of the models itself"):
            await site.keeper.delete("mine")


async def test_shared_files_do_not_count(site: Site, tmp_path: Path) -> None:
    model = site.models / "org" / "model" / "r1"
    twin = tmp_path / "other" / "twin"
    shutil.copytree(model, twin, copy_function=os.link)
    (twin / "config.json").unlink()
    shutil.copy(model / "config.json", twin / "config.json")
    os.link(model / "config.json", model / "again.json")  # twice in the model itself: nobody else's
    await site.catalog.refresh()
    own = (model / "config.json").lstat().st_blocks * 512
    plan = await site.keeper.delete("org/model", dry_run=True)
    assert (plan.freed_bytes, plan.shared_with) == (own, ("twin",))
    assert plan.shared_bytes == allocated(twin) - own
    assert (await site.keeper.delete("org/model")).freed_bytes == own
    assert (twin / WEIGHTS).is_file()


async def test_a_model_that_others_link_into_stays(site: Site, tmp_path: Path) -> None:
    model = site.models / "org" / "model" / "r1"
    other = copy(site.models / "borrower")
    (other / WEIGHTS).unlink()
    (other / WEIGHTS).symlink_to(model / WEIGHTS)
    await site.catalog.refresh()
    with pytest.raises(Conflict, match="borrower would lose") as refused:
        await site.keeper.delete("org/model")
    assert (refused.value.code, refused.value.details) == ("model_shared", {"shared_with": ["borrower"]})
    await site.keeper.delete("borrower")
    assert (await site.keeper.delete("org/model")).deleted


async def test_a_disk_that_refuses(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    rmtree = shutil.rmtree

    def refuse(path: Path, **more: Any) -> None:
        raise PermissionError(1, "Operation not permitted", str(path))

    monkeypatch.setattr(shutil, "rmtree", refuse)
    with pytest.raises(DeleteIncomplete, match="Operation not permitted"):
        await site.keeper.delete("org/model")
    assert site.catalog.all() == []
    [left] = (site.models / "org" / "model").iterdir()
    assert left.name == ".r1.lmx-deleted"
    monkeypatch.setattr(shutil, "rmtree", rmtree)
    copy(site.models / "org" / "model" / "r1")  # fetched again: the name is free
    await site.catalog.refresh()
    await site.keeper.finish_deletions()
    assert [path.name for path in (site.models / "org" / "model").iterdir()] == ["r1"]


async def test_a_model_whose_directory_is_gone_is_refused_and_nothing_is_made(site: Site) -> None:
    for gone in (site.models / "org" / "model" / "r1", site.models):
        shutil.rmtree(gone)
        for dry_run in (True, False):
            with pytest.raises(Conflict, match="not on the disk any more") as refused:
                await site.keeper.delete("org/model", dry_run=dry_run)
            assert refused.value.code == "model_not_on_disk"
    assert not site.models.exists()


async def test_one_that_goes_at_the_last_moment(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    look = delete._look

    def gone(path: Path, others: dict[str, Path]) -> Any:
        found = look(path, others)
        shutil.rmtree(site.models)
        return found

    monkeypatch.setattr(delete, "_look", gone)
    with pytest.raises(Conflict, match="not on the disk any more"):
        await site.keeper.delete("org/model")
    assert not site.models.exists()


@pytest.mark.parametrize("which", [0, 1])
async def test_a_name_that_the_disk_refuses_deletes_nothing(
    fetched: Site, monkeypatch: pytest.MonkeyPatch, which: int
) -> None:
    model = fetched.models / "org" / "model" / COMMIT
    part = model.with_name(f".{COMMIT}.partial")
    part.mkdir()
    hide = delete._hide

    def refuse(place: Path) -> Path:
        if place == (model, part)[which]:
            raise PermissionError(1, "Operation not permitted", str(place))
        return hide(place)

    monkeypatch.setattr(delete, "_hide", refuse)
    with pytest.raises(Conflict, match="Operation not permitted") as refused:
        await fetched.keeper.delete("org/model")
    assert refused.value.code == "disk_refused"
    await fetched.keeper.finish_deletions()
    assert (model / WEIGHTS).is_file()
    assert part.is_dir()
    assert [ref.path for ref in fetched.catalog.all()] == [model]


async def test_what_a_killed_deletion_left_is_deleted_at_the_next_start(site: Site, tmp_path: Path) -> None:
    for place in ("org/model/.r1.lmx-deleted", "gone/model/.r1-2.lmx-deleted", "x.lmx-deleted", ".old.lmx-deleted"):
        copy(site.models / place)
    (site.models / "org" / ".link.lmx-deleted").symlink_to(tmp_path / "other")
    copy(tmp_path / "other" / ".mine.lmx-deleted")
    await site.keeper.finish_deletions()
    found = await asyncio.to_thread(lambda: list(tmp_path.rglob("*.lmx-deleted")))
    left = sorted(path.relative_to(tmp_path).as_posix() for path in found)
    assert left == ["models/org/.link.lmx-deleted", "models/x.lmx-deleted", "other/.mine.lmx-deleted"]
    assert not (site.models / "gone").exists()


async def test_a_fetch_after_a_deletion_begins_anew(tmp_path: Path, hub: Hub) -> None:
    async with site_on(tmp_path / "models") as site:
        hub.hold(BIG, MIB)
        started = await site.fetcher.start(REPO)
        with pytest.raises(ModelNotFound):
            await site.keeper.delete(REPO)
        hub.release()
        await site.fetcher.wait(started.job)
        await site.keeper.delete(REPO)
        assert (await site.fetch(REPO)).state == "done"
        assert site.catalog.resolve(REPO).path == site.models / REPO / COMMIT
        assert len(hub.ranges(BIG)) == 2


def test_over_the_api_and_by_command(start_server: Callable[..., LiveServer], tmp_path: Path) -> None:
    home = tmp_path / "home"
    model = copy(home / "models" / "org" / "model" / "r1", signed=True)
    mine = copy(home / "models" / "mine")
    copy(home / "models" / ".half.lmx-deleted")
    server = start_server(home)
    ask(server, "/admin/model/load", {"model_id": "org/model"})
    status, body = ask(server, "/admin/model/delete", {"model_id": "org/model"})
    assert (status, body["error"]["code"]) == (409, "model_loaded")
    ask(server, "/admin/model/unload", {"model_id": "org/model"})
    status, body = ask(server, "/admin/model/delete", {"model_id": "org/model", "dry_run": True})
    assert (status, body["deleted"], body["files"], body["shared_with"]) == (200, False, 5, [])
    said = lmx(server, "delete", "org/model", "--dry-run")
    assert said.exit_code == 0
    assert said.stdout.startswith(f"{model}: 5 files, 0 MB would be freed")
    said = lmx(server, "delete", "org/model")
    assert (said.exit_code, said.stderr) == (1, "lmx: nothing was deleted: give --yes where nobody can be asked\n")
    assert model.is_dir()
    said = lmx(server, "delete", "org/model", "--yes")
    assert (said.exit_code, said.stdout.splitlines()[-1]) == (0, "org/model: deleted, 0 MB freed")
    assert not model.parent.exists()
    said = lmx(server, "delete", "mine", "--forget")
    assert said.stdout == "mine: off the list until its files change; nothing was deleted\n"
    assert mine.is_dir()
    assert ask(server, "/admin/models/list")[1] == {"models": []}
    assert not (home / "models" / ".half.lmx-deleted").exists()
    for body, said_status in [({}, 400), ({"model_id": "../.."}, 404), ({"model_id": "mine", "more": 1}, 400)]:
        assert ask(server, "/admin/model/delete", body)[0] == said_status


def test_only_owners_may_delete(start_server: Callable[..., LiveServer]) -> None:
    server = start_server(LMX_SECURITY__API_KEY="client", LMX_SECURITY__ADMIN_KEY="owner")
    for key, said in [("client", 403), ("wrong", 401)]:
        assert ask(server, "/admin/model/delete", {"model_id": "x"}, Authorization=f"Bearer {key}")[0] == said
