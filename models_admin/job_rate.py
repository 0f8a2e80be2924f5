"""How fast a job is and when it will be done, from its progress of the last seconds."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from models_admin.job_protocol import Progress

_WINDOW_S = 15.0
_LEAST_S = 0.5


class Rate:
    """Fed with every progress; begins anew with each phase, so what was there before counts for nothing.

    ``now`` is a monotonic clock in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._seen: deque[tuple[float, int]] = deque()
        self._phase = ""
        self._total = 0

    def add(self, progress: Progress) -> None:
        if progress.phase != self._phase or (self._seen and progress.done < self._seen[-1][1]):
            self._phase = progress.phase
            self._seen.clear()
        moment = self._now()
        self._total = progress.total
        self._seen.append((moment, progress.done))
        while moment - self._seen[0][0] > _WINDOW_S:
            self._seen.popleft()

    @property
    def bytes_per_second(self) -> float:
        """0 while too little is known, and after a while without progress."""
        if not self._seen:
            return 0.0
        first, since = self._seen[0][1], self._seen[0][0]
        elapsed = self._now() - since
        return (self._seen[-1][1] - first) / elapsed if elapsed >= _LEAST_S else 0.0

    @property
    def seconds_left(self) -> float | None:
        """None when nobody can tell."""
        rate = self.bytes_per_second
        return round((self._total - self._seen[-1][1]) / rate, 1) if rate > 0 and self._total else None
