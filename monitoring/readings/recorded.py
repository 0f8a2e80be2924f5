"""Readings from a recording: one JSON object per line, as ``record`` writes them.

``{"total", "available", "used", "gpu_limit", "footprints": {"pid": bytes}}``. For tests, demonstrations and for
looking at another machine's night.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from inference.engine.contract import MemoryReader, MemoryReading


class RecordedReader:
    """Plays one line per ``read()``; stays on the last. ``footprint`` belongs to the line read last."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._rows: list[dict[str, Any]] = [json.loads(line) for line in lines if line.strip()]
        if not self._rows:
            raise ValueError("the recording is empty")
        self._next = 0

    @classmethod
    def open(cls, path: Path) -> RecordedReader:
        return cls(path.read_text().splitlines())

    @property
    def _row(self) -> dict[str, Any]:
        return self._rows[max(0, self._next - 1)]

    def read(self) -> MemoryReading:
        self._next = min(self._next + 1, len(self._rows))
        row = self._row
        return MemoryReading(row["total"], row["available"], row["used"], row.get("gpu_limit"))

    def footprint(self, pid: int) -> int:
        return int(self._row.get("footprints", {}).get(str(pid), 0))


def record(reader: MemoryReader, pids: Iterable[int]) -> str:
    """One line of a recording."""
    reading = reader.read()
    return json.dumps(
        {
            "total": reading.total,
            "available": reading.available,
            "used": reading.used,
            "gpu_limit": reading.gpu_limit,
            "footprints": {str(pid): reader.footprint(pid) for pid in pids},
        }
    )
