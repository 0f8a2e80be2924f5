"""Models that were taken off the list come back to it; what is told of a model's files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from inference.errors import Conflict, ModelNotFound
from models_admin.manifest import sha256_file
from tests.live.process import LiveServer
from tests.models_admin.site import WEIGHTS, ask, copy, lmx, rot, site_on

pytestmark = pytest.mark.django_db(transaction=True)


async def test_a_hidden_model_comes_back_also_after_a_restart(tmp_path: Path) -> None:
    models = tmp_path / "models"
    copy(models / "org" / "model" / "r1", signed=True)
    copy(models / "mine")
    async with site_on(models) as site:
        await site.keeper.delete("org/model", forget=True)
        assert [ref.id for ref in site.catalog.all()] == ["mine"]
    async with site_on(models) as site:
        [hidden] = site.keeper.hidden()
        assert (hidden.name, hidden.path) == ("org/model@r1", str(models / "org" / "model" / "r1"))
        assert (await site.keeper.restore("ORG/model")).id == "org/model"
        assert site.keeper.hidden() == []
        with pytest.raises(ModelNotFound, match="None was taken off"):
            await site.keeper.restore("org/model@r1")
    async with site_on(models) as site:
        assert [ref.id for ref in site.catalog.all()] == ["mine", "org/model"]


async def test_two_of_one_name_are_told_apart_by_path(tmp_path: Path) -> None:
    paths = [copy(tmp_path / root / "org" / "model") for root in ("models", "other")]
    async with site_on(tmp_path / "models", tmp_path / "other") as site:
        for _ in paths:
            await site.keeper.delete("org/model", forget=True)
        with pytest.raises(Conflict, match="say which with path") as caught:
            await site.keeper.restore("org/model")
        assert caught.value.details["paths"] == sorted(map(str, paths))
        back = await site.keeper.restore("org/model", path=str(paths[1]))
        assert back.path == paths[1]
        with pytest.raises(ModelNotFound, match="Off the list are: 'org/model'"):
            await site.keeper.restore("../org/model")


async def test_one_on_a_volume_that_is_away_is_forgotten_and_stays_so(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    copy(volume / "away")
    async with site_on(tmp_path / "models", volume) as site:
        volume.rename(tmp_path / "elsewhere")
        await site.catalog.refresh()
        assert site.catalog.resolve("away").disk_state == "offline"
        await site.keeper.delete("away", forget=True)
        assert [hidden.disk_state for hidden in site.keeper.hidden()] == ["offline"]
        assert site.catalog.all() == []
        (tmp_path / "elsewhere").rename(volume)
        await site.catalog.refresh()
        assert site.catalog.all() == []
        assert (await site.keeper.restore("away")).disk_state == "adopted"


async def test_what_was_deleted_is_not_to_be_brought_back(tmp_path: Path) -> None:
    copy(tmp_path / "models" / "mine")
    async with site_on(tmp_path / "models") as site:
        await site.keeper.delete("mine")
        assert site.keeper.hidden() == []
        with pytest.raises(ModelNotFound):
            await site.keeper.restore("mine")


async def test_files_with_what_they_should_be_and_what_they_are(tmp_path: Path) -> None:
    model = copy(tmp_path / "models" / "org" / "model" / "r1", signed=True)
    (model / "extra").mkdir()
    (model / "extra" / "notes.json").write_text("{}")
    published = sha256_file(model / WEIGHTS)
    rot(model / WEIGHTS)
    async with site_on(tmp_path / "models") as site:
        before = {file.name: file for file in await site.keeper.files(model)}
        assert "extra/notes.json" in before
        assert before["extra/notes.json"].sound is None
        await site.verify("org/model")
        after = {file.name: file for file in await site.keeper.files(model)}
    weights = after[WEIGHTS]
    assert (weights.expected, weights.actual) == (published, sha256_file(model / WEIGHTS))
    assert (weights.sound, weights.basis) == (False, "published")
    assert after["extra/notes.json"].basis == "first sight"
    assert after["config.json"].sound is True
    assert await site.keeper.files(tmp_path) == []


def test_over_the_api_and_by_command(start_server: Callable[..., LiveServer], tmp_path: Path) -> None:
    home = tmp_path / "home"
    copy(home / "models" / "mine")
    server = start_server(home)
    assert lmx(server, "restore").stdout == "no model was taken off the list\n"
    assert lmx(server, "delete", "--forget", "mine").exit_code == 0
    status, said = ask(server, "/admin/models/hidden")
    assert (status, [model["name"] for model in said["models"]]) == (200, ["mine"])
    assert "mine" in lmx(server, "restore").stdout
    assert ask(server, "/admin/model/restore", {"model_id": "other"})[1]["error"]["code"] == "model_not_found"
    assert ask(server, "/admin/model/restore", {"model_id": "mine", "why": 1})[0] == 400
    assert lmx(server, "restore", "mine").stdout == "mine: on the list again\n"
    status, said = ask(server, "/admin/model/files?model_id=mine")
    assert (status, said["model_id"]) == (200, "mine")
    assert {file["name"] for file in said["files"]} >= {"config.json", WEIGHTS}
    assert ask(server, "/admin/model/files?model_id=nothing")[0] == 404
