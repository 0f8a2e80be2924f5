"""The last hour of memory, second by second, for charts that are opened late or after a restart."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import Any

from monitoring.models import MemorySample
from monitoring.payloads import Memory

HOUR_S = 3600


@dataclass(frozen=True, slots=True)
class Sample:
    """One second. ``models`` maps an id to (weights, KV and caches, tokens/s)."""

    at: int
    total: int
    used: int
    other: int
    limit: int
    gpu_limit: int | None
    models: dict[str, tuple[int, int, float]]


def sample_of(memory: Memory) -> Sample:
    return Sample(
        int(memory["at"]),
        memory["total"],
        memory["used"],
        memory["other"],
        memory["limit"],
        memory["gpu_limit"],
        {model["id"]: (model["weights"], model["kv"] + model["cache"], model["rate"]) for model in memory["models"]},
    )


class History:
    """A ring of samples, newest last. Belongs to the event loop, except ``restore``."""

    def __init__(self, seconds: int = HOUR_S) -> None:
        self._seconds = seconds
        self._samples: deque[Sample] = deque(maxlen=seconds)

    def __len__(self) -> int:
        return len(self._samples)

    def add(self, sample: Sample) -> None:
        """One per second; a second sample in the same second, or one from before (a clock set back), is dropped."""
        if not self._samples or sample.at > self._samples[-1].at:
            self._samples.append(sample)
        elif sample.at < self._samples[-1].at - 60:
            self._samples.clear()
            self._samples.append(sample)

    def restore(self, now: float | None = None) -> list[Sample]:
        """What the database has of the last hour, oldest first. Blocks: call it on a thread."""
        since = int(now if now is not None else time.time()) - self._seconds
        rows = MemorySample.objects.filter(at__gt=since).order_by("at")
        return [
            Sample(row.at, row.total, row.used, row.other, row.limit, row.gpu_limit, _tuples(row.models))
            for row in rows
        ]

    def prepend(self, samples: list[Sample]) -> None:
        """Put restored samples before those already taken."""
        first = self._samples[0].at if self._samples else float("inf")
        older = [sample for sample in samples if sample.at < first]
        self._samples = deque([*older, *self._samples], maxlen=self._seconds)

    def columns(self, span_s: int, points: int) -> dict[str, Any]:
        """The last ``span_s`` seconds as columns, at most about ``points`` of them.

        ``{"step", "at": [...], "used", "other", "limit", "gpu_limit", "models": {id: {"weights", "kv", "rate"}}}``.
        Of each step the second with the most memory in use is taken, so that a short peak is not lost.
        """
        if not self._samples:
            return {"step": 1, "at": [], "total": 0, "used": [], "other": [], "models": {}}
        since = self._samples[-1].at - span_s
        step = max(1, -(-span_s // points))
        chosen = _peaks([sample for sample in self._samples if sample.at > since], step)
        ids = sorted({name for sample in chosen for name in sample.models})
        last = chosen[-1]
        return {
            "step": step,
            "total": last.total,
            "limit": last.limit,
            "gpu_limit": last.gpu_limit,
            "at": [sample.at for sample in chosen],
            "used": [sample.used for sample in chosen],
            "other": [sample.other for sample in chosen],
            "models": {name: _model_columns(name, chosen) for name in ids},
        }


def _tuples(models: dict[str, list[float]]) -> dict[str, tuple[int, int, float]]:
    return {name: (int(row[0]), int(row[1]), float(row[2])) for name, row in models.items()}


def _peaks(samples: list[Sample], step: int) -> list[Sample]:
    best: dict[int, Sample] = {}
    for sample in samples:
        bucket = sample.at // step
        if bucket not in best or sample.used > best[bucket].used:
            best[bucket] = sample
    return list(best.values())


def _model_columns(name: str, samples: list[Sample]) -> dict[str, list[float]]:
    rows = [sample.models.get(name, (0, 0, 0.0)) for sample in samples]
    return {"weights": [r[0] for r in rows], "kv": [r[1] for r in rows], "rate": [r[2] for r in rows]}
