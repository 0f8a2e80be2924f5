"""The audit log: what is written stays, what cannot be written waits, what strangers chose does no harm."""

from __future__ import annotations

import csv
import io
import json
import re
import time
from collections.abc import AsyncIterator
from concurrent.futures import CancelledError
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import DatabaseError, IntegrityError, connections
from django.db.models import QuerySet
from django.test import AsyncClient

from monitoring import audit, audit_page
from monitoring.audit import AuditLog, AuditQueue, Entry, Wanted, heard
from monitoring.audit_export import header, lines
from monitoring.hub import Hub
from monitoring.models import AuditRow
from monitoring.telemetry import TelemetryWriter

RECENT = time.time()
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


def entry(subject: str = "org/one", **changes: Any) -> Entry:
    return Entry(
        **{"who": "owner", "who_kind": "owner", "via": "api", "action": "load_model", "subject": subject, **changes}
    )


async def test_it_works(writer: TelemetryWriter) -> None:
    writer.audit(entry(detail={"context": 4096}, status=200, address="127.0.0.1", at=RECENT))
    writer.audit(entry("org/two", action="delete_model", outcome="refused", reason="model_loaded", at=RECENT - 60))
    await writer.flush()
    newest, oldest = await AuditLog().entries(10)
    assert (newest["subject"], newest["outcome"], newest["reason"]) == ("org/two", "refused", "model_loaded")
    assert (oldest["detail"], oldest["status"], oldest["address"]) == ({"context": 4096}, 200, "127.0.0.1")
    for wanted in ({"action": "delete_model"}, {"model": "TWO"}, {"outcome": "refused"}, {"until": RECENT}):
        assert [one["id"] for one in await AuditLog().entries(10, **wanted)] == [newest["id"]], wanted
    for wanted in ({"since": RECENT}, {"before": newest["id"]}, {"model": "one", "who": "owner", "via": "api"}):
        assert [one["id"] for one in await AuditLog().entries(10, **wanted)] == [oldest["id"]], wanted
    parts = [[one["id"] for one in part] async for part in AuditLog().pages()]
    assert parts == [[newest["id"], oldest["id"]]]


async def test_an_export_of_many_is_whole(writer: TelemetryWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "_PAGE", 3)
    for number in range(8):
        writer.audit(entry(str(number)))
    await writer.flush()
    parts = [[one["subject"] for one in part] async for part in AuditLog().pages()]
    assert parts == [["7", "6", "5"], ["4", "3", "2"], ["1", "0"]]


async def test_what_is_written_is_not_changed(writer: TelemetryWriter) -> None:
    writer.audit(entry())
    await writer.flush()

    def change() -> None:
        try:
            AuditRow.objects.using("telemetry").update(who="nobody")
        finally:
            connections["telemetry"].close()

    with pytest.raises(IntegrityError, match="not changed"):
        await sync_to_async(change)()
    assert [one["who"] for one in await AuditLog().entries(10)] == ["owner"]


def test_what_cannot_be_written_waits(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    queue = AuditQueue()
    first = queue.add(entry("a"))
    with monkeypatch.context() as broken:
        broken.setattr(QuerySet, "bulk_create", _refuse)
        queue.write()
        queue.write()
    assert not first.done()
    assert caplog.text.count("the audit log cannot be written") == 1
    second = queue.add(entry("b"))
    queue.write()
    assert first.result(0) is None
    assert second.result(0) is None
    assert [row.subject for row in Wanted().rows()] == ["b", "a"]


def _refuse(*args: object, **kwargs: object) -> None:
    raise DatabaseError("database or disk is full")


def test_what_can_never_be_written_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    queue = AuditQueue(most_waiting=1)
    lost, last = queue.add(entry("first")), queue.add(entry("second"))
    assert "'subject': 'first'" in caplog.text
    queue.give_up()
    assert "'subject': 'second'" in caplog.text
    for future in (lost, last):
        with pytest.raises(CancelledError):
            future.result(0)


def test_entries_go_when_they_are_old(writer: TelemetryWriter) -> None:
    queue = AuditQueue()
    for day in (0, 39, 41):
        queue.add(entry(str(day), at=1e9 - day * audit.DAY))
    queue.write()
    audit.thin(1e9, keep_days=40)
    assert sorted(row.subject for row in Wanted().rows()) == ["0", "39"]


def test_what_strangers_chose_is_bounded_and_text() -> None:
    queue = AuditQueue()
    queue.add(entry("x" * 9999, who="a\x00b\ud800\x1b[31m", reason="r" * 999, detail={"deep": {"a": [object()]}}))
    queue.write()
    [row] = Wanted(who="a\x00b\ud800\x1b[31m").rows()
    assert (len(row.subject), row.who, len(row.reason)) == (512, "a\ufffdb\ufffd\ufffd[31m", 300)


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (
            {"kind": "model.loading", "model": "m", "wanted": "request", "by": "bot-3", "request": "r1"},
            ("bot-3", "request", "load_model", "", "r1"),
        ),
        ({"kind": "model.loading", "model": "m", "wanted": "owner", "by": "owner"}, None),
        (
            {"kind": "model.loading", "model": "m", "wanted": "server"},
            ("Opta-LMX", "server", "load_model", "models.auto_load", ""),
        ),
        (
            {"kind": "model.evicted", "model": "m", "message": "room for n"},
            ("Opta-LMX", "server", "unload_model", "room for n", ""),
        ),
        ({"kind": "job.done", "job": 1}, None),
        ({}, None),
    ],
)
def test_what_events_tell(event: dict[str, Any], told: tuple[str, ...] | None) -> None:
    found = heard(event)
    assert (found and (found.who, found.via, found.action, found.reason, found.request_id)) == told


async def test_events_of_the_hub_become_entries(hub: Hub, writer: TelemetryWriter) -> None:
    hub.emit("model.evicted", model="org/one", message="idle for 5 m")
    hub.emit("model.loaded", model="org/one")
    await writer.flush()
    assert [(one["subject"], one["reason"]) for one in await AuditLog().entries(10)] == [("org/one", "idle for 5 m")]


def test_lines_of_an_export() -> None:
    row = AuditRow(id=7, at=0.5, who="=cmd()", who_kind="key", via="api", action="load_model", outcome="done")
    row.subject, row.detail = 'a,"b"\nc', {"n": 1}
    told = audit.told(row)
    read = list(csv.reader(io.StringIO(header("csv") + lines([told], "csv"), newline="")))
    assert read[0][:3] == ["id", "time", "who"]
    assert read[1][:3] == ["7", "1970-01-01T00:00:00.500+00:00", "'=cmd()"]
    assert read[1][7:9] == ['a,"b"\nc', "done"]
    assert read[1][-1] == '{"n": 1}'
    [line] = (header("jsonl") + lines([told], "jsonl")).splitlines()
    assert json.loads(line)["who"] == "=cmd()"


async def test_the_page_runs_no_script_or_style_but_our_files(writer: TelemetryWriter) -> None:
    writer.audit(entry("<script>alert(1)</script>", who='"><b>', detail={"<i>": ["</td>", 1, None]}))
    await writer.flush()
    response = await AsyncClient().get("/audit?model=%3Cscript%3E&before=x&outcome=nonsense")
    page = response.content.decode()
    assert "default-src 'self'" in response.headers["Content-Security-Policy"]
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>" not in page
    assert [mark for mark in ("<b>", "<i>", " style=") if mark in page] == []


async def test_older_entries_are_a_page_away(writer: TelemetryWriter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_page, "SHOWN", 2)
    for number in range(3):
        writer.audit(entry(f"model-{number}"))
    await writer.flush()
    newest = (await AsyncClient().get("/audit?via=api")).content.decode()
    assert re.findall(r"model-\d", newest) == ["model-2", "model-1"]
    [older] = re.findall(r'href="(\?[^"]*before=[^"]*)"', newest)
    assert "via=api" in older
    last = (await AsyncClient().get("/audit" + older.replace("&amp;", "&"))).content.decode()
    assert re.findall(r"model-\d", last) == ["model-0"]
    assert "before=" not in last
