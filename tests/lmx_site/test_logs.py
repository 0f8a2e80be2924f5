"""Log lines: their shape, what they carry, what they leave out."""

from __future__ import annotations

import json
import logging
import sys
import threading
from collections.abc import Iterator
from logging.handlers import QueueHandler
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from inference.request_id import request_id
from lmx_site import logs
from lmx_site.config_model import LoggingSection


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """A log file whose handlers are gone after the test."""
    root, access = logging.getLogger(), logging.getLogger("lmx.access")
    kept, level, raises = root.handlers[:], root.level, logging.raiseExceptions
    yield tmp_path / "server.log"
    for handler in [handler for handler in root.handlers if handler not in kept]:
        assert not isinstance(handler, QueueHandler), "a test did not stop its writer"
        handler.close()
    root.handlers[:], logging.raiseExceptions, access.disabled = kept, raises, False
    root.setLevel(level)
    for name in logs.CHATTY:
        logging.getLogger(name).setLevel(logging.NOTSET)


def error_record(error: Exception) -> logging.LogRecord:
    try:
        raise error
    except Exception:
        return logging.LogRecord("x", logging.ERROR, __file__, 1, "failed", (), sys.exc_info())


def test_structured_lines_are_json_with_fields_and_request(file: Path) -> None:
    writer = logs.set_up(LoggingSection(format="structured"), file)
    token = request_id.set("req_1")
    logging.getLogger("lmx.access").info("GET %s", "/v1/models", extra={"fields": {"client": "bot-3", "ms": 1.5}})
    request_id.reset(token)
    writer.stop()
    entry = json.loads(file.read_text())
    assert entry["message"] == "GET /v1/models"
    assert (entry["request"], entry["client"], entry["ms"], entry["level"]) == ("req_1", "bot-3", 1.5, "INFO")
    assert entry["time"].endswith("+00:00")


def test_text_lines_are_one_line_each_whatever_a_client_sends(file: Path) -> None:
    writer = logs.set_up(LoggingSection(format="text"), file)
    logging.getLogger("x").warning("asked for %s", "a\n2026 ERROR forged")
    writer.stop()
    assert len(file.read_text().splitlines()) == 1


def test_the_level_and_the_access_switch_are_obeyed(file: Path) -> None:
    writer = logs.set_up(LoggingSection(level="ERROR", access=False), file)
    logging.getLogger("x").warning("quiet")
    logging.getLogger("lmx.access").error("quiet too")
    logging.getLogger("x").error("heard")
    writer.stop()
    assert [json.loads(line)["message"] for line in file.read_text().splitlines()] == ["heard"]


def test_tracebacks_are_kept_and_messages_that_quote_their_input_are_not() -> None:
    class Wanted(BaseModel):
        number: int

    formatter = logs.JsonFormatter()
    assert (
        "RuntimeError: plain words"
        in json.loads(formatter.format(error_record(RuntimeError("plain words"))))["exception"]
    )
    prompt = "-".join(("secret", "prompt"))  # so that this line, which a traceback shows, does not hold it
    with pytest.raises(ValidationError) as caught:
        Wanted.model_validate({"number": prompt})
    wrapped = RuntimeError("outer")
    wrapped.__cause__ = caught.value
    for error in (caught.value, wrapped):
        for one in (formatter, logs.TextFormatter()):
            text = one.format(error_record(error))
            assert prompt not in text
            assert "test_logs.py" in text


class SlowDisk(logging.Handler):
    """Takes its first line at once and is then held until ``gate`` opens."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.reached = threading.Event(), threading.Event()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        self.reached.set()
        assert self.gate.wait(30)


@pytest.fixture
def disk() -> Iterator[SlowDisk]:
    disk = SlowDisk()
    yield disk
    disk.gate.set()


def said(writer: logs.LogWriter, text: str, *args: object) -> None:
    writer.sender.handle(logging.LogRecord("x", logging.INFO, __file__, 1, text, args, None))


def test_a_slow_disk_holds_up_nobody_and_gets_everything_before_the_end(disk: SlowDisk) -> None:
    writer = logs.LogWriter(disk)
    writer.start()
    names = ["one"]
    said(writer, "first %s", names)
    names[0] = "changed since"
    assert disk.reached.wait(30)
    for number in range(100):
        said(writer, "line %d", number)
    assert len(disk.lines) == 1  # it is still writing the first, and we are here
    disk.gate.set()
    writer.stop()
    assert disk.lines == ["first ['one']", *(f"line {number}" for number in range(100))]


def test_what_does_not_fit_is_counted(disk: SlowDisk) -> None:
    writer = logs.LogWriter(disk, waiting=2)
    writer.start()
    said(writer, "first")
    assert disk.reached.wait(30)
    for number in range(5):
        said(writer, "line %d", number)
    disk.gate.set()
    writer.stop()
    assert disk.lines[1] == "3 lines were left out: they came faster than they could be written"
    assert disk.lines[2:] == ["line 0", "line 1"]


def test_what_is_logged_after_the_end_is_written_too(file: Path) -> None:
    logs.set_up(LoggingSection(), file).stop()
    logging.getLogger("x").warning("late")
    assert json.loads(file.read_text())["message"] == "late"
