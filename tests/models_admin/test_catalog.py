"""DiskCatalog on real directories and a real database."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Container
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pytest
from asgiref.sync import sync_to_async
from django.db import connection

from inference.errors import ModelNotFound
from models_admin import catalog as catalog_module
from models_admin import row as row_module
from models_admin import scan as scan_module
from models_admin import store, verify_worker
from models_admin.catalog import DiskCatalog
from models_admin.facts import list_files, read_facts
from models_admin.fetch_repair import Known
from models_admin.file_checks import Checked, still_true
from models_admin.manifest import NAME, FileEntry, Manifest, sha256_file, write_manifest
from models_admin.models import ModelFile, ModelRecord
from models_admin.row import Row
from models_admin.scan import Found
from models_admin.stamp import bounded
from tests.material import broken_models, models_dir, nano_model, place

T = TypeVar("T")
pytestmark = pytest.mark.django_db(transaction=True)


@asynccontextmanager
async def opened(*roots: Path, **options: object) -> AsyncIterator[DiskCatalog]:
    catalog = DiskCatalog(list(roots), **options)  # type: ignore[arg-type]
    try:
        await catalog.refresh()
        yield catalog
    finally:
        catalog.close()


def sign(directory: Path, repo: str = "org/model") -> None:
    files = {f.name: FileEntry(f.stat().st_size, sha256_file(f)) for f in directory.iterdir()}
    write_manifest(directory, Manifest(source="demo", repo=repo, revision="r1", files=files))


def copy(target: Path) -> Path:
    """A nano model that a test may spoil (no hard links to the shared one)."""
    shutil.copytree(nano_model(), target)
    return target


async def in_db(work: Callable[[], T]) -> T:
    return await sync_to_async(work)()


async def test_layouts_give_names_and_facts(tmp_path: Path) -> None:
    models_dir(tmp_path, "tiny", "nano")
    place(nano_model(), tmp_path / "org" / "plain")
    place(nano_model(), tmp_path / "org" / "kept" / "abcdef123456")
    async with opened(tmp_path) as catalog:
        assert [ref.id for ref in catalog.all()] == ["nano", "org/kept", "org/plain", "tiny"]
        tiny, kept = catalog.resolve("tiny"), catalog.resolve("org/kept")
    assert (tiny.architecture, tiny.context_length, tiny.kv_bytes_per_token) == ("llama", 2048, 512)
    assert tiny.weight_bytes == (tmp_path / "tiny" / "model.safetensors").stat().st_size
    assert (tiny.quantization, tiny.problem, tiny.disk_state) == ("f32", None, "adopted")
    assert (kept.revision, kept.path) == ("abcdef123456", tmp_path / "org" / "kept" / "abcdef123456")


async def test_hub_cache_snapshots_with_links_inside_the_root(tmp_path: Path) -> None:
    repo = tmp_path / "models--org--name"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("aaaa")
    place(nano_model(), repo / "blobs")
    for revision in ("aaaa", "bbbb"):
        (repo / "snapshots" / revision).mkdir(parents=True)
        for blob in (repo / "blobs").iterdir():
            (repo / "snapshots" / revision / blob.name).symlink_to(Path("../../blobs") / blob.name)
    async with opened(tmp_path) as catalog:
        assert [(ref.id, ref.revision) for ref in catalog.all()] == [("org/name", "aaaa"), ("org/name@bbbb", "bbbb")]
        assert all(ref.problem is None and ref.source == "huggingface-cache" for ref in catalog.all())
        assert catalog.resolve("org/name@bb").revision == "bbbb"


async def test_broken_directories_are_listed_with_their_reason(tmp_path: Path) -> None:
    broken_models(tmp_path)
    place(nano_model(), tmp_path / "good")
    async with opened(tmp_path) as catalog:
        refs = catalog.all()
    problems = {ref.id: ref.problem for ref in refs}
    assert problems.pop("good") is None
    assert problems.pop("nan-weights") is None
    assert set(problems) == {"truncated", "unknown-architecture", "bad-config", "missing-weight-file"}
    assert "cut off" in (problems["truncated"] or "")
    assert {ref.id for ref in refs if ref.disk_state == "partial"} == {"truncated", "missing-weight-file"}
    assert "perceptron9000" in (problems["unknown-architecture"] or "")


async def test_a_change_on_disk_is_seen_and_only_the_changed_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy(tmp_path / "one")
    copy(tmp_path / "two")
    read: list[str] = []
    examine = row_module.examine

    def spy(found: Found, old: Row | None) -> Row:
        read.append(found.path.name)
        return examine(found, old)

    monkeypatch.setattr(catalog_module, "examine", spy)
    async with opened(tmp_path) as catalog:
        assert sorted(read) == ["one", "two"]
        with (tmp_path / "one" / "model.safetensors").open("r+b") as file:
            file.truncate(1000)
        await catalog.refresh()
        assert "cut off" in (catalog.resolve("one").problem or "")
    async with opened(tmp_path) as again:  # another process: facts come from the records
        assert [ref.problem is None for ref in again.all()] == [False, True]
        assert again.resolve("two").kv_bytes_per_token == 128
    assert sorted(read) == ["one", "one", "two"]


async def test_vanished_and_unmounted_models_say_so_and_come_back(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    copy(volume / "a")
    copy(volume / "b")
    async with opened(volume) as catalog:
        shutil.rmtree(volume / "a")
        await catalog.refresh()
        gone = catalog.resolve("a")
        assert (gone.disk_state, "gone" in (gone.problem or "")) == ("absent", True)
        volume.rename(tmp_path / "away")
        await catalog.refresh()
        assert (catalog.resolve("b").disk_state, catalog.resolve("a").disk_state) == ("offline", "offline")
        (tmp_path / "away").rename(volume)
        await catalog.refresh()
        assert (catalog.resolve("b").disk_state, catalog.resolve("b").problem) == ("adopted", None)
    record = await in_db(lambda: ModelRecord.objects.get(path=str(volume / "a")))
    assert record.disk_state == "absent"
    assert record.vanished_at is not None


async def test_a_manifest_makes_verified_and_a_contradiction_corrupt(tmp_path: Path) -> None:
    model = copy(tmp_path / "org" / "model" / "r1")
    sign(model)
    async with opened(tmp_path) as catalog:
        ref = catalog.resolve("org/model")
        assert (ref.disk_state, ref.source, ref.problem) == ("verified", "demo", None)
        files = await in_db(lambda: list(ModelFile.objects.filter(model__repo="org/model")))
        weights = next(file for file in files if file.name == "model.safetensors")
        assert weights.sha256_actual == weights.sha256_expected == sha256_file(model / "model.safetensors")
        assert weights.verified_at is not None
        later = (model / NAME).stat().st_mtime_ns + 10**9
        os.utime(model / "config.json", ns=(later, later))
        await catalog.refresh()
        assert catalog.resolve("org/model").disk_state == "adopted"
        (model / "tokenizer_config.json").unlink()
        await catalog.refresh()
        assert catalog.resolve("org/model").disk_state == "corrupt"
        assert "tokenizer_config.json" in (catalog.resolve("org/model").problem or "")


async def test_records_hold_files_and_keep_first_seen(tmp_path: Path) -> None:
    model = copy(tmp_path / "m")
    async with opened(tmp_path) as catalog:
        first = await in_db(lambda: ModelRecord.objects.get())
        (model / "README.md").write_text("new")
        await catalog.refresh()
    record = await in_db(lambda: ModelRecord.objects.get())
    names = await in_db(lambda: list(record.files.values_list("name", flat=True)))
    assert record.first_seen == first.first_seen
    assert record.last_seen > first.last_seen
    assert names == ["README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]


async def test_a_database_that_cannot_be_used_costs_no_listing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place(nano_model(), tmp_path / "m")
    await in_db(lambda: connection.cursor().execute("ALTER TABLE models_admin_modelrecord RENAME TO hidden"))
    try:
        async with opened(tmp_path) as catalog:
            assert catalog.resolve("m").problem is None
    finally:
        await in_db(lambda: connection.cursor().execute("ALTER TABLE hidden RENAME TO models_admin_modelrecord"))
    assert "cannot be written" in caplog.text


async def test_callers_share_one_scan_and_a_cancelled_one_harms_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place(nano_model(), tmp_path / "m")
    gate, scans = threading.Event(), []
    scan = scan_module.scan

    def gated(roots: list[Path], studio: Container[Path]) -> object:
        scans.append(1)
        assert gate.wait(30)
        return scan(roots, studio)

    monkeypatch.setattr(catalog_module, "scan", gated)
    catalog = DiskCatalog([tmp_path])
    first, second = asyncio.create_task(catalog.refresh()), asyncio.create_task(catalog.refresh())
    await asyncio.sleep(0)
    first.cancel()
    gate.set()
    await second
    assert first.cancelled()
    assert (len(scans), len(catalog.all())) == (1, 1)
    catalog.close()


async def test_who_comes_during_a_scan_gets_what_it_may_have_passed_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked, gate, scans = asyncio.Event(), threading.Event(), []
    scan, loop = scan_module.scan, asyncio.get_running_loop()

    def gated(roots: list[Path], studio: frozenset[Path]) -> object:
        seen = scan(roots, studio)
        scans.append(1)
        loop.call_soon_threadsafe(looked.set)
        assert gate.wait(30)
        return seen

    monkeypatch.setattr(catalog_module, "scan", gated)
    catalog = DiskCatalog([tmp_path])
    early = asyncio.create_task(catalog.refresh())
    await looked.wait()
    place(nano_model(), tmp_path / "m")
    late = [asyncio.create_task(catalog.refresh()) for _ in range(3)]
    gate.set()
    await early
    await asyncio.gather(*late)
    assert (len(scans), [ref.id for ref in catalog.all()]) == (2, ["m"])
    catalog.close()


async def test_hostile_places(tmp_path: Path) -> None:
    root = tmp_path / "root"
    outside = copy(tmp_path / "outside")
    root.mkdir()
    (root / "linked").symlink_to(outside)
    (root / "loop").symlink_to(root)
    (root / "upper-loop").symlink_to(tmp_path)
    stray = root / "stray"
    stray.mkdir()
    (stray / "config.json").symlink_to(outside / "config.json")
    (root / "dangling").mkdir()
    (root / "dangling" / "config.json").symlink_to("nowhere")
    pipe = root / "pipe"
    pipe.mkdir()
    os.mkfifo(pipe / "config.json")
    os.mkdir(os.fsencode(root) + b"/bad\xff")
    async with opened(root) as catalog:
        problems = {ref.id: ref.problem or "" for ref in catalog.all()}
    assert not [name for name in problems if "loop" in name]  # else everything is there a second and a third time
    assert "outside" in problems["linked"]
    assert "outside" in problems["stray"]
    assert problems["dangling"] == "config.json is missing"
    assert problems["pipe"] == "config.json is not a regular file"


async def test_ten_thousand_directories(tmp_path: Path) -> None:
    """Not a time is asserted, only that all are there, recorded, and found again without reading them again."""
    config = json.dumps({"model_type": "llama"})
    for number in range(10_000):
        directory = tmp_path / f"org{number % 100}" / f"model-{number}"
        directory.mkdir(parents=True)
        (directory / "config.json").write_text(config)
    async with opened(tmp_path) as catalog:
        assert len(catalog.all()) == 10_000
        await catalog.refresh()
        with pytest.raises(ModelNotFound, match="model-4321"):
            catalog.resolve("org21/modl-4321")
    assert await in_db(ModelRecord.objects.count) == 10_000
    assert "no weights" in (read_facts(tmp_path / "org0" / "model-0", tmp_path).problem or "")


async def test_what_is_no_model_is_passed_over(tmp_path: Path) -> None:
    for name in (".hidden", "datasets--org--data/snapshots/r", "one/two/three/four", "models--a--b/snapshots/.r"):
        place(nano_model(), tmp_path / name)
    (tmp_path / "models--only--refs").mkdir()
    (tmp_path / "empty-org" / "empty-model").mkdir(parents=True)
    (tmp_path / "notes.txt").write_text("x")
    async with opened(tmp_path) as catalog:
        assert [ref.id for ref in catalog.all()] == ["a/b"]


async def test_the_same_model_in_two_roots_and_an_lm_studio_root(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "models", tmp_path / ".lmstudio" / "models"
    for root in (theirs, ours):
        place(nano_model(), root / "org" / "m")
    async with opened(ours, theirs, default_model="m", aliases={"bot": "org/m@lmstudio"}) as catalog:
        assert [(ref.id, ref.source) for ref in catalog.all()] == [("org/m", "local"), ("org/m@lmstudio", "lmstudio")]
        assert catalog.resolve("").path == ours / "org" / "m"
        assert catalog.resolve("bot").path == theirs / "org" / "m"
        assert catalog.resolve("bot").aliases == ("bot", "m@f32")


async def test_a_root_may_be_a_model_itself(tmp_path: Path) -> None:
    async with opened(place(nano_model(), tmp_path / "mine")) as catalog:
        assert [(ref.id, ref.problem) for ref in catalog.all()] == [("mine", None)]


async def test_a_file_time_that_no_database_holds(tmp_path: Path) -> None:
    most = (1 << 63) - 1
    weights = copy(tmp_path / "m") / "model.safetensors"
    os.utime(weights, ns=(10**19, 10**19))  # in the year 2286
    if weights.stat().st_mtime_ns <= most:
        pytest.skip("this file system keeps no such time")
    async with opened(tmp_path) as catalog:
        assert [ref.id for ref in catalog.all()] == ["m"]
        await catalog.refresh()
    assert await in_db(lambda: ModelFile.objects.get(name=weights.name).mtime_ns) == most
    # What was recorded is what every other reader sees.
    size = weights.stat().st_size
    known = {weights.name: {"size": size, "mtime_ns": most, "sound": True}}
    assert Known(weights.parent, known).is_sound(weights.name)
    check = Checked(f"m/{weights.name}", size, most, "", "published", True, 0.0)
    assert still_true(list_files(tmp_path), {check.name: check}) == {check.name: check}
    assert verify_worker._stamp(weights) == [size, most]
    assert verify_worker.read_bytes(weights, lambda done: None).mtime_ns == most


@pytest.mark.parametrize(("number", "kept"), [(1 << 64, (1 << 63) - 1), (-(1 << 70), 1 - (1 << 63)), (5, 5)])
def test_numbers_are_within_64_bits(number: int, kept: int) -> None:
    assert bounded(number) == kept


async def test_a_value_that_the_database_does_not_take_costs_the_record_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OverflowError("Python int too large to convert to SQLite INTEGER")

    copy(tmp_path / "m")
    monkeypatch.setattr(store, "save_rows", fail)
    async with opened(tmp_path) as catalog:
        assert [ref.id for ref in catalog.all()] == ["m"]


@pytest.mark.parametrize("kind", ["pipe", "folder"])
async def test_a_ref_that_is_no_file(tmp_path: Path, kind: str) -> None:
    main = tmp_path / "models--a--b" / "refs" / "main"
    main.parent.mkdir(parents=True)
    copy(tmp_path / "models--a--b" / "snapshots" / "r")
    os.mkfifo(main) if kind == "pipe" else main.mkdir()
    # In a daemon of its own: what hangs must not keep the test run.
    seen: list[str] = []
    look = threading.Thread(target=lambda: seen.extend(f.repo for f in scan_module.scan([tmp_path]).found), daemon=True)
    look.start()
    await asyncio.to_thread(look.join, 20)
    assert seen == ["a/b"]
