"""Writes what happened into the ``telemetry`` database, in batches, without ever holding anybody up.

``put`` costs the caller an append. One thread owns the database connection and writes twice a second. When the disk
is full or the database locked, the batch is dropped and counted, and the log says so once.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from statistics import median
from typing import Any

import msgspec
from django.db import DatabaseError, connections
from django.db.models import F

from inference.records import RequestRecord
from monitoring import audit
from monitoring.hub import EVENTS, Hub
from monitoring.models import EventRow, MemorySample, RequestRow
from monitoring.payloads import LATENCY, MEMORY, Latency, Memory

log = logging.getLogger(__name__)

DATABASE = "telemetry"
QUEUE_LIMIT = 20_000
INTERVAL_S = 0.5
THIN_INTERVAL_S = 600.0
STOP_LIMIT_S = 5.0
LATENCY_WINDOW = 20
HISTORY_DAYS = 30
HOUR, DAY = 3600, 86_400


class TelemetryWriter:
    """A ``RecordSink``; also takes the hub's events and memory samples. ``dropped`` counts what could not be kept.

    ``history_days`` is how long anything is kept but the audit log, which stays for ``audit_days``.
    """

    def __init__(
        self,
        hub: Hub,
        *,
        history_days: int = HISTORY_DAYS,
        audit_days: int = audit.KEEP_DAYS,
        queue_limit: int = QUEUE_LIMIT,
        interval_s: float = INTERVAL_S,
    ) -> None:
        self._hub = hub
        self._history_days, self._audit_days = history_days, audit_days
        self._audit = audit.AuditQueue()
        self._queue: deque[Any] = deque()
        self._limit = queue_limit
        self._interval = interval_s
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._untap: Callable[[], Any] | None = None
        self._complained = False
        self._recent: dict[str, deque[tuple[float, float | None]]] = {}
        self._thinned_at = float("-inf")
        self.dropped = 0

    # ------------------------------------------------------------------------------------------------- any thread

    def put(self, record: RequestRecord) -> None:
        """Take a finished request."""
        if len(self._queue) < self._limit:
            self._queue.append(record)
        else:
            self.dropped += 1

    def audit(self, entry: audit.Entry) -> Future[None]:
        """Take an entry of the audit log and write it at once; the future is done when it is on the disk."""
        written = self._audit.add(entry)
        self._wake.set()
        return written

    def _tapped(self, topic: str, payload: Any) -> None:
        if topic == EVENTS and (entry := audit.heard(payload)) is not None:
            self.audit(entry)
        if topic in (EVENTS, MEMORY):
            if len(self._queue) < self._limit:
                self._queue.append((topic, payload))
            else:
                self.dropped += 1

    # --------------------------------------------------------------------------------------------------- lifetime

    async def start(self) -> None:
        if self._thread is not None:
            return
        self._stopping = False
        self._untap = self._hub.tap(self._tapped)
        self._thread = threading.Thread(target=self._run, name="telemetry-writer", daemon=True)
        self._thread.start()

    async def flush(self) -> None:
        """Return when everything put so far is written (or dropped)."""
        done: Future[None] = Future()
        self._queue.append(done)
        self._wake.set()
        await asyncio.wrap_future(done)

    async def stop(self) -> None:
        """Write what is queued and end the thread; gives up after a few seconds if the database does not answer."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        if self._untap is not None:
            self._untap()
        self._stopping = True
        self._wake.set()
        await asyncio.to_thread(thread.join, STOP_LIMIT_S)
        if thread.is_alive():
            log.error("telemetry: the database did not answer within %.0f s; the last entries are lost", STOP_LIMIT_S)

    # ------------------------------------------------------------------------------------------ the writer's thread

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._wake.wait(self._interval)
                self._wake.clear()
                self._turn()
            self._turn()
        finally:
            self._audit.give_up()
            connections[DATABASE].close()

    def _turn(self) -> None:
        items = self._drain()
        try:
            self._audit.write()
            self._write(items)
            self._thin()
        except Exception:
            log.exception("telemetry: a batch could not be written")
        for item in items:
            if isinstance(item, Future):
                item.set_result(None)

    def _drain(self) -> list[Any]:
        return [self._queue.popleft() for _ in range(len(self._queue))]

    def _write(self, items: list[Any]) -> None:
        records = [item for item in items if isinstance(item, RequestRecord)]
        events = [item[1] for item in items if isinstance(item, tuple) and item[0] == EVENTS]
        samples = [item[1] for item in items if isinstance(item, tuple) and item[0] == MEMORY]
        self._keep(RequestRow, [request_row(record) for record in records])
        self._keep(EventRow, [event_row(event) for event in events])
        self._keep(MemorySample, [memory_row(sample) for sample in samples])
        self._publish_latency(records)

    def _keep(self, table: Any, rows: list[Any]) -> None:
        if not rows:
            return
        try:
            table.objects.using(DATABASE).bulk_create(rows, batch_size=500, ignore_conflicts=True)
        except (DatabaseError, OSError) as error:
            self._lose(len(rows), error)
        else:
            self._complained = False

    def _lose(self, count: int, error: Exception) -> None:
        self.dropped += count
        if not self._complained:
            log.error("telemetry: history cannot be written (%s); it is dropped until it can be", error)
            self._complained = True
        connections[DATABASE].close()

    def _publish_latency(self, records: list[RequestRecord]) -> None:
        timed = [record for record in records if record.first_token is not None and record.model]
        for record in timed:
            assert record.first_token is not None
            window = self._recent.setdefault(record.model, deque(maxlen=LATENCY_WINDOW))
            window.append((record.first_token - record.received, decode_rate(record)))
        if timed:
            self._hub.publish(LATENCY, {model: _latency(window) for model, window in self._recent.items()})

    def _thin(self) -> None:
        """Once in a while make room: see ``thin``."""
        if time.monotonic() < self._thinned_at + THIN_INTERVAL_S:
            return
        self._thinned_at = time.monotonic()
        try:
            thin(int(time.time()), self._history_days)
            audit.thin(time.time(), self._audit_days)
        except (DatabaseError, OSError) as error:
            self._lose(0, error)


def thin(now: int, history_days: int = HISTORY_DAYS) -> None:
    """Delete what is older than ``history_days``, and memory samples that are finer than their age deserves.

    Samples stay per second for an hour, per ten seconds for a day, then per minute.
    """
    oldest = now - history_days * DAY
    RequestRow.objects.using(DATABASE).filter(received__lt=oldest).delete()
    EventRow.objects.using(DATABASE).filter(at__lt=oldest).delete()
    rows = MemorySample.objects.using(DATABASE)
    rows.filter(at__lt=oldest).delete()
    rows.filter(at__lt=now - DAY).alias(rest=F("at") % 60).exclude(rest=0).delete()
    rows.filter(at__gte=now - DAY, at__lt=now - HOUR).alias(rest=F("at") % 10).exclude(rest=0).delete()


def decode_rate(record: RequestRecord) -> float | None:
    """Tokens per second after the first token; None where there were too few to tell."""
    if record.first_token is None or record.completion_tokens < 2:
        return None
    seconds = (record.finished or time.time()) - record.first_token
    return (record.completion_tokens - 1) / seconds if seconds > 0 else None


def _latency(window: deque[tuple[float, float | None]]) -> Latency:
    rates = [rate for _, rate in window if rate is not None]
    return {
        "ttft_ms": round(median(ttft for ttft, _ in window) * 1000, 1),
        "tokens_per_second": round(median(rates), 1) if rates else None,
    }


def request_row(record: RequestRecord) -> RequestRow:
    return RequestRow(
        request_id=record.id[:64],
        protocol=record.protocol[:32],
        endpoint=record.endpoint[:128],
        client=record.principal.id[:200],
        client_kind=record.principal.kind,
        model_asked=record.model_asked[:300],
        model=record.model[:300],
        stream=record.stream,
        received=record.received,
        prepared=record.prepared,
        queued=record.queued,
        load_waited_s=record.load_waited_s,
        started=record.started,
        first_token=record.first_token,
        finished=record.finished,
        prompt_tokens=record.prompt_tokens,
        cached_tokens=record.cached_tokens,
        completion_tokens=record.completion_tokens,
        reasoning_tokens=record.reasoning_tokens,
        finish_reason=record.finish_reason or "",
        status=record.status,
        error_code=(record.error_code or "")[:64],
        cancelled_by=(record.cancelled_by or "")[:200],
    )


def event_row(entry: dict[str, Any]) -> EventRow:
    fields = {name: value for name, value in entry.items() if name not in ("seq", "at", "kind", "model")}
    return EventRow(
        seq=entry["seq"],
        at=entry["at"],
        kind=str(entry["kind"])[:64],
        model=str(entry.get("model") or "")[:300],
        data=msgspec.to_builtins(fields, enc_hook=str),
    )


def memory_row(memory: Memory) -> MemorySample:
    return MemorySample(
        at=int(memory["at"]),
        total=memory["total"],
        used=memory["used"],
        other=memory["other"],
        limit=memory["limit"],
        gpu_limit=memory["gpu_limit"],
        models={
            model["id"]: [model["weights"], model["kv"] + model["cache"], model["rate"]] for model in memory["models"]
        },
    )
