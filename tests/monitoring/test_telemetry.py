"""The writer: what was put is there after a flush, and a database that fails holds nobody up."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import DatabaseError, connections

from monitoring.history import History
from monitoring.hub import Hub
from monitoring.models import EventRow, MemorySample, RequestRow
from monitoring.telemetry import TelemetryWriter, decode_rate, event_row, request_row, thin
from tests.monitoring.fakes import record

pytestmark = pytest.mark.django_db(databases=["default", "telemetry"], transaction=True)


@pytest.fixture
def hub() -> Hub:
    return Hub()


@pytest.fixture
async def writer(hub: Hub) -> AsyncIterator[TelemetryWriter]:
    writer = TelemetryWriter(hub)
    await writer.start()
    yield writer
    await writer.stop()


@sync_to_async
def keep(row: RequestRow) -> None:
    row.save(using="telemetry")
    connections["telemetry"].close()


@sync_to_async
def rows(table: Any, *fields: str) -> list[Any]:
    found = list(table.objects.values_list(*fields))
    connections["telemetry"].close()
    return found


def memory(at: float = 1_800_000_000.0, **changes: Any) -> dict[str, Any]:
    model = {"id": "one", "colour": 1, "footprint": 6, "weights": 4, "kv": 1, "cache": 1, "rate": 12.5}
    base = {"at": at, "total": 100, "used": 50, "available": 50, "limit": 90, "limit_percent": 90.0}
    return {**base, "gpu_limit": None, "other": 44, "models": [model], **changes}


async def test_it_works(hub: Hub, writer: TelemetryWriter) -> None:
    writer.put(record("one", id="r9", prompt_tokens=7, completion_tokens=3, status=200, finish_reason="stop"))
    hub.emit("worker.died", model="one", cause="signal 9", lines=["a", "b"])
    hub.publish("memory", memory())
    await writer.flush()
    assert await rows(RequestRow, "request_id", "client", "prompt_tokens") == [("r9", "bot-3", 7)]
    ((kind, model, data),) = await rows(EventRow, "kind", "model", "data")
    assert (kind, model, data) == ("worker.died", "one", {"cause": "signal 9", "lines": ["a", "b"]})
    assert await rows(MemorySample, "at", "models") == [(1_800_000_000, {"one": [4, 2, 12.5]})]


async def test_stop_writes_what_is_queued(hub: Hub) -> None:
    writer = TelemetryWriter(hub, interval_s=3600)
    await writer.start()
    for number in range(1200):
        writer.put(record("one", id=str(number)))
    await writer.stop()
    await writer.stop()
    assert len(await rows(RequestRow, "id")) == 1200
    hub.emit("late")  # its tap is gone
    assert not writer._queue


async def test_a_full_queue_drops_and_counts(hub: Hub) -> None:
    writer = TelemetryWriter(hub, queue_limit=10)
    for _ in range(25):
        writer.put(record("one"))
    assert (len(writer._queue), writer.dropped) == (10, 15)


@contextmanager
def broken_database(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise DatabaseError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr("django.db.models.query.QuerySet.bulk_create", fail)
        yield


async def test_a_full_disk_is_said_once_and_costs_only_history(
    writer: TelemetryWriter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with broken_database(monkeypatch):
        for _ in range(3):
            writer.put(record("one"))
            await writer.flush()
    assert writer.dropped == 3
    assert caplog.text.count("history cannot be written") == 1
    writer.put(record("one", id="after"))
    await writer.flush()
    assert await rows(RequestRow, "request_id") == [("after",)]


async def test_an_entry_that_cannot_be_kept_does_not_stop_the_writer(
    hub: Hub, writer: TelemetryWriter, caplog: pytest.LogCaptureFixture
) -> None:
    hub.publish("memory", {"at": "nonsense"})
    await writer.flush()
    assert "a batch could not be written" in caplog.text
    writer.put(record("one", id="after"))
    await writer.flush()
    assert await rows(RequestRow, "request_id") == [("after",)]


async def test_latency_is_published_per_model(hub: Hub, writer: TelemetryWriter) -> None:
    for ttft in (0.1, 0.2, 0.9):
        writer.put(record("one", received=100.0, first_token=100 + ttft, finished=101 + ttft, completion_tokens=11))
    writer.put(record("two", received=100.0, error_code="x"))
    await writer.flush()
    assert hub.latest("latency") == {"one": {"ttft_ms": 200.0, "tokens_per_second": 10.0}}


def test_decode_rate_needs_two_tokens() -> None:
    assert decode_rate(record("one", first_token=100.0, finished=102.0, completion_tokens=1)) is None
    assert decode_rate(record("one", first_token=100.0, finished=102.0, completion_tokens=5)) == 2.0


def sample(at: int) -> MemorySample:
    return MemorySample(at=at, total=1, used=1, other=1, limit=1, models={})


def test_old_samples_become_coarser() -> None:
    now = 1_800_000_000
    ages = {"hour": 1800, "day": 7200, "month": 2 * 86_400, "gone": 31 * 86_400}
    MemorySample.objects.bulk_create([sample(now - age + n) for age in ages.values() for n in range(120)])
    thin(now)
    kept = list(MemorySample.objects.values_list("at", flat=True))
    count = {name: sum(now - age <= at < now - age + 120 for at in kept) for name, age in ages.items()}
    assert count == {"hour": 120, "day": 12, "month": 2, "gone": 0}


def test_history_ends_where_the_owner_says() -> None:
    now = 1_800_000_000
    ages = {"young": 6 * 86_400, "old": 8 * 86_400}
    for name, age in ages.items():
        request_row(record("one", id=name, received=float(now - age))).save(using="telemetry")
        event_row({"seq": age, "at": float(now - age), "kind": name}).save(using="telemetry")
    MemorySample.objects.bulk_create([sample(now - age) for age in ages.values()])
    thin(now, history_days=7)
    assert list(RequestRow.objects.values_list("request_id", flat=True)) == ["young"]
    assert list(EventRow.objects.values_list("kind", flat=True)) == ["young"]
    assert list(MemorySample.objects.values_list("at", flat=True)) == [now - ages["young"]]


async def test_it_makes_room_by_itself(hub: Hub) -> None:
    await keep(request_row(record("one", id="old", received=time.time() - 3 * 86_400)))
    writer = TelemetryWriter(hub, history_days=2)
    await writer.start()
    await writer.flush()
    await writer.stop()
    assert await rows(RequestRow, "request_id") == []


def test_the_last_hour_is_there_after_a_restart() -> None:
    now = int(time.time())
    MemorySample.objects.bulk_create([sample(now - 7200), sample(now - 60), sample(now - 30)])
    history = History()
    history.prepend(history.restore(now))
    assert history.columns(3600, 720)["at"] == [now - 60, now - 30]
