"""Deleting the right one: by whole names, by directories, and with what came before."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from inference.engine.engine import WorkerEngine
from inference.engine.runs import ModelRun
from inference.engine.settings import EngineSettings
from inference.errors import Conflict, ModelNotFound
from inference.records import RequestRecord
from models_admin.catalog import DiskCatalog
from models_admin.names import Names, Placed
from monitoring.readings import open_reader
from tests.models_admin.site import WEIGHTS, Board, Site, copy, site_on
from tests.models_admin.test_names import ref

pytestmark = pytest.mark.django_db(transaction=True)


class Records:
    """Wants none."""

    def put(self, record: RequestRecord) -> None:
        pass


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    """With two revisions of ``org/model``."""
    for revision in ("abcd", "abce"):
        copy(tmp_path / "models" / "org" / "model" / revision, signed=True)
    async with site_on(tmp_path / "models") as found:
        yield found


@pytest.mark.parametrize("name", [" ", "default", "local-model", "model", "org/model@a", "org/model:latest"])
@pytest.mark.parametrize("forget", [False, True])
async def test_no_name_is_guessed(site: Site, name: str, forget: bool) -> None:
    site.catalog.default_model = "org/model"
    site.catalog._names = site.catalog._named((site.catalog._rows or {}).values())
    assert site.catalog.resolve(name).path.is_dir(), "for loading it will do"
    with pytest.raises(ModelNotFound, match="not the whole name"):
        await site.keeper.delete(name, forget=forget)
    assert len(site.catalog.all()) == 2


def test_what_is_a_whole_name() -> None:
    four, eight = ref("o/M-4bit", quantization="4bit"), ref("o/M-8bit", quantization="8bit")
    aliases = {"mine": "o/M-4bit", "again": "mine", "loose": "m-4bit", "default": "o/M-4bit"}
    index = Names([Placed(four), Placed(eight)], aliases, None)
    for name in ("o/M-4bit", "O/m-4BIT", "mine", "AGAIN", " mine "):
        assert index.resolve_exactly(name).id == "o/M-4bit"
    for name in ("o/M-4bit:8bit", "m-4bit", "loose", "default", "nobody"):
        with pytest.raises(ModelNotFound):
            index.resolve_exactly(name)
    twins = Names([Placed(ref("o/Model")), Placed(ref("o/model"))], {}, None)
    with pytest.raises(ModelNotFound, match="fits 2 models"):
        twins.resolve_exactly("O/MODEL")


def test_a_key_of_lm_studio_is_a_whole_name_where_one_model_has_it() -> None:
    one, two = (replace(ref(repo), source="lmstudio") for repo in ("org/One-4bit", "org/Two-4bit"))
    keys = {"org/one-4bit": ("one",), "org/two-4bit": ("two",)}
    index = Names([Placed(one), Placed(two), Placed(ref("org/Two-4bit"))], {}, None, keys)
    assert index.resolve_exactly("ONE").id == "org/One-4bit"
    with pytest.raises(ModelNotFound, match="fits 2 models"):
        index.resolve_exactly("two")


async def test_what_was_shown_is_what_is_deleted(site: Site) -> None:
    plan = await site.keeper.delete("org/model", dry_run=True)
    other = next(one.path for one in site.catalog.all() if str(one.path) != plan.path)
    with pytest.raises(Conflict, match="another model now") as refused:
        await site.keeper.delete("org/model", path=str(other))
    assert (refused.value.code, refused.value.details) == ("model_changed", {"path": plan.path})
    assert (await site.keeper.delete("org/model", path=plan.path)).deleted
    assert (other / WEIGHTS).is_file()


async def test_what_runs_is_known_by_its_directory(site: Site, tmp_path: Path) -> None:
    (tmp_path / "way").symlink_to(site.models)
    runs = site.catalog.resolve_exactly("org/model").path
    site.run_states[tmp_path / "way" / runs.relative_to(site.models)] = "ready"
    site.run_states[tmp_path / "gone"] = "ready"
    with pytest.raises(Conflict, match="is in memory: unload it"):
        await site.keeper.delete("org/model")


async def test_our_directory_by_another_name(site: Site, tmp_path: Path) -> None:
    """As on a disk that does not tell cases apart."""
    (tmp_path / "Models").symlink_to(site.models)
    site.keeper._remover._own = [tmp_path / "Models"]
    assert (await site.keeper.delete("org/model")).deleted


async def test_a_run_keeps_its_directory_when_its_id_moves(tmp_path: Path) -> None:
    settings = EngineSettings(run_dir=tmp_path)
    engine = WorkerEngine(settings, DiskCatalog([]), open_reader(), records=Records(), events=Board())
    run = ModelRun(replace(ref("org/model", "aaaa"), id="org/model"))
    engine._supervisor.runs["org/model"] = run
    assert engine.directories() == []
    run.state = "ready"
    assert engine.directories() == [(run.ref.path, "ready")]


async def test_what_a_backup_restores_is_there_again(site: Site, tmp_path: Path) -> None:
    """With the same times, so that nothing tells it from what was deleted."""
    model = site.catalog.resolve_exactly("org/model").path
    shutil.copytree(model, tmp_path / "backup")
    await site.keeper.delete("org/model")
    shutil.copytree(tmp_path / "backup", model)
    await site.catalog.refresh()
    assert model in [one.path for one in site.catalog.all()]
