"""Verifying: real child processes read real files; what they find is kept, and decides what may be loaded."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from inference.engine.runs import disk_refusal
from inference.errors import Conflict, ModelCorrupt, ModelNotFound
from models_admin import verify_worker
from models_admin.job_child import JobError
from models_admin.manifest import FileEntry, Manifest, sha256_file, write_manifest
from models_admin.models import ModelFile, ModelRecord
from tests.material import nano_model
from tests.models_admin.site import WEIGHTS, copy, rot, site_on

pytestmark = pytest.mark.django_db(transaction=True)


def known(model: Path) -> dict[str, ModelFile]:
    record = ModelRecord.objects.get(path=str(model))
    return {file.name: file for file in record.files.all()}


class Report:
    """Takes what a job program says; ``on_bytes`` hears how far it is."""

    def __init__(self, on_bytes: Callable[[int], None] = lambda done: None) -> None:
        self.parts: dict[str, dict[str, Any]] = {}
        self._on_bytes = on_bytes

    def __call__(self, phase: str, done: int = 0, total: int = 0, unit: str = "bytes") -> None:
        self._on_bytes(done)

    def part(self, about: dict[str, Any]) -> None:
        self.parts[about["name"]] = about


def read(directory: Path, report: Report, **more: Any) -> dict[str, Any]:
    params = {"path": str(directory), "root": str(directory.parent), "source": "local", "known": {}, "read": {}}
    return verify_worker.verify(params | more, report)  # type: ignore[arg-type]


async def test_a_spoilt_file_makes_the_model_corrupt_until_it_is_sound_again(tmp_path: Path) -> None:
    model = copy(tmp_path / "m" / "org" / "model" / "r1", signed=True)
    sound = (model / WEIGHTS).read_bytes()
    rot(model / WEIGHTS)
    async with site_on(tmp_path / "m") as site:
        assert site.catalog.resolve("org/model").disk_state == "verified", "nobody has read it yet"
        job = await site.verify("org/model")
        assert (job.state, job.kind, job.result["bad"]) == ("done", "verify", [WEIGHTS])
        ref = site.catalog.resolve("org/model")
        assert (ref.disk_state, ref.bad_files) == ("corrupt", (WEIGHTS,))
        assert f"{WEIGHTS} has another content than was published" in (ref.problem or "")
        assert "Download org/model@r1 again" in (ref.problem or "")
        refusal = disk_refusal(ref.id, ref)
        assert isinstance(refusal, ModelCorrupt)
        assert refusal.details == {"files": [WEIGHTS]}
    assert {path.name for path in model.iterdir()} > {WEIGHTS, "config.json"}, "nothing is deleted"
    async with site_on(tmp_path / "m") as site:  # after a restart it is known still
        assert site.catalog.resolve("org/model").bad_files == (WEIGHTS,)
        (model / WEIGHTS).write_bytes(sound)
        await site.catalog.refresh()
        assert site.catalog.resolve("org/model").disk_state == "adopted", "another file, which nobody has read"
        assert (await site.verify("org/model")).result["bad"] == []
        ref = site.catalog.resolve("org/model")
        assert (ref.disk_state, ref.problem) == ("verified", None)
        assert ref.verified_at is not None


async def test_what_nobody_published_is_trusted_at_first_sight_and_held_to_it(tmp_path: Path) -> None:
    model = copy(tmp_path / "m" / "mine")
    async with site_on(tmp_path / "m") as site:
        job = await site.verify("mine")
        names = sorted(path.name for path in model.iterdir())
        assert sorted(job.result["first_sight"]) == names
        ref = site.catalog.resolve("mine")
        assert (ref.disk_state, ref.problem) == ("adopted", None), "nothing says that it is what was published"
        assert ref.verified_at is not None
        files = await asyncio.to_thread(known, model)
        assert files[WEIGHTS].sha256_actual == sha256_file(model / WEIGHTS)
        assert {file.basis for file in files.values()} == {"first sight"}
        assert (await site.verify("mine")).result["first_sight"] == []
        rot(model / WEIGHTS)
        await site.catalog.refresh()
        assert (await site.verify("mine")).result["bad"] == [WEIGHTS]
        assert "changed while its size and time stayed" in (site.catalog.resolve("mine").problem or "")
        rot(model / WEIGHTS)  # the bit turns back: what was expected is still known
        assert (await site.verify("mine")).result["bad"] == []
        (model / "config.json").write_text((model / "config.json").read_text() + " ")
        assert (await site.verify("mine")).result["first_sight"] == ["config.json"], "its owner wrote it"


async def test_the_hub_cache_names_its_blobs_by_their_hashes(tmp_path: Path) -> None:
    repo = tmp_path / "hub" / "models--org--name"
    snapshot = repo / "snapshots" / "aaaa"
    snapshot.mkdir(parents=True)
    (repo / "blobs").mkdir()
    for file in nano_model().iterdir():
        content = file.read_bytes()
        git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        blob = sha256_file(file) if file.name == WEIGHTS else git
        (repo / "blobs" / blob).write_bytes(content)
        (snapshot / file.name).symlink_to(Path("../../blobs") / blob)
    async with site_on(tmp_path / "m", tmp_path / "hub") as site:
        assert (await site.verify("org/name")).result["first_sight"] == []
        assert site.catalog.resolve("org/name").disk_state == "verified"
        rot((snapshot / "config.json").resolve())
        rot((snapshot / WEIGHTS).resolve())
        assert (await site.verify("org/name")).result["bad"] == ["config.json", WEIGHTS]
        ref = site.catalog.resolve("org/name")
        assert (ref.disk_state, ref.bad_files) == ("corrupt", ("config.json", WEIGHTS))


async def test_a_killed_run_goes_on_with_what_it_has_not_read(tmp_path: Path) -> None:
    model = copy(tmp_path / "m" / "mine")
    others = len(list(model.iterdir()))
    last = model / "z.safetensors"
    last.touch()
    os.truncate(last, 16 << 30)  # takes long to read, and no space
    async with site_on(tmp_path / "m") as site:
        job = await site.keeper.verify("mine")
        assert (await site.keeper.verify("mine")).job == job.job, "the same model twice is one job"
        async with asyncio.timeout(60):
            while (row := site.catalog.row(model)) is None or len(row.checks) < others:
                await asyncio.sleep(0.01)
        [child] = [one for one in psutil.Process().children() if "models_admin.verify_worker" in one.cmdline()]
        child.kill()
        dead = await site.keeper.wait(job.job)
        assert (dead.state, dead.code) == ("failed", "job_failed")
    os.truncate(last, 1000)
    async with site_on(tmp_path / "m") as site:  # after a restart of the server too
        ended = await site.verify("mine")
        assert (ended.result["skipped"], ended.result["first_sight"]) == (others, ["z.safetensors"])
        assert (await site.verify("mine")).result["skipped"] == 0, "a new run reads everything"


async def test_before_a_load_sizes_and_times_are_looked_at(tmp_path: Path) -> None:
    model = copy(tmp_path / "m" / "org" / "model" / "r1", signed=True)
    async with site_on(tmp_path / "m") as site:
        ref = site.catalog.resolve("org/model")
        assert await site.catalog.recheck(ref) is ref
        with (model / WEIGHTS).open("ab") as file:
            file.write(b"x")
        seen = await site.catalog.recheck(ref)
        assert (seen.disk_state, seen.bad_files) == ("corrupt", (WEIGHTS,))
        assert site.catalog.resolve("org/model").bad_files == (WEIGHTS,)


async def test_what_cannot_be_verified(tmp_path: Path) -> None:
    model = copy(tmp_path / "m" / "mine")
    async with site_on(tmp_path / "m") as site:
        with pytest.raises(ModelNotFound):
            await site.keeper.verify("other")
        with site.busy.work("mine", "fetch"), pytest.raises(Conflict, match="is being downloaded"):
            await site.keeper.verify("mine")
        shutil.rmtree(model)
        await site.catalog.refresh()
        with pytest.raises(Conflict) as refused:
            await site.keeper.verify("mine")
        assert refused.value.code == "model_not_on_disk"


def test_a_file_that_is_written_meanwhile_is_not_judged_and_the_others_are(tmp_path: Path) -> None:
    model = copy(tmp_path / "mine")
    written = threading.Event()

    def write(done: int) -> None:
        if done and not written.is_set():
            written.set()
            (model / "config.json").write_bytes(b"{}")

    report = Report(write)
    with pytest.raises(JobError, match=r"config\.json changed while") as ended:
        read(model, report)
    assert ended.value.code == "file_changed"
    assert set(report.parts) == {path.name for path in model.iterdir()} - {"config.json"}


def test_a_file_that_is_replaced_meanwhile_is_not_judged(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"old")

    def replace(count: int) -> None:
        status = path.stat()
        (tmp_path / "new").write_bytes(b"new")
        os.utime(tmp_path / "new", ns=(status.st_atime_ns, status.st_mtime_ns))
        (tmp_path / "new").rename(path)

    with pytest.raises(verify_worker.Changed):
        verify_worker.read_bytes(path, replace)


@pytest.mark.parametrize(("code", "bad"), [(errno.EIO, True), (errno.EACCES, False)])
def test_a_disk_that_gives_the_bytes_back_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, bad: bool
) -> None:
    model = copy(tmp_path / "mine")
    read_bytes = verify_worker.read_bytes

    def failing(path: Path, on_bytes: Callable[[int], None], **more: object) -> verify_worker.Bytes:
        if path.name == WEIGHTS:
            raise OSError(code, os.strerror(code), str(path))
        return read_bytes(path, on_bytes)

    monkeypatch.setattr(verify_worker, "read_bytes", failing)
    report = Report()
    if bad:
        assert read(model, report)["bad"] == [WEIGHTS]
        assert (report.parts[WEIGHTS]["sound"], report.parts[WEIGHTS]["sha256"]) == (False, "")
    else:
        with pytest.raises(JobError) as ended:
            read(model, report)
        assert (ended.value.code, ended.value.details) == ("unreadable", {"files": [WEIGHTS]})
        assert WEIGHTS not in report.parts


def test_hostile_files(tmp_path: Path) -> None:
    """Links out of the root are not followed, pipes not waited for, names that no text can hold left alone."""
    model = copy(tmp_path / "root" / "mine")
    (tmp_path / "secret").write_bytes(b"secret")
    (model / "link.json").symlink_to(tmp_path / "secret")
    (model / "folder").symlink_to(tmp_path)
    os.mkfifo(model / "pipe.json")
    (Path(os.fsdecode(os.fsencode(model) + b"/bad\xff"))).write_bytes(b"x")
    (model / "2_Dense").mkdir()
    (model / "2_Dense" / WEIGHTS).write_bytes(b"dense")
    files = {"../../secret": FileEntry(6, "0" * 64), "config.json": FileEntry(1, sha256_file(model / "config.json"))}
    write_manifest(model, Manifest("huggingface", "org/model", "r1", files))
    report = Report()
    with pytest.raises(JobError) as ended:
        read(model, report)
    assert ended.value.details == {"files": ["link.json"]}
    names = {path.name for path in nano_model().iterdir()}
    assert set(report.parts) == names | {f"2_Dense/{WEIGHTS}"}
    assert report.parts["config.json"]["basis"] == "published"
    with pytest.raises(verify_worker.Changed):
        verify_worker.read_bytes(model / "pipe.json", lambda count: None)


async def test_after_a_run_that_could_not_judge_all_the_next_one_reads_all(tmp_path: Path) -> None:
    model = copy(tmp_path / "m" / "mine")
    (tmp_path / "secret").write_bytes(b"secret")
    async with site_on(tmp_path / "m") as site:
        (model / "link.json").symlink_to(tmp_path / "secret")
        await site.catalog.refresh()
        assert (await site.verify("mine")).code == "unreadable"
        (model / "link.json").unlink()
        await site.catalog.refresh()
        row = site.catalog.row(model)
        assert row is not None
        assert row.verify_began is None
        assert (await site.verify("mine")).result["bad"] == []


async def test_files_of_a_folder_count_too(tmp_path: Path) -> None:
    model = copy(tmp_path / "m" / "mine")
    (model / "2_Dense").mkdir()
    (model / "2_Dense" / WEIGHTS).write_bytes(b"dense")
    async with site_on(tmp_path / "m") as site:
        await site.verify("mine")
        rot(model / "2_Dense" / WEIGHTS)
        assert (await site.verify("mine")).result["bad"] == [f"2_Dense/{WEIGHTS}"]
        assert site.catalog.resolve("mine").disk_state == "corrupt"
    async with site_on(tmp_path / "m") as site:
        assert site.catalog.resolve("mine").bad_files == (f"2_Dense/{WEIGHTS}",)
