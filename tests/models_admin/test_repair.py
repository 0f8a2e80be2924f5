"""A corrupt model that is downloaded again: only what is bad comes from the Hub."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from models_admin.fetch_hash import Signature, Wished
from models_admin.fetch_lock import locked
from models_admin.fetch_place import put_all_back
from models_admin.fetch_repair import Known, keep_good
from models_admin.manifest import read_manifest, sha256_file
from models_admin.models import Job, JobState
from tests.material.hub import BIG, COMMIT, MIB, REPO, Hub, nano_files
from tests.models_admin.site import WEIGHTS, Site, rot, site_on

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
async def site(tmp_path: Path, hub: Hub) -> AsyncIterator[Site]:
    """With a model that was fetched whole."""
    async with site_on(tmp_path / "models") as found:
        assert (await found.fetch(REPO)).state == "done"
        yield found


def asked(hub: Hub) -> dict[str, int]:
    """How often the content of each file was asked for."""
    return {name: len(hub.ranges(name)) for name in nano_files() if hub.ranges(name)}


async def test_only_the_bad_file_is_fetched_again(site: Site, hub: Hub) -> None:
    model = site.models / REPO / COMMIT
    rot(model / BIG)
    assert (await site.fetch(REPO)).state == "already_downloaded", "nobody has noticed"
    assert (await site.verify(REPO)).result["bad"] == [BIG]
    before, inode = asked(hub), (model / WEIGHTS).stat().st_ino
    ended = await site.fetch(REPO)
    assert (ended.state, ended.message) == ("done", "")
    assert asked(hub) == before | {BIG: 2}
    assert (model / WEIGHTS).stat().st_ino == inode, "a good file is not even copied"
    assert (model / BIG).read_bytes() == nano_files()[BIG]
    ref = site.catalog.resolve(REPO)
    assert (ref.disk_state, ref.problem, ref.bad_files) == ("verified", None, ())
    assert sorted(path.name for path in model.parent.iterdir() if "lock" not in path.name) == [COMMIT]
    assert (await site.verify(REPO)).result["bad"] == []


async def test_what_nobody_has_read_is_read_before_it_is_kept(site: Site, hub: Hub) -> None:
    model = site.models / REPO / COMMIT
    os.truncate(model / BIG, MIB)
    rot(model / "config.json")
    (model / "tokenizer.json").unlink()
    (model / "tokenizer.json").symlink_to(model / "config.json")
    await site.catalog.refresh()
    assert site.catalog.resolve(REPO).disk_state == "corrupt"
    before = asked(hub)
    assert (await site.fetch(REPO)).state == "done"
    assert asked(hub) == before | {BIG: 2, "config.json": 2, "tokenizer.json": 2}
    manifest = read_manifest(model)
    assert manifest is not None
    assert {name: sha256_file(model / name) for name in manifest.files} == {
        name: entry.sha256 for name, entry in manifest.files.items()
    }


async def test_a_repair_that_is_killed_leaves_the_model_as_it_was_and_goes_on(site: Site, hub: Hub) -> None:
    model = site.models / REPO / COMMIT
    rot(model / BIG)
    await site.verify(REPO)
    there = {path.name for path in model.iterdir()}
    hub.hold(BIG, 2 * MIB)
    started = await site.fetcher.start(REPO)
    part = model.parent / f".{COMMIT}.partial" / f"{BIG}.part"
    async with asyncio.timeout(60):
        while not part.exists() or part.stat().st_size < MIB:
            await asyncio.sleep(0.01)
    [child] = [one for one in psutil.Process().children() if "models_admin.fetch_worker" in one.cmdline()]
    child.kill()
    assert (await site.fetcher.wait(started.job)).state == "failed"
    assert {path.name for path in model.iterdir()} == there
    hub.release()
    assert (await site.fetch(REPO)).state == "done"
    assert hub.ranges(BIG)[-1].startswith("bytes="), "it went on where it stopped"
    assert site.catalog.resolve(REPO).disk_state == "verified"


def wished(path: Path) -> Wished:
    content = path.read_bytes()
    git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    return Wished(path.name, len(content), Signature(git, "git"))


def test_a_disk_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there, partial = tmp_path / "there", tmp_path / "partial"
    there.mkdir()
    partial.mkdir()
    for name in ("good", "bad", "sound"):
        (there / name).write_bytes(name.encode())
    files = [wished(there / name) for name in ("good", "bad", "sound")]
    rot(there / "bad")
    known = {}
    for name in ("bad", "sound"):
        status = (there / name).stat()
        known[name] = {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "sound": name == "sound"}

    def refuse(*args: object, **more: object) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    seen: list[int] = []
    keep_good(files, partial, Known(there, known), seen.append)
    assert {path.name: path.read_bytes() for path in partial.iterdir()} == {"good": b"good", "sound": b"sound"}
    assert [path.name for path in there.iterdir()] == ["bad"]
    assert seen == sorted(seen)
    shutil.rmtree(there)
    keep_good(files, partial, Known(there, known), seen.append)  # as after a kill: what moved is there
    assert {path.name for path in partial.iterdir()} == {"good", "sound"}


async def test_a_fetch_that_would_go_on_gives_way_to_other_work(site: Site) -> None:
    """It has failed then, and does not wait for ever for a next start."""
    params = {"repo": REPO, "revision": "main"}
    row = await Job.objects.acreate(kind="fetch", subject=REPO, params=params, state=JobState.QUEUED)
    with site.busy.work(REPO, "verify"):
        await site.fetcher.go_on()
        ended = await site.fetcher.wait(row.pk)
    assert (ended.state, ended.code) == ("failed", "model_busy")


@pytest.mark.parametrize(("number", "linked"), [(errno.EIO, False), (errno.ENOTSUP, True)])
def test_nothing_moves_out_of_a_directory_for_another_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, linked: bool
) -> None:
    real, partial = tmp_path / ("elsewhere" if linked else "there"), tmp_path / "partial"
    real.mkdir()
    partial.mkdir()
    if linked:
        (tmp_path / "there").symlink_to(real)
    (real / "good").write_bytes(b"good")

    def refuse(*args: object, **more: object) -> None:
        raise OSError(number, "refused")

    monkeypatch.setattr(os, "link", refuse)
    there = tmp_path / "there"
    keep_good([wished(real / "good")], partial, Known(there, {}), lambda done: None)
    assert (real / "good").read_bytes() == b"good"
    assert list(partial.iterdir()) == [], "it is fetched anew"


async def test_what_the_owner_put_beside_the_files_stays(site: Site, hub: Hub) -> None:
    model = site.models / REPO / COMMIT
    (model / "adapters").mkdir()
    (model / "adapters" / "mine.safetensors").write_bytes(b"hours of work")
    (model / "notes.txt").write_text("mine")
    (model / "link.txt").symlink_to("notes.txt")
    rot(model / BIG)
    await site.verify(REPO)
    assert (await site.fetch(REPO)).state == "done"
    assert (model / "adapters" / "mine.safetensors").read_bytes() == b"hours of work"
    assert ((model / "notes.txt").read_text(), os.readlink(model / "link.txt")) == ("mine", "notes.txt")
    assert (model / BIG).read_bytes() == nano_files()[BIG]


async def test_a_model_left_out_of_its_place_by_a_kill_is_put_back(site: Site, hub: Hub) -> None:
    """At the start of the server, and by the next fetch."""
    model = site.models / REPO / COMMIT
    old = model.with_name(f".{COMMIT}.replaced")
    model.rename(old)
    assert put_all_back(iter([old])) == [model]
    assert put_all_back(iter([old])) == []
    model.rename(old)
    before = asked(hub)
    assert (await site.fetch(REPO)).state in ("done", "already_downloaded")
    assert asked(hub) == before
    assert sorted(path.name for path in model.parent.iterdir() if "lock" not in path.name) == [COMMIT]


def test_one_in_its_place_and_one_in_use_are_left(tmp_path: Path) -> None:
    for name in (".a.replaced", "a", ".b.replaced"):
        (tmp_path / name).mkdir()
    places = [tmp_path / ".a.replaced", tmp_path / ".b.replaced"]
    with locked(tmp_path / "b"):
        assert put_all_back(iter(places)) == []
    assert put_all_back(iter(places)) == [tmp_path / "b"]
    assert (tmp_path / ".a.replaced").is_dir()
