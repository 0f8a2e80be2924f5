"""The disk ledger: real files, counted as the disk counts them."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from inference.catalog import ModelRef
from inference.engine.prefix_disk import PrefixDisk
from inference.models_on_disk import DiskUse, Use
from models_admin import disk_keeper, disk_ledger
from models_admin.disk_ledger import Own, look
from tests.live.process import LiveServer
from tests.material.hub import BIG, COMMIT, MIB, REPO, Hub
from tests.models_admin.site import WEIGHTS, ask, copy, lmx, site_on
from tests.models_admin.test_delete import allocated

pytestmark = pytest.mark.django_db(transaction=True)


def others(found: DiskUse) -> dict[str, Use]:
    return {Path(use.path).name: use for use in found.others}


async def test_models_by_root_with_shared_files_once(tmp_path: Path) -> None:
    first = copy(tmp_path / "models" / "org" / "model" / "r1", signed=True)
    shutil.copytree(first, tmp_path / "models" / "twin", copy_function=os.link)
    hub = tmp_path / "hub" / "models--org--cached"
    copy(hub / "blobs")
    (hub / "snapshots" / "aaaa").mkdir(parents=True)
    for blob in (hub / "blobs").iterdir():
        (hub / "snapshots" / "aaaa" / blob.name).symlink_to(Path("../../blobs") / blob.name)
    async with site_on(tmp_path / "models", tmp_path / "hub", tmp_path / "away") as site:
        found = await site.keeper.disk()
    ours, cache, away = found.roots
    assert (ours.owner, cache.owner, away.owner, away.present) == ("lmx", "huggingface-cache", "other", False)
    assert ours.bytes == allocated(first), "hard links are counted once"
    assert {use.name: use.bytes for use in ours.models} == dict.fromkeys(("org/model", "twin"), allocated(first))
    [cached] = cache.models
    assert (cached.name, cached.bytes) == ("org/cached", allocated(hub / "blobs")), "where its files really are"
    assert away.models == ()


def test_a_folder_of_lm_studio_may_have_any_name(tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    model = ModelRef(id="org/model", path=copy(folder / "org" / "model"), source="lmstudio")
    [root] = look(Own([tmp_path / "models"], tmp_path / "prefix", {}), [folder], [model], lambda repo: False).roots
    assert (root.owner, [use.name for use in root.models]) == ("lmstudio", ["org/model"])


def test_a_directory_whose_name_no_disk_can_hold_hides_no_other(tmp_path: Path) -> None:
    bad, model = Path("/" + "x" * 5000), copy(tmp_path / "models" / "mine")
    listed = [ModelRef(id="mine", path=model), ModelRef(id="bad", path=bad / "org" / "model")]
    found = look(
        Own([tmp_path / "models"], bad, {"logs": [bad]}), [bad, tmp_path / "models"], listed, lambda repo: False
    )
    assert [(root.present, [use.name for use in root.models]) for root in found.roots] == [
        (False, []),
        (True, ["mine"]),
    ]


async def test_an_unfinished_download_is_reclaimable_once_nobody_goes_on(tmp_path: Path, hub: Hub) -> None:
    async with site_on(tmp_path / "models") as site:
        hub.hold(BIG, 2 * MIB)
        started = await site.fetcher.start(REPO)
        part = site.models / REPO / f".{COMMIT}.partial" / f"{BIG}.part"
        async with asyncio.timeout(60):
            while not part.exists() or part.stat().st_size < MIB:
                await asyncio.sleep(0.01)
        [running] = (await site.keeper.disk()).others
        assert (running.kind, running.name, running.reclaimable) == ("partial", f"{REPO}@{COMMIT}", 0)
        await site.fetcher.cancel(started.job)
        [left] = (await site.keeper.disk()).others
        assert left.reclaimable == left.bytes == allocated(part.parent)
        assert "goes on when" in left.why


async def test_what_cut_off_work_has_left(tmp_path: Path) -> None:
    model = copy(tmp_path / "models" / "org" / "model" / COMMIT, signed=True)
    shutil.copytree(model, model.with_name(f".{COMMIT}.replaced"), copy_function=os.link)
    copy(tmp_path / "models" / "org" / "model" / ".r0.lmx-deleted")
    (tmp_path / "models" / "org" / "model" / f".{COMMIT}.partial").symlink_to(tmp_path)
    async with site_on(tmp_path / "models") as site:
        found = others(await site.keeper.disk())
    assert set(found) == {f".{COMMIT}.replaced", ".r0.lmx-deleted"}
    assert {use.kind for use in found.values()} == {"leftover"}
    assert found[f".{COMMIT}.replaced"].reclaimable == 0, "its files are the model's too"
    assert found[".r0.lmx-deleted"].reclaimable == allocated(model.with_name(".r0.lmx-deleted"))


def test_prefix_caches_and_other_places(tmp_path: Path) -> None:
    prefix = tmp_path / "prefix"
    names = {name: PrefixDisk(prefix, 0).directory(name).name for name in ("here", "away", "gone")}
    for folder in (*names.values(), "no-cache"):
        (prefix / folder).mkdir(parents=True)
        (prefix / folder / "entry").write_bytes(b"x" * 5000)
    (tmp_path / "server.log").write_bytes(b"x" * 9000)
    own = Own(
        [], prefix, {"logs": [tmp_path / "server.log", tmp_path / "server.log.1"], "hub_cache": [tmp_path / "no"]}
    )
    models = [
        ModelRef("here", tmp_path / "here"),
        ModelRef("away", tmp_path / "away", disk_state="offline"),
        ModelRef("gone", tmp_path / "gone", disk_state="absent"),
    ]
    found = look(own, [], models, lambda repo: False)
    uses = others(found)
    assert set(uses) == {*names.values(), "server.log"}
    assert [uses[names[name]].reclaimable > 0 for name in names] == [False, False, True]
    assert uses[names["here"]].name == "here"
    assert uses["server.log"].bytes >= 9000
    [volume] = found.volumes
    assert volume.places == (str(prefix), str(tmp_path / "server.log"))
    assert 0 < volume.free_bytes <= volume.total_bytes
    assert os.path.ismount(volume.path)


async def test_callers_share_one_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []

    def counted(*args: object, **more: object) -> DiskUse:
        looks.append(1)
        return disk_ledger.look(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(disk_keeper, "look", counted)
    async with site_on(tmp_path / "models") as site:
        one, two = await asyncio.gather(site.keeper.disk(), site.keeper.disk())
        assert one is two
        await site.keeper.disk()
    assert len(looks) == 2


def test_over_the_api_and_by_command(start_server: Callable[..., LiveServer], tmp_path: Path) -> None:
    home = tmp_path / "home"
    model = copy(home / "models" / "org" / "model" / "r1", signed=True)
    left = model.with_name(f".{COMMIT}.partial")
    left.mkdir()
    (left / f"{WEIGHTS}.part").write_bytes(b"x" * 3 * MIB)
    hub = tmp_path / "hf"
    (hub / "hub").mkdir(parents=True)
    (hub / "hub" / "blob").write_bytes(b"x" * 5000)
    server = start_server(home, HF_HOME=str(hub))
    status, said = ask(server, "/admin/disk")
    assert status == 200
    [root] = said["roots"]
    assert (root["path"], root["owner"], root["present"]) == (str(home / "models"), "lmx", True)
    assert [use["name"] for use in root["models"]] == ["org/model"]
    kinds = {use["kind"] for use in said["others"]}
    assert kinds == {"partial", "history", "inventory", "responses", "logs", "hub_cache"}
    assert said["bytes"]["model"] == root["models"][0]["bytes"] == allocated(model)
    assert said["reclaimable_bytes"] == said["reclaimable"][0]["reclaimable"] == allocated(left)
    assert said["volumes"][0]["free_bytes"] > 0
    shown = lmx(server, "disk")
    assert shown.exit_code == 0, shown.output
    assert "org/model" in shown.stdout
    assert f"could be deleted: {left}, 3 MB: a download that nobody goes on with" in shown.stdout


def test_only_owners_may_look(start_server: Callable[..., LiveServer]) -> None:
    server = start_server(LMX_SECURITY__API_KEY="client", LMX_SECURITY__ADMIN_KEY="owner")
    for key, said in [("client", 403), ("wrong", 401)]:
        assert ask(server, "/admin/disk", Authorization=f"Bearer {key}")[0] == said
