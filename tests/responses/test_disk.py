"""Stored responses on disk: written behind the answer, bounded, private, and truthful after a crash."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson
import pytest
from django.db import DatabaseError, connections

from inference.api import deps
from inference.models import StoredResponse
from inference.protocols.responses import disk as disk_module
from inference.protocols.responses.background import Responses, replayed
from inference.protocols.responses.disk import DATABASE, Bounds, Disk
from inference.protocols.responses.store import ResponseStore, Stored
from tests.api.fake_engine import FakeEngine
from tests.responses.conftest import RESPONSES, ResponsesApi, events_of

pytestmark = pytest.mark.django_db(databases=["default", DATABASE], transaction=True)

Open = Callable[..., Any]


@pytest.fixture
async def open_disk() -> AsyncIterator[Open]:
    opened: list[Disk] = []

    async def start(**bounds: Any) -> Disk:
        one = Disk(Bounds(**bounds))
        await one.start()
        opened.append(one)
        return one

    yield start
    for one in opened:
        await one.stop()


async def rows(work: Callable[[Any], Any]) -> Any:
    """What ``work`` makes of the table, on a thread of its own."""

    def ask() -> Any:
        try:
            return work(StoredResponse.objects.using(DATABASE))
        finally:
            connections[DATABASE].close()

    return await asyncio.to_thread(ask)


def entry(response_id: str, *, previous: str | None = None, status: str = "completed", size: int = 10) -> Stored:
    noise = random.Random(response_id).randbytes(size // 2).hex()  # does not compress well
    response: dict[str, Any] = {
        "id": response_id,
        "previous_response_id": previous,
        "status": status,
        "created_at": time.time(),
        "output": [],
        "text": noise,
    }
    return Stored.of(response, "owner", [])


async def written(disk: Disk) -> None:
    """Everything given so far is on disk: the thread does one thing after the other."""
    await disk.read([])


async def test_it_survives_a_restart(open_disk: Open) -> None:
    first = ResponseStore(await open_disk())
    first.put(entry("resp_1"))
    first.put(entry("resp_2", previous="resp_1"))
    await first.stop()
    second = ResponseStore(await open_disk())
    chain = await second.chain("resp_2", "owner")
    assert chain is not None
    assert [one.id for one in chain] == ["resp_1", "resp_2"]
    assert await second.get("resp_1", "somebody") is None
    assert await second.chain("resp_2", "somebody") is None
    assert await second.delete("resp_1", "owner")
    assert await second.chain("resp_2", "owner") is None
    assert not await second.delete("resp_1", "owner")


async def test_what_is_not_written_yet_is_there(open_disk: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    monkeypatch.setattr(disk_module, "_row", lambda one, make=disk_module._row: gate.wait(30) and make(one))
    disk = await open_disk()
    store = ResponseStore(disk, memory_bytes=1)
    for number in range(3):
        store.put(entry(f"resp_{number}", previous=f"resp_{number - 1}" if number else None))
    assert len(await store.chain("resp_2", "owner") or []) == 3
    assert await store.get("resp_0", "owner") is not None
    deleting = asyncio.ensure_future(store.delete("resp_1", "owner"))
    await asyncio.sleep(0)
    assert await_pending(disk) == ["resp_0", "resp_2"]
    gate.set()
    assert await deleting
    await written(disk)
    assert await_pending(disk) == []
    assert await store.get("resp_1", "owner") is None


def await_pending(disk: Disk) -> list[str]:
    return sorted(one for one in ("resp_0", "resp_1", "resp_2") if disk.pending(one) is not None)


@pytest.mark.parametrize("bounds", [{"count": 10}, {"bytes": 12_000}])
async def test_it_is_bounded_and_keeps_what_was_used_last(open_disk: Open, bounds: dict[str, int]) -> None:
    disk = await open_disk(**bounds)
    for number in range(30):
        disk.write(entry(f"resp_{number}", size=2000))
        disk.touch(["resp_0"])
    await written(disk)
    sizes = dict(await rows(lambda table: list(table.values_list("id", "size"))))
    kept = set(sizes)
    assert {"resp_0", "resp_29"} <= kept
    assert len(kept) <= bounds.get("count", 20)
    assert sum(sizes.values()) <= bounds.get("bytes", sum(sizes.values()))


async def test_what_nobody_used_for_days_goes(open_disk: Open) -> None:
    disk = await open_disk(days=1)
    disk.write(entry("resp_old"))
    await written(disk)
    await rows(lambda table: table.update(used=time.time() - 2 * disk_module.DAY_S))
    await disk.stop()
    again = await open_disk(days=1)
    assert await again.read(["resp_old"]) == {}


async def test_a_write_that_fails_is_told_once_and_answered_all_the_same(
    open_disk: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    disk = await open_disk()

    def full(*_: Any, **__: Any) -> None:
        raise DatabaseError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(StoredResponse, "save", full)
        for number in range(3):
            disk.write(entry(f"resp_{number}"))
        await written(disk)
    assert [record.message for record in caplog.records if "disk is full" in record.message] != []
    assert await disk.read(["resp_0"]) == {}
    disk.write(entry("resp_9"))
    await written(disk)
    assert list(await disk.read(["resp_9"])) == ["resp_9"]


async def test_a_full_disk(api: ResponsesApi, engine: FakeEngine, open_disk: Open) -> None:
    """SQLite's own refusal to grow; there is room again with the next connection."""
    disk = await open_disk()
    deps.configure(catalog=engine.catalog, responses=Responses(ResponseStore(disk, memory_bytes=1)))
    await disk._do(lambda: connections[DATABASE].cursor().execute("PRAGMA max_page_count = 1"), None)
    large = random.Random(1).randbytes(100_000).hex()
    lost, kept = await api.create(large), await api.create(large)
    await written(disk)
    assert disk.dropped == 1
    assert (await api.get(f"{RESPONSES}/{lost['id']}"))[0] == 404
    assert await api.fetch(kept["id"]) == kept


async def test_too_much_that_waits_is_not_kept(open_disk: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    monkeypatch.setattr(disk_module, "_row", lambda one, make=disk_module._row: gate.wait(30) and make(one))
    disk = Disk(Bounds(), pending_bytes=2500)
    await disk.start()
    for number in range(5):
        disk.write(entry(f"resp_{number}", size=1000))
    gate.set()
    await written(disk)
    assert set(await disk.read([f"resp_{number}" for number in range(5)])) == {"resp_0", "resp_1"}
    assert disk.dropped == 3
    await disk.stop()


async def test_a_response_that_a_crash_cut_off_has_failed(open_disk: Open) -> None:
    disk = await open_disk()
    disk.write(entry("resp_1", status="in_progress"))
    await disk.stop()
    found = (await (await open_disk()).read(["resp_1"]))["resp_1"]
    assert found.status == "failed"
    assert orjson.loads(found.response)["error"]["code"] == "server_error"
    assert b'"sequence_number":5' in b"".join([chunk async for chunk in replayed(found, 4)])


async def test_everything_goes_through_the_database(api: ResponsesApi, engine: FakeEngine, open_disk: Open) -> None:
    """Without memory: each step reads what the steps before it wrote."""
    disk = await open_disk()
    deps.configure(catalog=engine.catalog, responses=Responses(ResponseStore(disk, memory_bytes=1)))
    first = await api.create("One")
    second = await api.create("Two", previous_response_id=first["id"])
    background = await api.events("Three", previous_response_id=second["id"], background=True)
    await written(disk)
    third = background[-1]["response"]
    assert await api.fetch(third["id"]) == third
    replay = (await api.send("GET", f"{RESPONSES}/{third['id']}?stream=true&starting_after=3"))[2]
    assert events_of(replay, first=4) == background[4:]
    await api.create("Four", previous_response_id=third["id"])
    messages = engine.requests[-1].messages
    assert messages is not None
    assert [one["content"] for one in messages] == ["One", "Hello", "Two", "Hello", "Three", "Hello", "Four"]
    await written(disk)
    assert await rows(lambda table: table.count()) == 4


async def test_a_broken_store_keeps_nobody_from_an_answer(
    api: ResponsesApi, engine: FakeEngine, open_disk: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = await open_disk()
    deps.configure(catalog=engine.catalog, responses=Responses(ResponseStore(disk, memory_bytes=1)))

    def broken(*_: Any) -> Any:
        raise DatabaseError("database disk image is malformed")

    for name in ("_write", "_read", "_chain", "_remove"):
        monkeypatch.setattr(disk, name, broken)
    made = await api.create()
    await api.create()  # takes the first one's place in memory
    await written(disk)
    assert (await api.get(f"{RESPONSES}/{made['id']}"))[0] == 404
    status, error = await api.refused(previous_response_id=made["id"])
    assert (status, error["code"]) == (400, "previous_response_not_found")
