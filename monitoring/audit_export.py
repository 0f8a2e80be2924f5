"""Entries of the audit log as lines of a file: JSON for programs, CSV for spreadsheets. Knows no database."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Literal

Format = Literal["jsonl", "csv"]
MEDIA: dict[Format, str] = {"jsonl": "application/x-ndjson", "csv": "text/csv; charset=utf-8"}
COLUMNS = (
    "id",
    "time",
    "who",
    "who_kind",
    "address",
    "via",
    "action",
    "subject",
    "outcome",
    "status",
    "reason",
    "request_id",
    "detail",
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def header(form: Format) -> str:
    """What the file begins with."""
    return _csv([COLUMNS]) if form == "csv" else ""


def lines(entries: Iterable[dict[str, Any]], form: Format) -> str:
    """The entries, each in a line with its end."""
    if form == "csv":
        return _csv([[_cell(value) for value in _values(entry)] for entry in entries])
    return "".join(json.dumps({"time": moment(entry["at"]), **entry}, ensure_ascii=False) + "\n" for entry in entries)


def moment(at: float) -> str:
    """ISO 8601 in UTC, to the millisecond."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")


def _values(entry: dict[str, Any]) -> list[Any]:
    detail = json.dumps(entry["detail"], ensure_ascii=False) if entry["detail"] else ""
    told = {**entry, "time": moment(entry["at"]), "detail": detail}
    return [told[name] for name in COLUMNS]


def _cell(value: Any) -> str:
    """A name that a stranger chose must not be a formula in the owner's spreadsheet."""
    text = "" if value is None else str(value)
    return "'" + text if text.startswith(_FORMULA) else text


def _csv(rows: Iterable[Iterable[Any]]) -> str:
    written = io.StringIO()
    csv.writer(written, lineterminator="\r\n").writerows(rows)
    return written.getvalue()
