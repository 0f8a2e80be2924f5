"""What is kept for a model: judged, stored, in force at once, and still there after whatever happens to its files."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import OperationalError

from inference.errors import InternalError, InvalidRequest, ModelNotFound
from inference.model_settings import ModelSettings
from inference.model_settings_fields import FIELDS
from models_admin.catalog import DiskCatalog
from models_admin.models import ModelRecord, SettingsRecord
from models_admin.settings import SettingsBook
from models_admin.settings_shelf import SettingsShelf
from tests.material import encoder_model, nano_model, place

pytestmark = pytest.mark.django_db(transaction=True)
CONTEXT = 4096


@asynccontextmanager
async def opened(*roots: Path, **options: Any) -> AsyncIterator[tuple[DiskCatalog, SettingsBook]]:
    """A catalog on the disk as it is now; opened again it is that of a server that was started again."""
    configured = SettingsShelf(options.pop("configured", None))
    catalog = DiskCatalog(list(roots), settings=configured, **options)
    try:
        await catalog.refresh()
        yield catalog, SettingsBook(catalog)
    finally:
        catalog.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("one", "two"):
        place(nano_model(), tmp_path / "models" / "org" / name)
    return tmp_path / "models"


async def refused(book: SettingsBook, changes: dict[str, Any], model: str = "org/one") -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        await book.change(model, changes)
    return caught.value


async def test_what_is_set_holds_at_once_and_after_a_restart(root: Path) -> None:
    async with opened(root) as (catalog, book):
        assert catalog.resolve("org/one").settings == ModelSettings()
        view = await book.change("one", {"temperature": 0.2, "pinned": True, "stop": ["END"], "ttl": "never"})
        assert (view.model_id, view.identity, view.changed) == (
            *("org/one", "org/one"),
            ("pinned", "ttl", "temperature", "stop"),
        )
        assert catalog.resolve("org/one").settings == ModelSettings(
            pinned=True, ttl="never", temperature=0.2, stop=("END",)
        )
        assert catalog.resolve("org/two").settings == ModelSettings()
        assert (await book.change("org/one", {"temperature": 0.2})).changed == ()
    async with opened(root) as (catalog, book):
        assert catalog.resolve("org/one").settings.stop == ("END",)
        view = await book.change("org/one", {"stop": None, "ttl": None, "pinned": None, "temperature": None})
        assert view.stored == {}
        assert catalog.resolve("org/one").settings == ModelSettings()
    assert await sync_to_async(SettingsRecord.objects.count)() == 0


async def test_they_outlive_an_unmounted_volume_a_removal_and_a_new_revision(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    snapshots = volume / "models--org--one" / "snapshots"
    snapshots.mkdir(parents=True)
    place(nano_model(), snapshots / "aaa")
    (volume / "models--org--one" / "refs").mkdir()
    (volume / "models--org--one" / "refs" / "main").write_text("aaa")
    async with opened(volume) as (catalog, book):
        await book.change("org/one", {"aliases": ["small"], "context": 256})
        volume.rename(tmp_path / "away")
        await catalog.refresh()
        assert catalog.resolve("small").disk_state == "offline"
        assert catalog.resolve("small").settings.context == 256
        (tmp_path / "away").rename(volume)
        place(nano_model(), snapshots / "bbb")
        (volume / "models--org--one" / "refs" / "main").write_text("bbb")
        await catalog.refresh()
        assert catalog.resolve("small").revision == "bbb"
        assert [ref.settings.context for ref in catalog.all()] == [256, 256]
        shutil.rmtree(volume / "models--org--one")
        await catalog.refresh()
    async with opened(volume) as (catalog, book):
        place(nano_model(), snapshots / "ccc")
        await catalog.refresh()
        assert catalog.resolve("small").settings.context == 256


async def test_aliases_resolve_without_a_restart_and_belong_to_one_model(root: Path) -> None:
    async with opened(root, aliases={"taken": "org/two", "nowhere": "org/three"}) as (catalog, book):
        await book.change("org/one", {"aliases": ["Fast", "qwen"]})
        assert catalog.resolve("fast").id == "org/one"
        assert catalog.resolve_exactly("qwen").id == "org/one"
        assert catalog.resolve("org/one").aliases == ("Fast", "qwen")
        for alias, why in [
            ("FAST", "is a name of org/one"),
            ("org/one", "is the name of org/one"),
            ("Nowhere", "stands in config.yaml for org/three"),
            ("org/TWO", "is the model's own name"),
        ]:
            error = await refused(book, {"aliases": [alias], "temperature": 0}, "org/two")
            assert error.param == "settings.aliases"
            assert why in error.message
        assert catalog.resolve("org/two").settings == ModelSettings()
        await book.change("org/two", {"aliases": ["taken"]})
        await book.change("org/one", {"aliases": ["qwen"]})
        await book.change("org/two", {"aliases": ["fast"]})
        assert (catalog.resolve("fast").id, catalog.resolve("taken").id) == ("org/two", "org/two")


async def test_an_alias_that_two_ask_for_at_once_is_had_by_one(root: Path) -> None:
    async with opened(root) as (catalog, book):
        asked = [book.change(model, {"aliases": ["x"]}) for model in ("org/one", "org/two")]
        ended = await asyncio.gather(*asked, return_exceptions=True)
        assert sorted(type(one).__name__ for one in ended) == ["InvalidRequest", "SettingsView"]
        assert catalog.resolve("x").id == "org/one"


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("context", CONTEXT * 1000, "must be at most"),
        ("context", 0, "from 1 to"),
        ("context", True, "a whole number"),
        ("slots", 1025, "from 1 to 1024"),
        ("ttl", "soon", "or never"),
        ("ttl", float("inf"), "or never"),
        ("temperature", 2.1, "from 0 to 2"),
        ("temperature", float("nan"), "a number"),
        ("top_p", 0, "above 0, up to 1"),
        ("top_k", 1.5, "a whole number"),
        ("seed", 2**63, "from -9223372036854775808"),
        ("stop", ["a", ""], "empty text"),
        ("stop", ["x" * 1001], "at most 1000 characters"),
        ("stop", ["x"] * 17, "at most 16 texts"),
        ("stop", "a", "a list of texts"),
        ("aliases", ["a\nb"], "printable"),
        ("aliases", ["default"], "the default model"),
        ("aliases", [" a"], "printable"),
        ("aliases", ["a" * 257], "at most 256"),
        ("system_prompt", "x" * 65_537, "at most 65536"),
        ("system_prompt", "\ud800", "characters that are none"),
        ("tool_parser", "nope", "must be one of auto, "),
        ("reasoning_parser", 3, "must be one of deepseek_r1, "),
        ("chat_template_kwargs", {"tools": []}, "set by the server"),
        ("chat_template_kwargs", {"enable_thinking": True}, "a setting of its own"),
        ("chat_template_kwargs", [], "must be an object"),
        ("chat_template_kwargs", {"x": "y" * 20_000}, "at most 16384"),
        ("chat_template_kwargs", {"x": float("nan")}, "not JSON"),
        ("kv_bits", 8, "quantized cache has no batch"),
        ("kv_group_size", 64, "is not supported"),
        ("nonsense", 1, "is no setting of a model; those are aliases, "),
        ("nonsense", None, "is no setting of a model"),
    ],
)
async def test_what_cannot_be_is_refused_by_name_and_nothing_is_changed(
    root: Path, name: str, value: Any, why: str
) -> None:
    async with opened(root) as (catalog, book):
        error = await refused(book, {"temperature": 0.5, name: value, "min_p": 7} | {name: value})
        assert error.details["problems"]["min_p"] == "must be from 0 to 1"
        assert why in error.details["problems"][name]
        assert error.param == f"settings.{next(iter(error.details['problems']))}"
        assert catalog.resolve("org/one").settings == ModelSettings()


async def test_what_means_nothing_for_an_embedding_model_is_refused(tmp_path: Path) -> None:
    place(encoder_model(), tmp_path / "models" / "vectors")
    async with opened(tmp_path / "models") as (_, book):
        error = await refused(book, {"temperature": 1}, "vectors")
        assert "means nothing for an embedding model" in error.message
        view = await book.change("vectors", {"pinned": True, "ttl": 60})
        assert "temperature" not in [field["name"] for field in view.fields]


async def test_config_yaml_is_the_baseline(root: Path) -> None:
    configured = {"ORG/one": {"temperature": 0.1, "context": 100, "stop": ["x"]}}
    async with opened(root, configured=configured) as (catalog, book):
        assert catalog.resolve("one").settings == ModelSettings(temperature=0.1, context=100, stop=("x",))
        view = await book.change("one", {"temperature": 0.9})
        assert view.effective["temperature"] == 0.9
        assert view.effective["context"] == 100
        sources = {field["name"]: field["source"] for field in view.fields}
        assert (sources["temperature"], sources["context"], sources["top_p"]) == ("model", "config", "default")
        await book.change("one", {"temperature": None})
        assert catalog.resolve("one").settings.temperature == 0.1


async def test_settings_of_a_model_that_is_gone_can_only_be_put_back(root: Path) -> None:
    async with opened(root) as (_, book):
        await book.change("org/one", {"aliases": ["x"], "pinned": True})
    shutil.rmtree(root / "org" / "one")
    await sync_to_async(ModelRecord.objects.all().delete)()
    async with opened(root) as (catalog, book):
        with pytest.raises(ModelNotFound):
            catalog.resolve("x")
        with pytest.raises(ModelNotFound):
            await book.change("org/three", {"pinned": True})
        await book.change("org/two", {"aliases": ["x"]})
        assert book.show("ORG/one").present is False
        assert "there is no such model here any more" in (await refused(book, {"slots": 1})).message
        assert (await book.change("org/one", {"aliases": None, "pinned": None})).stored == {}


async def test_what_another_version_wrote_is_not_used(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    values = {"temperature": "hot", "slots": 2, "future": [1], "stop": "x", "aliases": [3]}
    await sync_to_async(SettingsRecord.objects.create)(identity="org/one", name="org/one", values=values)
    await sync_to_async(SettingsRecord.objects.create)(identity="org/two", name="org/two", values=[1])
    async with opened(root) as (catalog, book):
        assert catalog.resolve("org/one").settings == ModelSettings(slots=2)
        assert catalog.resolve("org/two").settings == ModelSettings()
        assert "the setting temperature of org/one is not used: it must be a number" in caplog.text
        assert (await book.change("org/one", {"slots": 3})).stored == {"slots": 3}
    record = await sync_to_async(SettingsRecord.objects.get)(identity="org/one")
    assert record.values == {**values, "slots": 3}


async def test_far_too_many_are_not_looked_at(root: Path) -> None:
    async with opened(root) as (_, book):
        error = await refused(book, {f"n{number}": 1 for number in range(100_000)})
        assert (error.param, len(error.message) < 100) == ("settings", True)


async def test_a_database_that_cannot_be_written_changes_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(**named: object) -> None:
        raise OperationalError("disk I/O error")

    async with opened(root) as (catalog, book):
        await book.change("org/one", {"slots": 2})
        with monkeypatch.context() as patched:
            patched.setattr(SettingsRecord.objects, "update_or_create", fails)
            with pytest.raises(InternalError, match="disk I/O error"):
                await book.change("org/one", {"slots": 3})
        assert catalog.resolve("org/one").settings.slots == 2
        assert (await book.change("org/one", {"temperature": 0})).stored == {"slots": 2, "temperature": 0.0}


async def test_whoever_leaves_meanwhile_leaves_nothing_half_done(root: Path) -> None:
    async with opened(root) as (catalog, book):
        gate = asyncio.Event()
        waiting = SettingsBook(catalog, applied=gate.wait)  # type: ignore[arg-type]
        task = asyncio.create_task(waiting.change("org/one", {"slots": 5}))
        while catalog.resolve("org/one").settings.slots != 5:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        gate.set()
        assert book.show("org/one").stored == {"slots": 5}


def test_every_setting_has_its_field() -> None:
    assert {one.name for one in fields(ModelSettings)} == set(FIELDS)
