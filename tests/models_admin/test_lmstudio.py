"""LM Studio's models where they are, under the names that its clients use."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from inference.errors import ModelNotFound
from lmx_site.config import Config
from lmx_site.home import places
from models_admin import lmstudio, scan
from models_admin.catalog import DiskCatalog
from tests.material import nano_model, place
from tests.material.studio import Studio, new_home

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's home: not the real one, without a Hugging Face cache."""
    return new_home(tmp_path / "user", monkeypatch)


@pytest.fixture
def studio(user: Path) -> Studio:
    return Studio(user)


@asynccontextmanager
async def started(home: Path, **aliases: str) -> AsyncIterator[DiskCatalog]:
    """The catalog as the server makes it."""
    catalog = DiskCatalog(places(Config(), home).roots, aliases=aliases, studio=lmstudio.find_home())
    try:
        await catalog.refresh()
        yield catalog
    finally:
        catalog.close()


def ids(catalog: DiskCatalog) -> dict[str, str]:
    return {ref.id: ref.disk_state for ref in catalog.all()}


class TestAdoption:
    async def test_all_its_folders_and_the_older_one(self, studio: Studio, user: Path, home: Path) -> None:
        elsewhere = user / "Volumes" / "big"
        studio.settings(downloadsFolder=str(elsewhere))
        studio.model("org/new", elsewhere)
        studio.model("org/usual")
        place(nano_model(), user / ".cache" / "lm-studio" / "models" / "org" / "old")
        async with started(home) as catalog:
            assert {ref.id: ref.source for ref in catalog.all()} == {
                "org/new": "lmstudio", "org/usual": "lmstudio", "org/old": "lmstudio",
            }  # fmt: skip
            assert catalog.resolve("org/new").path == elsewhere / "org" / "new"
            studio.model("org/later")
            shutil.rmtree(studio.home / "models" / "org" / "usual")
            await catalog.refresh()
            assert ids(catalog)["org/later"] == "adopted"
            assert ids(catalog)["org/usual"] == "absent"

    async def test_a_volume_that_is_away_at_the_start_keeps_its_models_and_their_names(
        self, studio: Studio, user: Path, home: Path
    ) -> None:
        volume = user / "Volumes" / "big"
        studio.settings(downloadsFolder=str(volume / "models"))
        studio.model("mlx-community/Qwen3-4B-4bit", volume / "models")
        studio.model("other/Qwen3-4B-8bit")
        async with started(home) as catalog:
            assert catalog.resolve("qwen3-4b").id == "mlx-community/Qwen3-4B-4bit"
        volume.rename(user / "away")
        async with started(home, fast="mlx-community/Qwen3-4B-4bit") as catalog:
            assert catalog.resolve("fast").disk_state == "offline"
            assert catalog.resolve("qwen3-4b").id == "mlx-community/Qwen3-4B-4bit"
            (user / "away").rename(volume)
            await catalog.refresh()
            assert catalog.resolve("fast").disk_state == "adopted"

    async def test_a_models_folder_that_is_a_link_to_a_volume(self, studio: Studio, user: Path, home: Path) -> None:
        volume = user / "Volumes" / "big"
        studio.model("org/m", volume)
        (studio.home / "models").symlink_to(volume)
        async with started(home) as catalog:
            assert ids(catalog) == {"org/m": "adopted"}
            assert catalog.resolve("m").problem is None
        volume.rename(user / "away")
        async with started(home) as catalog:
            assert ids(catalog) == {"org/m": "offline"}

    async def test_a_volume_that_goes_while_it_is_read(
        self, studio: Studio, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        studio.model("org/m")
        async with started(home) as catalog:

            def gone(*_: object) -> list[object]:
                (studio.home / "models").rename(studio.home / "away")
                return []

            with monkeypatch.context() as patch:
                patch.setattr(scan, "_walk", gone)
                patch.setattr(scan, "_is_there", lambda root: root.is_dir())
                await catalog.refresh()
            assert ids(catalog)["org/m"] == "offline"

    async def test_a_directory_that_cannot_be_read_takes_no_model_away(
        self, studio: Studio, user: Path, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        models = [studio.model("org/one"), studio.model("org/two"), studio.model("other/three")]
        snapshot = user / ".cache" / "huggingface" / "hub" / "models--org--four" / "snapshots" / "aaaa"
        place(nano_model(), snapshot)
        look = os.scandir
        broken = {str(models[0].parent): errno.EIO, str(models[2]): errno.EACCES, str(snapshot): errno.ESTALE}

        def disk(path: str | Path) -> object:
            if (number := broken.get(str(path))) is not None:
                raise OSError(number, os.strerror(number))
            return look(path)

        async with started(home) as catalog:
            before = ids(catalog)
            with monkeypatch.context() as patch:
                patch.setattr(os, "scandir", disk)
                await catalog.refresh()
                assert set(ids(catalog).values()) == {"offline"}
                assert set(ids(catalog)) == set(before)
                broken[str(models[0].parent)] = errno.ENOENT
                await catalog.refresh()
                assert ids(catalog)["other/three"] == "offline"
                assert ids(catalog)["org/one"] == "absent"
            await catalog.refresh()
            assert ids(catalog) == before

    async def test_a_root_that_cannot_be_asked_for(self, home: Path) -> None:
        root = home / ("x" * 300)  # the system refuses the very question
        catalog = DiskCatalog([root])
        await catalog.refresh()
        assert catalog.all() == []
        catalog.close()

    async def test_a_directory_that_turns_out_to_be_lm_studios(self, studio: Studio, user: Path, home: Path) -> None:
        folder = user / "big"
        studio.model("org/Chat-4bit", folder)
        catalog = DiskCatalog([folder])
        await catalog.refresh()
        assert catalog.resolve("org/Chat-4bit").source == "local"
        catalog.close()
        studio.settings(downloadsFolder=str(folder))
        for _ in range(2):  # the second time from its record
            async with started(home) as again:
                assert again.resolve("chat").source == "lmstudio"

    async def test_the_hub_cache_with_a_link_out_of_it(self, user: Path, home: Path) -> None:
        hub = user / ".cache" / "huggingface" / "hub"
        for name in ("in", "out"):
            snapshot = hub / f"models--org--{name}" / "snapshots" / "aaaa"
            snapshot.mkdir(parents=True)
            blobs = place(nano_model(), (hub / "models--org--in" if name == "in" else user) / "blobs")
            for blob in blobs.iterdir():
                (snapshot / blob.name).symlink_to(blob)
        async with started(home) as catalog:
            assert catalog.resolve("org/in").problem is None
            assert "outside" in (catalog.resolve("org/out").problem or "")

    def test_the_pointer_file_names_the_home(self, user: Path) -> None:
        moved = Studio(user, user / "moved").home
        pointer = user / ".lmstudio-home-pointer"
        pointer.write_text(f"{moved}\n")
        assert lmstudio.find_home() == moved
        for odd in (b"\xff\xfe", b"", b"relative", b"/nowhere", b"/a\0b", b"/" + b"x" * 100_000):
            pointer.write_bytes(odd)
            assert lmstudio.find_home() is None
        pointer.unlink()
        os.mkfifo(pointer)
        assert lmstudio.find_home() is None

    @pytest.mark.parametrize("folder", [7, "", "relative/models", "/a\0b", None, ["/x"], "~nosuchuser/x"])
    def test_settings_that_name_no_folder(self, studio: Studio, folder: object) -> None:
        studio.settings(downloadsFolder=folder)
        assert lmstudio.model_folders(studio.home) == []

    @pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe{\0}\0", b"[" * 100_000])
    def test_settings_that_cannot_be_read(self, studio: Studio, content: bytes) -> None:
        studio.write("settings.json", content)
        studio.write(".internal/model-index-cache.json", content)
        studio.write("hub/models/org/m/model.yaml", content)
        assert lmstudio.model_folders(studio.home) == []
        assert lmstudio.model_keys(studio.home) == {}


class TestKeys:
    async def test_by_its_habit(self, studio: Studio, home: Path) -> None:
        studio.model("lmstudio-community/Qwen2.5-7B-Instruct-MLX-4bit")
        async with started(home) as catalog:
            (ref,) = catalog.all()
            assert ref.aliases == ("qwen2.5-7b-instruct-mlx", "qwen2.5-7b-instruct-mlx@f32")
            for name in (
                *ref.aliases,
                "Qwen2.5-7B-Instruct-MLX",
                "lmstudio-community/qwen2.5-7b-instruct-mlx",
                "lmstudio-community/Qwen2.5-7B-Instruct-MLX-4bit",
                "lmstudio-community/Qwen2.5-7B-Instruct-MLX-4bit@f32",
            ):
                assert catalog.resolve(name).id == ref.id
            for wrong in ("qwen2.5-7b-instruct-mlx@8bit", "other/qwen2.5-7b-instruct-mlx"):
                with pytest.raises(ModelNotFound):
                    catalog.resolve(wrong)

    async def test_what_lm_studio_says_comes_before_its_habit(self, studio: Studio, home: Path) -> None:
        studio.model("a/Qwen3-4B-4bit")
        studio.model("b/Qwen3-4B-8bit")
        studio.index_of({"a/Qwen3-4B-4bit": "qwen3-4b@4bit", "b/qwen3-4b-8BIT": "qwen3-4b"})
        async with started(home) as catalog:
            assert catalog.resolve("qwen3-4b").id == "b/Qwen3-4B-8bit"
            assert catalog.resolve("qwen3-4b@4bit").id == "a/Qwen3-4B-4bit"
            assert catalog.resolve("b/qwen3-4b").id == "b/Qwen3-4B-8bit"
            assert [ref.aliases for ref in catalog.all()] == [("qwen3-4b@4bit",), ("qwen3-4b",)]
            studio.index_of({"a/Qwen3-4B-4bit": "qwen3-4b", "b/Qwen3-4B-8bit": "qwen3-4b@8bit"})
            await catalog.refresh()
            assert catalog.resolve("qwen3-4b").id == "a/Qwen3-4B-4bit"

    async def test_virtual_models(self, studio: Studio, home: Path) -> None:
        studio.model("lmstudio-community/Qwen3-8B-MLX-4bit")
        studio.model("lmstudio-community/Gemma-MLX-4bit")
        base = "model: qwen/qwen3-8b\nbase:\n  - key: lmstudio-community/Qwen3-8B-GGUF\n"
        studio.write("hub/models/qwen/qwen3-8b/model.yaml", base + "  - key: lmstudio-community/Qwen3-8B-MLX-4bit\n")
        entry = {
            "indexedModelIdentifier": "google/gemma@lmstudio-community/Gemma-MLX-4bit",
            "defaultIdentifier": "google/gemma@4bit",
        }
        studio.write(".internal/model-index-cache.json", {"models": [entry, None, {}, {"defaultIdentifier": 3}]})
        async with started(home) as catalog:
            for name in ("qwen/qwen3-8b", "qwen/qwen3-8b@f32"):
                assert catalog.resolve(name).id == "lmstudio-community/Qwen3-8B-MLX-4bit"
            for name in ("google/gemma", "google/gemma@4bit"):
                assert catalog.resolve(name).id == "lmstudio-community/Gemma-MLX-4bit"

    async def test_ids_and_the_owners_aliases_come_first(self, studio: Studio, home: Path) -> None:
        studio.model("org/Chat-4bit")
        studio.index_of({"org/Chat-4bit": "chat"})
        place(nano_model(), home / "models" / "other" / "m")
        async with started(home, chat="other/m") as catalog:
            assert catalog.resolve("chat").id == "other/m"
            assert catalog.resolve("org/Chat-4bit").aliases == ()
        place(nano_model(), home / "models" / "mine" / "chat")
        async with started(home) as catalog:  # a mere short name is not what LM Studio's clients mean
            assert catalog.resolve("chat").id == "org/Chat-4bit"
            assert catalog.resolve("mine/chat").id == "mine/chat"
        place(nano_model(), home / "models" / "Chat")
        async with started(home) as catalog:
            assert catalog.resolve("chat").id == "Chat"

    async def test_two_publishers_of_one_name(self, studio: Studio, home: Path) -> None:
        for publisher in ("b", "a"):
            studio.model(f"{publisher}/Same-4bit")
        async with started(home) as catalog:
            assert catalog.resolve("same").id == "a/Same-4bit"
            assert catalog.resolve("b/same").id == "b/Same-4bit"
            shutil.rmtree(studio.home / "models" / "a")
            await catalog.refresh()
            assert catalog.resolve("same").id == "b/Same-4bit"

    async def test_models_of_others_have_no_such_names(self, studio: Studio, home: Path) -> None:
        place(nano_model(), home / "models" / "org" / "Own-4bit")
        async with started(home) as catalog:
            assert catalog.resolve("org/Own-4bit").aliases == ()
            with pytest.raises(ModelNotFound):
                catalog.resolve("own")

    def test_names_that_no_list_can_hold(self, studio: Studio) -> None:
        keys = {"a/one": "fine", "a/two": "two\nlines", "a/three": " spaces ", "a/four": "x" * 300, "a/five": ""}
        studio.index_of(keys)
        assert lmstudio.model_keys(studio.home) == {"a/one": ("fine",)}
        studio.write(".internal/model-index-cache.json", json.dumps({"models": {"not": "a list"}}))
        assert lmstudio.model_keys(studio.home) == {}

    @pytest.mark.parametrize(
        "model", ["!!bool x", '!!int ""', "!!timestamp foo", "!!python/name:os.system x", "[&a *b]"]
    )
    async def test_a_file_of_a_virtual_model_that_cannot_be_read_costs_its_name_only(
        self, studio: Studio, home: Path, model: str
    ) -> None:
        studio.model("org/m")
        studio.write("hub/models/a/bad/model.yaml", f"model: {model}\nbase: [{{key: org/none}}]\n")
        studio.write("hub/models/b/good/model.yaml", "model: b/good\nbase: [{key: org/m}]\n")
        async with started(home) as catalog:
            assert catalog.resolve("b/good").id == "org/m"

    def test_only_so_much_is_parsed(self, studio: Studio) -> None:
        long = "model: {}\nbase: [{{key: org/m}}]\n" + "# {}\n".format("x" * 32_000)
        studio.write("hub/models/a/long/model.yaml", long.format("a/long") + "#" * 2000)
        for number in range(40):
            studio.write(f"hub/models/b/{number:02}/model.yaml", long.format(f"b/{number:02}"))
        (keys,) = lmstudio.model_keys(studio.home).values()
        assert keys == tuple(f"b/{number:02}" for number in range(32))

    async def test_names_that_cannot_be_learnt_stop_nothing(
        self, studio: Studio, home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(home: Path | None) -> lmstudio.Keys:
            raise ArithmeticError("odd")

        studio.model("org/Chat-4bit")
        monkeypatch.setattr(lmstudio, "model_keys", fail)
        async with started(home) as catalog:
            assert catalog.resolve("chat").id == "org/Chat-4bit"
            await catalog.refresh()
        assert caplog.text.count("names for its models cannot be read") == 1
