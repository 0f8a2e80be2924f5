"""Domain events in the log."""

from __future__ import annotations

import logging

import pytest

from lmx_site import event_log
from lmx_site.event_log import log_event
from monitoring.hub import EVENTS, Hub


def test_events_become_lines_and_bad_news_warnings(caplog: pytest.LogCaptureFixture) -> None:
    hub = Hub()
    hub.tap(log_event)
    with caplog.at_level(logging.INFO):
        hub.emit("model.loaded", model="a", seconds=1.5)
        hub.emit("worker.died", model="a", cause="signal 9")
        hub.emit("auto_load.failed", model="b", code="model_not_found", message="there is no model b")
        hub.emit("request.refused", model="a", code="invalid_request", message="temperature must be a number")
        hub.emit("request.refused", model="a", code="insufficient_memory", message="a needs 9 GB")
        hub.publish("memory", {"used": 1})
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "model.loaded a"),
        ("WARNING", "worker.died a: signal 9"),
        ("WARNING", "auto_load.failed b: there is no model b"),
        ("INFO", "request.refused a: temperature must be a number"),
        ("WARNING", "request.refused a: a needs 9 GB"),
    ]
    assert caplog.records[0].fields == {"model": "a", "seconds": 1.5}  # type: ignore[attr-defined]


def test_the_topic_is_the_hubs() -> None:
    assert event_log.TOPIC == EVENTS
