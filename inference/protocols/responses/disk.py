"""Responses on disk: Django's ``responses`` database behind one thread, bounded in number, bytes and age.

Nobody waits for a write. One that fails (a full disk, a broken file) is logged once and dropped: its response was
answered, and is not found later. What was used longest ago makes room for what comes.
"""

from __future__ import annotations

import asyncio
import logging
import time
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import orjson
from django.db import DatabaseError, connections, transaction
from django.db.models import Count, Sum

from inference.models import StoredResponse
from inference.protocols.responses.store import Stored, Turn

log = logging.getLogger(__name__)

DATABASE = "responses"
DAY_S = 86_400
SWEEP_S = 3600.0
PENDING_BYTES = 64 * 1024 * 1024
STOP_LIMIT_S = 5.0
_ROOM = 0.9  # how much is left after making room, so that it is not made for each response anew
_LEVEL = 1
_AT_ONCE = 500
_UNFINISHED = ("queued", "in_progress")

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Bounds:
    """What may be kept: how many responses, bytes of them as stored, and days since the last use."""

    count: int = 100_000
    bytes: int = 1024 * 1024 * 1024
    days: float = 30


class Disk:
    """Implements ``store.Keeper``. ``dropped`` counts responses that could not be written."""

    def __init__(self, bounds: Bounds, *, pending_bytes: int = PENDING_BYTES) -> None:
        self._bounds = bounds
        self._pending: dict[str, Stored] = {}
        self._pending_size = 0
        self._pending_limit = pending_bytes
        self._thread: ThreadPoolExecutor | None = None
        self._complained = False
        self._count = 0
        self._bytes = 0
        self._swept = float("-inf")
        self.dropped = 0

    # ------------------------------------------------------------------------------------------- the loop's side

    async def start(self) -> None:
        """Begin. Responses that a stop or crash cut off are told to have failed."""
        self._thread = ThreadPoolExecutor(1, "responses-store")
        await self._do(self._begin, None)

    async def stop(self) -> None:
        """Write what was taken; gives up after a few seconds if the database does not answer."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        closed = asyncio.wrap_future(thread.submit(lambda: connections[DATABASE].close()))  # the thread's own
        thread.shutdown(wait=False)
        done, _ = await asyncio.wait({closed}, timeout=STOP_LIMIT_S)
        if not done:
            log.error("responses: the database did not answer within %.0f s; the last ones are lost", STOP_LIMIT_S)

    def write(self, entry: Stored) -> None:
        if self._thread is None:
            return
        self._unpend(entry.id)
        if self._pending_size + entry.size > self._pending_limit:
            self._lose("too many wait to be written")
            return
        self._pending[entry.id] = entry
        self._pending_size += entry.size
        loop = asyncio.get_running_loop()
        written = loop.run_in_executor(self._thread, self._guarded, lambda: self._write(entry), None)
        written.add_done_callback(lambda _: self._written(entry))

    def pending(self, response_id: str) -> Stored | None:
        return self._pending.get(response_id)

    async def read(self, ids: Iterable[str]) -> dict[str, Stored]:
        wanted = list(ids)
        nothing: dict[str, Stored] = {}
        return await self._do(lambda: self._read(wanted), nothing)

    async def chain(self, last: str, limit: int) -> list[Turn]:
        nothing: list[Turn] = []
        return await self._do(lambda: self._chain(last, limit), nothing)

    def touch(self, ids: list[str]) -> None:
        if self._thread is not None:
            self._thread.submit(self._guarded, lambda: self._touch(ids), None)

    async def remove(self, response_id: str) -> bool:
        self._unpend(response_id)
        return await self._do(lambda: self._remove([response_id]) > 0, False)

    async def _do(self, work: Callable[[], Value], otherwise: Value) -> Value:
        if self._thread is None:
            return otherwise
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._guarded, work, otherwise)

    def _written(self, entry: Stored) -> None:
        if self._pending.get(entry.id) is entry:
            self._unpend(entry.id)

    def _unpend(self, response_id: str) -> None:
        found = self._pending.pop(response_id, None)
        if found is not None:
            self._pending_size -= found.size

    # ----------------------------------------------------------------------------------------- the thread's side

    def _guarded(self, work: Callable[[], Value], otherwise: Value) -> Value:
        try:
            result = work()
        except (DatabaseError, OSError, zlib.error, ValueError) as error:
            connections[DATABASE].close()
            self._lose(str(error))
            return otherwise
        except Exception:
            log.exception("responses: the store failed")
            return otherwise
        self._complained = False
        return result

    def _lose(self, why: str) -> None:
        self.dropped += 1
        if not self._complained:
            self._complained = True
            log.error("responses cannot be stored or read (%s); they are answered, but not found later", why)

    def _begin(self) -> None:
        self._measure()
        for row in StoredResponse.objects.using(DATABASE).filter(status__in=_UNFINISHED).iterator():
            entry = _entry(row)
            self._write(_cut_off(entry))
        self._sweep()

    def _measure(self) -> None:
        totals = StoredResponse.objects.using(DATABASE).aggregate(count=Count("id"), bytes=Sum("size"))
        self._count, self._bytes = totals["count"], totals["bytes"] or 0

    def _write(self, entry: Stored) -> None:
        row = _row(entry)
        if row.size > self._bounds.bytes * _ROOM:
            return
        with transaction.atomic(using=DATABASE):
            self._remove([entry.id])
            row.save(using=DATABASE, force_insert=True)
        self._count += 1
        self._bytes += row.size
        if self._count > self._bounds.count or self._bytes > self._bounds.bytes:
            self._make_room()
        self._sweep()

    def _read(self, ids: list[str]) -> dict[str, Stored]:
        found = {row.id: _entry(row) for row in StoredResponse.objects.using(DATABASE).filter(pk__in=ids)}
        self._touch(list(found))
        return found

    def _chain(self, last: str, limit: int) -> list[Turn]:
        found: list[Turn] = []
        at: str | None = last
        rows = StoredResponse.objects.using(DATABASE).defer("response", "events")
        while at is not None and len(found) < limit:
            row = rows.filter(pk=at).first()
            if row is None:
                break
            inputs, output = _unpacked(row.inputs), _unpacked(row.output)
            found.append(Turn(row.id, row.owner, row.previous, row.status, inputs, output))
            at = row.previous
        return found

    def _touch(self, ids: list[str]) -> None:
        now = time.time()
        for start in range(0, len(ids), _AT_ONCE):
            part = ids[start : start + _AT_ONCE]
            StoredResponse.objects.using(DATABASE).filter(pk__in=part).update(used=now)

    def _remove(self, ids: list[str]) -> int:
        rows = StoredResponse.objects.using(DATABASE).filter(pk__in=ids)
        totals = rows.aggregate(count=Count("id"), bytes=Sum("size"))
        if totals["count"]:
            rows.delete()
            self._count -= totals["count"]
            self._bytes -= totals["bytes"]
        return int(totals["count"])

    def _make_room(self) -> None:
        """Delete what was used longest ago, until a tenth is free."""
        rows = StoredResponse.objects.using(DATABASE).order_by("used", "created")
        count, size = self._count, self._bytes
        doomed: list[str] = []
        for response_id, bytes_ in rows.values_list("id", "size").iterator():
            if count <= self._bounds.count * _ROOM and size <= self._bounds.bytes * _ROOM:
                break
            doomed.append(response_id)
            count, size = count - 1, size - bytes_
        for start in range(0, len(doomed), _AT_ONCE):
            self._remove(doomed[start : start + _AT_ONCE])

    def _sweep(self) -> None:
        """Once an hour: delete what nobody has used for the days that are kept."""
        if time.monotonic() < self._swept + SWEEP_S:
            return
        self._swept = time.monotonic()
        oldest = time.time() - self._bounds.days * DAY_S
        StoredResponse.objects.using(DATABASE).filter(used__lt=oldest).delete()
        self._measure()


def _row(entry: Stored) -> StoredResponse:
    packed = {name: zlib.compress(getattr(entry, name), _LEVEL) for name in ("response", "inputs", "output")}
    return StoredResponse(
        id=entry.id,
        owner=entry.owner[:200],
        previous=entry.previous,
        status=entry.status,
        created=entry.created,
        used=time.time(),
        size=sum(map(len, packed.values())) + len(entry.events or b""),
        events=entry.events,
        **packed,
    )


def _entry(row: StoredResponse) -> Stored:
    return Stored(
        row.id,
        row.owner,
        row.previous,
        row.status,
        row.created,
        _unpacked(row.response),
        _unpacked(row.inputs),
        _unpacked(row.output),
        bytes(row.events) if row.events is not None else None,
    )


def _unpacked(data: bytes | memoryview) -> bytes:
    return zlib.decompress(bytes(data))


def _cut_off(entry: Stored) -> Stored:
    """A background response as it is after the server that made it has gone."""
    response = orjson.loads(entry.response)
    response["status"] = "failed"
    response["error"] = {"code": "server_error", "message": "the server stopped before this response was finished"}
    return replace(entry, status="failed", response=orjson.dumps(response))
