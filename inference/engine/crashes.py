"""How often each model's worker died lately, kept over restarts so that a crash loop ends and stays ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from inference.engine.memory import JsonFile

LONGEST_BACK_OFF_S = 60.0


class Stopped(msgspec.Struct, frozen=True):
    """Not loaded on request before ``until`` (seconds since the epoch)."""

    until: float
    reason: str


class _Entry(msgspec.Struct):
    times: list[float] = []
    stopped: Stopped | None = None


@dataclass(frozen=True, slots=True)
class CrashLimits:
    max_crashes: int
    window_s: float


class CrashBook:
    """One entry per model that crashed within the window. ``clock`` gives seconds since the epoch."""

    def __init__(self, run_dir: Path, limits: CrashLimits, clock: Callable[[], float] = time.time) -> None:
        self._file = JsonFile(run_dir / "crashes.json")
        self._limits = limits
        self._clock = clock
        try:
            self._entries = msgspec.convert(self._file.read(), dict[str, _Entry])
        except msgspec.ValidationError:
            self._entries = {}

    def note(self, model_id: str, reason: str) -> float | None:
        """Record a crash. Returns the seconds to wait before the next load, or None when the model is stopped now.

        The first crash costs no wait, so that the next request simply loads again; the wait then doubles up to a
        minute.
        """
        now = self._clock()
        entry = self._entries.setdefault(model_id, _Entry())
        entry.times = [at for at in entry.times if now - at < self._limits.window_s] + [now]
        count = len(entry.times)
        if count >= self._limits.max_crashes:
            entry.stopped = Stopped(now + self._limits.window_s, f"stopped after {count} crashes; the last: {reason}")
        self._save()
        return None if entry.stopped is not None else min(LONGEST_BACK_OFF_S, 2.0 ** min(count - 1, 16) - 1)

    def stopped(self, model_id: str) -> Stopped | None:
        """Why and until when the model is stopped; None if it may be loaded."""
        entry = self._entries.get(model_id)
        if entry is None or entry.stopped is None:
            return None
        if self._clock() >= entry.stopped.until:
            self.lift(model_id)
            return None
        return entry.stopped

    def lift(self, model_id: str) -> None:
        """Forget its crashes: the owner asked for it."""
        if self._entries.pop(model_id, None) is not None:
            self._save()

    def _save(self) -> None:
        self._file.write(msgspec.to_builtins(self._entries))
