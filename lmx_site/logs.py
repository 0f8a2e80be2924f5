"""Logging of the server process: one file in the configured format, warnings also to stderr.

The terminal belongs to the announcement, whose lines are there to be pasted: each request below it would push it away.

Log records carry facts in ``extra={"fields": {...}}`` and the id of the request they belong to. Prompt and answer
text never comes here; messages of validation errors quote their input, so tracebacks leave them out.

A thread of its own writes: a slow disk or terminal must not hold up the event loop, and with it every stream. Lines
wait for it in a queue; when that is full they are dropped, and a line says how many.
"""

from __future__ import annotations

import copy
import json
import logging
import queue
import sys
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from logging.handlers import QueueHandler, QueueListener, RotatingFileHandler
from pathlib import Path
from typing import Any

from inference.request_id import request_id
from lmx_site.config_model import LoggingSection

_FILE_BYTES = 20 * 1024 * 1024
_FILES = 5
_WAITING = 10_000
CHATTY = ("daphne", "asyncio", "django.request", "django.security", "django.channels.server", "urllib3", "httpx")
_QUOTING = ("ValidationError",)


class _Safe(logging.Formatter):
    def formatException(self, ei: Any) -> str:
        kind, value, trace = ei
        if any(type(error).__name__ in _QUOTING for error in _chain(value)):
            frames = "".join(traceback.format_tb(trace))
            return f"{frames}{kind.__qualname__}: (the message is left out: it quotes the input)"
        return super().formatException(ei)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


class JsonFormatter(_Safe):
    """One JSON object a line: time, level, logger, message, request, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (identity := _request_of(record)) is not None:
            entry["request"] = identity
        entry.update(getattr(record, "fields", None) or {})
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str, ensure_ascii=False)


class TextFormatter(_Safe):
    """``time LEVEL logger: message key=value``, for people."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created).astimezone().isoformat(sep=" ", timespec="milliseconds")
        line = f"{moment[:23]} {record.levelname:<7} {record.name}: {_one_line(record.getMessage())}"
        fields = getattr(record, "fields", None) or {}
        line += "".join(f" {name}={value}" for name, value in fields.items() if name in ("client", "model", "ms"))
        if (identity := _request_of(record)) is not None:
            line += f" [{identity}]"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _request_of(record: logging.LogRecord) -> str | None:
    identity: str | None = getattr(record, "request_id", None)
    return identity


def _one_line(text: str) -> str:
    """No forged lines: a name or path a client sent may hold anything."""
    return text.replace("\r", "\\r").replace("\n", "\\n")


class _Sender(QueueHandler):
    """Puts records into the queue as they are, with the request they belong to. ``lost`` counts what found it full."""

    def __init__(self, waiting: queue.Queue[Any]) -> None:
        super().__init__(waiting)
        self.lost = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        record = copy.copy(record)
        record.msg, record.args = record.getMessage(), None  # now: what the arguments name may change
        record.request_id = request_id.get()
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self.lost += 1


class LogWriter(QueueListener):
    """The thread that writes. ``stop`` writes what waits; what is logged after it is written at once."""

    def __init__(self, *handlers: logging.Handler, waiting: int = _WAITING) -> None:
        self._waiting: queue.Queue[Any] = queue.Queue(waiting)
        self.sender = _Sender(self._waiting)
        super().__init__(self._waiting, *handlers, respect_handler_level=True)

    def handle(self, record: logging.LogRecord) -> None:
        lost, self.sender.lost = self.sender.lost, 0
        if lost:
            words = "%d lines were left out: they came faster than they could be written"
            super().handle(logging.LogRecord(__name__, logging.WARNING, __file__, 0, words, (lost,), None))
        super().handle(record)

    def enqueue_sentinel(self) -> None:
        self._waiting.put(None)  # waits for room, unlike the base's

    def stop(self) -> None:
        root = logging.getLogger()
        if self.sender in root.handlers:
            root.handlers[:] = self.handlers
        super().stop()


def set_up(section: LoggingSection, file: Path) -> LogWriter:
    """Send all loggers of this process to ``file`` and stderr. The caller stops the writer at the end."""
    logging.raiseExceptions = False  # a full disk must not turn into failing requests
    handler = RotatingFileHandler(file, maxBytes=_FILE_BYTES, backupCount=_FILES, encoding="utf-8")
    handler.setFormatter(TextFormatter() if section.format == "text" else JsonFormatter())
    terminal = logging.StreamHandler(sys.stderr)
    terminal.setFormatter(TextFormatter())
    terminal.setLevel(logging.WARNING)
    root = logging.getLogger()
    writer = LogWriter(handler, terminal)
    writer.start()
    root.handlers[:] = [writer.sender]
    root.setLevel(section.level)
    for name in CHATTY:
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(section.level)))
    # Statuses are in the access lines already; here only what a view raised.
    logging.getLogger("django.request").addFilter(lambda record: record.exc_info is not None)
    logging.getLogger("lmx.access").disabled = not section.access
    return writer
