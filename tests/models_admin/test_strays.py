"""What the ledger finds beside the models: orphans, models off the list, duplicates, quotas."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from inference.errors import InsufficientStorage
from models_admin import duplicates as duplicates_module
from models_admin.orphans import orphans
from models_admin.quota import ModelsQuota
from tests.live.process import LiveServer
from tests.material.hub import REPO, Hub
from tests.models_admin.site import WEIGHTS, ask, copy, lmx, site_on

pytestmark = pytest.mark.django_db(transaction=True)


def test_files_that_no_model_has(tmp_path: Path) -> None:
    model = copy(tmp_path / "org" / "model")
    (tmp_path / "org" / "notes.txt").write_bytes(b"x" * 5000)
    (tmp_path / "gguf" / "deep").mkdir(parents=True)
    (tmp_path / "gguf" / "deep" / "x.gguf").write_bytes(b"x" * 9000)
    (tmp_path / "empty" / "er").mkdir(parents=True)
    (tmp_path / "link").symlink_to("/usr")
    (tmp_path / "org" / "model-2" / f".{'0' * 40}.partial").mkdir(parents=True)
    (tmp_path / "org" / "model-2" / f".{'0' * 40}.partial" / "part").write_bytes(b"x" * 5000)
    (tmp_path / ".DS_Store").write_bytes(b"x" * 5000)
    found = orphans(tmp_path, [model, tmp_path / "org" / "model-2" / "here"])
    assert [use.path for use in found] == [str(tmp_path / "gguf"), str(tmp_path / "org" / "notes.txt")]
    assert all(use.reclaimable == 0 and use.why for use in found)
    assert orphans(tmp_path / "nothing", []) == []


def test_blobs_that_no_revision_names(tmp_path: Path) -> None:
    repository = tmp_path / "models--org--cached"
    (repository / "blobs").mkdir(parents=True)
    snapshot = repository / "snapshots" / "aaaa"
    snapshot.mkdir(parents=True)
    for name in ("used", "old"):
        (repository / "blobs" / name).write_bytes(b"x" * 5000)
    (snapshot / "config.json").symlink_to("../../blobs/used")
    [blob] = orphans(tmp_path, [snapshot])
    assert (Path(blob.path).name, "prune" in blob.why) == ("old", True)


async def test_a_model_off_the_list_is_told_apart(tmp_path: Path) -> None:
    copy(tmp_path / "models" / "mine")
    async with site_on(tmp_path / "models") as site:
        await site.keeper.delete("mine", forget=True)
        [use] = (await site.keeper.disk()).others
        assert (use.kind, use.name, use.reclaimable) == ("hidden_model", "mine", 0)


async def test_the_same_content_in_two_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates_module, "SMALLEST", 1000)
    first = copy(tmp_path / "models" / "org" / "model" / "r1", signed=True)
    copy(tmp_path / "other" / "renamed")
    shutil.copytree(first, tmp_path / "models" / "linked", copy_function=os.link)
    (tmp_path / "models" / "linked" / "lmx-manifest.json").unlink()
    async with site_on(tmp_path / "models", tmp_path / "other") as site:
        assert (await site.keeper.disk()).duplicates == (), "nobody has read them yet"
        await site.verify("renamed")
        [twice] = (await site.keeper.disk()).duplicates
        assert (twice.models, twice.why) == (("org/model", "renamed"), "content")
        assert twice.bytes >= (first / WEIGHTS).stat().st_size
        await site.verify("linked")
        [thrice] = (await site.keeper.disk()).duplicates
        assert thrice.models == ("linked", "org/model", "renamed")
        assert thrice.bytes == twice.bytes, "a hard link saves nothing"


async def test_one_revision_in_two_roots(tmp_path: Path) -> None:
    ours = copy(tmp_path / "models" / "org" / "model")
    copy(tmp_path / "other" / "org" / "model")
    async with site_on(tmp_path / "models", tmp_path / "other") as site:
        [twice] = (await site.keeper.disk()).duplicates
        assert (twice.why, set(twice.paths)) == (
            "revision",
            {str(ours), str(tmp_path / "other" / "org" / "model")},
        )
        assert twice.bytes >= (ours / WEIGHTS).stat().st_size


async def test_a_download_over_the_quota_is_refused_and_leaves_nothing_running(tmp_path: Path, hub: Hub) -> None:
    copy(tmp_path / "models" / "mine")
    async with site_on(tmp_path / "models") as site:
        used = sum(ref.total_bytes for ref in site.catalog.all())
        quota = site.fetcher._quota = ModelsQuota(used + 1000, [site.models], site.catalog.all)
        assert quota.used() == used
        with pytest.raises(InsufficientStorage, match=r"disk\.models_gb") as caught:
            await site.fetch(REPO)
        assert caught.value.code == "quota_exceeded"
        [job] = await site.fetcher.jobs()
        assert job.state == "paused", "it is resumed when there is room"
        quota.limit = 1 << 40
        assert (await site.fetch(REPO)).state == "done"


def test_quotas_over_the_api_and_by_command(start_server: Callable[..., LiveServer], tmp_path: Path) -> None:
    home = tmp_path / "home"
    copy(home / "models" / "mine")
    server = start_server(home, LMX_DISK__MODELS_GB="0.0001", LMX_CACHE__DISK_GB="3")
    quotas = {quota["kind"]: quota for quota in ask(server, "/admin/disk")[1]["quotas"]}
    assert quotas["models"]["limit_bytes"] == int(0.0001 * 1024**3) < quotas["models"]["used_bytes"]
    assert quotas["prefix_cache"]["limit_bytes"] == 3 * 1024**3
    assert "over its limit: models" in lmx(server, "disk").stdout
