"""The machine's memory as the engine last read it, and what loading each model turned out to take."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from inference.engine.contract import MemoryReader, MemoryReading
from inference.engine.policy import Limits, limits_of
from inference.engine.settings import EngineSettings

log = logging.getLogger(__name__)


class MemoryWatch:
    """Reads in a thread, one reading at a time; ``reading`` and ``footprints`` (bytes by pid) are the latest.

    With ``memory_cap_bytes`` the machine is taken to be that small and to hold our models only (a test aid).
    """

    def __init__(self, reader: MemoryReader, settings: EngineSettings) -> None:
        self._reader = reader
        self._settings = settings
        self._lock = asyncio.Lock()
        self._failing = False
        self.reading = MemoryReading(total=0, available=0, used=0)
        self.footprints: Mapping[int, int] = {}

    @property
    def limits(self) -> Limits:
        return limits_of(self.reading, self._settings.max_memory_percent, self._settings.memory_reserve_bytes)

    async def measure(self, pids: list[int]) -> None:
        """Read the machine and these processes. A reader that fails leaves the last values and one log line."""
        async with self._lock:
            try:
                self.reading, self.footprints = await asyncio.to_thread(self._read, pids)
            except Exception:
                if not self._failing:
                    log.exception("reading the memory failed; it is tried again")
                self._failing = True
            else:
                self._failing = False

    def _read(self, pids: list[int]) -> tuple[MemoryReading, dict[int, int]]:
        footprints = {pid: self._reader.footprint(pid) for pid in pids}
        reading = self._reader.read()
        cap = self._settings.memory_cap_bytes
        if cap is not None:
            used = sum(footprints.values())
            gpu = None if reading.gpu_limit is None else min(reading.gpu_limit, cap)
            reading = MemoryReading(cap, min(reading.available, max(0, cap - used)), used, gpu)
        return reading, footprints


class JsonFile:
    """A small mapping on disk, replaced as a whole. A file that cannot be read counts as empty."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> dict[str, object]:
        with contextlib.suppress(OSError, ValueError):
            content = json.loads(self._path.read_text())
            if isinstance(content, dict):
                return content
        return {}

    def write(self, content: Mapping[str, object]) -> None:
        partial = self._path.with_suffix(".partial")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps(content, indent=1, sort_keys=True))
            os.replace(partial, self._path)
        except OSError as error:
            log.warning("cannot write %s: %s", self._path, error)


class ObservedSizes:
    """The largest footprint each model had when its load ended, kept over restarts."""

    def __init__(self, run_dir: Path) -> None:
        self._file = JsonFile(run_dir / "observed.json")
        self._sizes = {name: size for name, size in self._file.read().items() if isinstance(size, int)}

    def get(self, model_id: str) -> int:
        return self._sizes.get(model_id, 0)

    def note(self, model_id: str, footprint: int) -> None:
        if footprint > self._sizes.get(model_id, 0):
            self._sizes[model_id] = footprint
            self._file.write(self._sizes)
