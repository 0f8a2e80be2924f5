"""Whose inputs are computed next: batches of similar length, bounded in tokens, in turns between requests."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field

BATCH_TOKENS = 4096
"""Places of one batch, padding included; one longer input is a batch of its own."""

BATCH_SCORES = 32 * 1024 * 1024
"""Attention scores of one batch, over all heads of one layer: 128 MiB in float32."""

_MIN_FILL = 0.5


@dataclass
class Job:
    """One request: its inputs by length, the longest last; ``vectors`` by place, None until they are made."""

    request: str
    dimensions: int | None
    prompt_tokens: int
    pending: list[tuple[int, list[int]]]
    vectors: list[list[float] | None]
    left: int = 0

    @classmethod
    def of(cls, request: str, inputs: list[list[int]], dimensions: int | None) -> Job:
        pending = sorted(enumerate(inputs), key=lambda item: len(item[1]))
        tokens = sum(len(ids) for ids in inputs)
        return cls(request, dimensions, tokens, pending, [None] * len(inputs), len(inputs))


@dataclass
class Batch:
    """Rows as (job, place in its request, token ids), the first the longest."""

    rows: list[tuple[Job, int, list[int]]] = field(default_factory=list)


class Turns:
    """Thread-safe. ``next`` is for the thread that computes, everything else for any."""

    def __init__(self, heads: int) -> None:
        self._heads = heads
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._changed = threading.Condition()
        self._closed = False

    def put(self, job: Job) -> bool:
        """Queue it; False when nothing is computed any more."""
        with self._changed:
            if self._closed:
                return False
            self._jobs[job.request] = job
            self._changed.notify()
            return True

    def forget(self, request: str) -> bool:
        """Drop a job: done, or cancelled. False when it is not here."""
        with self._changed:
            return self._jobs.pop(request, None) is not None

    def open(self) -> int:
        with self._changed:
            return len(self._jobs)

    def close(self) -> None:
        """Make ``next`` return None; what is queued stays for ``rest``."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def rest(self) -> list[str]:
        """The requests that were still open, which are forgotten."""
        with self._changed:
            left = list(self._jobs)
            self._jobs.clear()
            return left

    def next(self) -> Batch | None:
        """Wait for work; the next batch, None once closed. The request whose turn it was goes to the end."""
        with self._changed:
            while not self._closed and not self._waiting():
                self._changed.wait()
            return None if self._closed else self._take()

    def _waiting(self) -> bool:
        return any(job.pending for job in self._jobs.values())

    def _take(self) -> Batch:
        batch = Batch()
        room = 0
        for job in list(self._jobs.values()):
            if not batch.rows:
                if not job.pending:
                    continue
                self._jobs.move_to_end(job.request)
                room = self._rows(len(job.pending[-1][1]))
            self._fill(batch, job, room)
            if len(batch.rows) == room:
                break
        return batch

    def _fill(self, batch: Batch, job: Job, room: int) -> None:
        """Take inputs of ``job`` that are no longer than the batch's first row, and not much shorter."""
        width = len(batch.rows[0][2]) if batch.rows else len(job.pending[-1][1])
        while len(batch.rows) < room:
            at = _longest_within(job.pending, width)
            if at < 0 or len(job.pending[at][1]) < width * _MIN_FILL:
                return
            place, ids = job.pending.pop(at)
            batch.rows.append((job, place, ids))

    def _rows(self, width: int) -> int:
        """How many rows of that width make a batch."""
        return max(1, min(BATCH_TOKENS // width, BATCH_SCORES // (self._heads * width * width)))


def _longest_within(pending: list[tuple[int, list[int]]], width: int) -> int:
    """The index of the longest input of at most ``width`` tokens; -1 without one. ``pending`` is sorted by length."""
    low, high = 0, len(pending)
    while low < high:
        middle = (low + high) // 2
        if len(pending[middle][1]) <= width:
            low = middle + 1
        else:
            high = middle
    return low - 1
