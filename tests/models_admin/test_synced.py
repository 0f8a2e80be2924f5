"""What a machine that went down has taken of a download is neither claimed nor trusted, and comes again alone."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from models_admin import fetch_hash, synced
from models_admin.fetch_hash import PartFile
from tests.material.hub import BIG, MIB, Hub, HubRepo, nano_files
from tests.models_admin.test_fetch_line import NAMES, Site, models, site_on

__all__ = ["models"]  # a fixture


def another_start(part: Path, offset: int) -> None:
    """As if the machine had been started again since, with ``offset`` bytes synced before."""
    noted = synced.known(part)
    assert noted is not None
    synced.beside(part).write_bytes(
        b'{"offset":%d,"boot":"another","signature":"%s"}' % (offset, noted.signature.encode())
    )


def small_bytes(models: Path, name: str) -> int:
    """Of the files that are whole."""
    [partial] = (models / name).glob(".*.partial")
    names = [path for path in partial.rglob("*") if path.is_file() and ".part" not in path.name]
    return sum(path.stat().st_size for path in names)


def left_over(models: Path) -> list[Path]:
    return [*models.rglob("*.synced*"), *models.rglob("*.part")]


def part_of(models: Path, name: str) -> Path | None:
    return next(models.glob(f"{name}/.*.partial/{BIG}.part"), None)


async def paused_at(site: Site, models: Path, name: str, size: int) -> tuple[int, Path]:
    """A download of ``name`` that was paused with so much of its large file on the disk."""
    job = await site.ask(name)
    async with asyncio.timeout(60):
        while (part := part_of(models, name)) is None or part.stat().st_size < size:
            await asyncio.sleep(0.01)
    await site.fetcher.pause(job)
    return job, part


@pytest.mark.django_db(transaction=True)
async def test_what_a_reboot_took_is_not_claimed_and_comes_again(models: Path, hub: Hub) -> None:
    hub.hold(BIG, 3 * MIB)
    async with site_on(models) as site:
        job, part = await paused_at(site, models, NAMES[0], 3 * MIB)
    spoilt = bytearray(part.read_bytes())
    spoilt[MIB:] = bytes(len(spoilt) - MIB)  # zeros where nothing was synced
    part.write_bytes(spoilt)
    another_start(part, MIB)
    most = MIB + small_bytes(models, NAMES[0])
    async with site_on(models) as site:
        other = await site.ask(NAMES[1])  # it has the only place
        told = await site.fetcher.status(job)
        assert (told.state, told.done) == ("paused", most)
        assert {file.name: file.done for file in told.files}[BIG] == MIB
        told = await site.fetcher.resume(job)
        assert (told.state, told.done) == ("queued", most)
        hub.release()
        assert [(await site.ended(one)).state for one in (other, job)] == ["done", "done"]
    commit = hub.repos[NAMES[0]].commit
    assert (models / NAMES[0] / commit / BIG).read_bytes() == nano_files()[BIG]
    assert f"bytes={MIB}-" in hub.ranges(BIG), "from where the disk was sure, and not from the beginning"


@pytest.mark.django_db(transaction=True)
async def test_what_a_kill_left_is_trusted_whole(models: Path, hub: Hub) -> None:
    hub.hold(BIG, 2 * MIB)
    async with site_on(models) as site:
        job, _ = await paused_at(site, models, NAMES[0], 2 * MIB)
        hub.release()
        assert (await site.fetcher.resume(job)).state in ("queued", "running")
        assert (await site.ended(job)).state == "done"
    assert hub.ranges(BIG) == ["", f"bytes={2 * MIB}-"]
    assert left_over(models) == []


@pytest.mark.django_db(transaction=True)
async def test_the_same_file_of_another_commit_goes_on(models: Path, hub: Hub) -> None:
    hub.hold(BIG, 2 * MIB)
    async with site_on(models) as site:
        job, _ = await paused_at(site, models, NAMES[0], 2 * MIB)
        hub.repos[NAMES[0]] = HubRepo(nano_files(), commit="6" * 40)
        hub.release()
        failed = await site.ended((await site.fetcher.resume(job)).job)
        assert failed.code == "revision_gone"
        done = await site.ended((await site.fetcher.resume(job)).job)
    assert (done.state, done.result["revision"]) == ("done", "6" * 40)
    assert hub.ranges(BIG)[-1] == f"bytes={2 * MIB}-"
    assert hub.sent[BIG] == len(nano_files()[BIG]), "no byte twice"


@pytest.mark.django_db(transaction=True)
async def test_another_file_of_the_same_name_does_not(models: Path, hub: Hub) -> None:
    hub.hold(BIG, 2 * MIB)
    changed = {**nano_files(), BIG: nano_files()[BIG][:-1] + b"!"}
    async with site_on(models) as site:
        job, _ = await paused_at(site, models, NAMES[0], 2 * MIB)
        hub.repos[NAMES[0]] = HubRepo(changed, commit="6" * 40)
        hub.release()
        await site.ended((await site.fetcher.resume(job)).job)
        done = await site.ended((await site.fetcher.resume(job)).job)
    assert (done.state, hub.ranges(BIG)[-1]) == ("done", "")
    assert (models / NAMES[0] / ("6" * 40) / BIG).read_bytes() == changed[BIG]


def test_a_growing_file_is_synced_on_the_way_and_at_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part, sizes, fsync = tmp_path / "a.part", list[int](), os.fsync

    def seen(descriptor: int) -> None:
        fsync(descriptor)
        sizes.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(fetch_hash, "_LOOK_EVERY", 2 * MIB)
    monkeypatch.setattr(os, "fsync", seen)
    with PartFile.open(part, 5 * MIB, lambda more: None, 0, "abc") as growing:
        for _ in range(5):
            growing.write(bytes(MIB))
        noted = synced.known(part)
        assert noted is not None
        assert (noted.offset, noted.boot, noted.signature) == (4 * MIB, synced.boot(), "abc")
        growing.sync()
    assert sizes == [0, 2 * MIB, 4 * MIB, 5 * MIB]


@pytest.mark.parametrize("noted", [b"", b"{", b"[]", b"x" * 9999, b'{"offset":"1","boot":"b"}'])
def test_a_note_that_cannot_be_read_is_none(tmp_path: Path, noted: bytes) -> None:
    part = tmp_path / "a.part"
    part.write_bytes(b"x" * 10)
    synced.beside(part).write_bytes(noted)
    assert (synced.known(part), synced.trusted(part)) == (None, 10)


@pytest.mark.parametrize(("offset", "kept"), [(4, 4), (99, 10), (-5, 0)])
def test_of_another_start_only_what_was_synced_counts(tmp_path: Path, offset: int, kept: int) -> None:
    part = tmp_path / "a.part"
    part.write_bytes(b"x" * 10)
    synced.note(part, 10, "abc")
    assert synced.trusted(part) == 10
    another_start(part, offset)
    assert synced.trusted(part) == kept
    with PartFile.open(part, 20, lambda more: None, 0, "abc") as growing:
        assert growing.tell() == kept
    assert part.stat().st_size == kept
    assert synced.trusted(part) == kept


def test_a_link_in_the_place_of_the_note_is_not_written_through(tmp_path: Path) -> None:
    part, mine = tmp_path / "a.part", tmp_path / "mine"
    mine.write_bytes(b"mine")
    synced.beside(part).symlink_to(mine)
    (tmp_path / "a.part.synced.new").symlink_to(mine)
    synced.note(part, 5, "abc")
    assert mine.read_bytes() == b"mine"
    assert not synced.beside(part).is_symlink()
