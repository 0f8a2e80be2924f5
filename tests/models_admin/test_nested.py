"""Models in the directories of others: a stray file makes a folder of many models look like one."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference.errors import Conflict
from models_admin.nested import models_below
from tests.material.hub import BIG, COMMIT, MIB, REPO, Hub
from tests.models_admin.site import WEIGHTS, Site, copy, site_on

pytestmark = pytest.mark.django_db(transaction=True)


async def refused(site: Site, model: str) -> str:
    codes = set()
    for dry_run in (True, False):
        with pytest.raises(Conflict) as refusal:
            await site.keeper.delete(model, dry_run=dry_run)
        codes.add(refusal.value.code)
    [code] = codes
    return code


@pytest.mark.parametrize("late", [True, False])
async def test_a_folder_of_models_is_not_deleted_for_a_stray_file(tmp_path: Path, late: bool) -> None:
    org = tmp_path / "models" / "org"
    model = copy(org / "model" / COMMIT, signed=True)
    if not late:
        (org / "stray.safetensors").write_bytes(b"x" * 1000)
    async with site_on(tmp_path / "models") as site:
        (org / "stray.safetensors").write_bytes(b"x" * 1000)
        await site.catalog.refresh()
        assert await refused(site, "org") == "model_shared"
        site.run_states[model] = "ready"
        assert await refused(site, "org") == "model_loaded"
        site.run_states.clear()
        for kind in ("fetch", "verify"):
            with site.busy.work("Org/Other", kind):
                assert await refused(site, "org") == "model_busy"
        with site.busy.work("org", "delete"), pytest.raises(Conflict, match="org is being deleted"):
            site.busy.check("Org/New", "fetch")
    assert (model / WEIGHTS).is_file()


async def test_unsigned_models_and_cut_off_downloads_below_are_seen(tmp_path: Path) -> None:
    org = tmp_path / "models" / "org"
    plain = copy(org / "plain")
    (org / "config.json").write_text("{}")
    async with site_on(tmp_path / "models") as site:
        assert await refused(site, "org") == "model_shared"
        part = org / "other" / f".{COMMIT}.partial"
        part.mkdir(parents=True)
        assert await refused(site, "org") == "model_busy"
    assert plain.is_dir()
    assert part.is_dir()


async def test_a_paused_download_below_keeps_its_place(tmp_path: Path, hub: Hub) -> None:
    async with site_on(tmp_path / "models") as site:
        hub.hold(BIG, MIB)
        job = (await site.fetcher.start(REPO)).job
        org = site.models / REPO.split("/")[0]
        (org / "stray.safetensors").write_bytes(b"x")
        await site.catalog.refresh()
        assert await refused(site, org.name) == "model_busy"
        await site.fetcher.pause(job)
        assert await refused(site, org.name) == "model_busy"
        assert (site.models / REPO / f".{COMMIT}.partial").is_dir()


async def test_a_models_own_folders_are_no_models(tmp_path: Path) -> None:
    model = copy(tmp_path / "models" / "org" / "model")
    copy(model / "2_Dense")
    async with site_on(tmp_path / "models") as site:
        assert models_below(model, {}) == []
        assert (await site.keeper.delete("org/model")).deleted


async def test_nothing_is_fetched_below_a_root_that_is_a_model(tmp_path: Path, hub: Hub) -> None:
    async with site_on(copy(tmp_path / "models")) as site:
        with pytest.raises(Conflict, match="is a model itself"):
            await site.fetcher.start(REPO)
        assert not (site.models / REPO).exists()


@pytest.mark.parametrize("taken", ["", "name"])
async def test_nothing_is_fetched_into_the_directory_of_a_model(tmp_path: Path, hub: Hub, taken: str) -> None:
    org, name = REPO.split("/")
    place = tmp_path / "models" / org / (taken and name)
    copy(place)
    async with site_on(tmp_path / "models") as site:
        with pytest.raises(Conflict, match="is a model itself") as refusal:
            await site.fetcher.start(REPO)
        assert (refusal.value.code, refusal.value.details["path"]) == ("name_taken", str(place))
        assert not [path for path in place.rglob("*") if path.is_dir() and COMMIT in path.name]
        assert (await site.keeper.delete(place.relative_to(site.models).as_posix())).deleted
        assert (await site.fetch(REPO)).state == "done"
