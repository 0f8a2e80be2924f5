"""A thread that takes jobs in order: templating, tokenising and counting, away from socket and stepping thread."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

Job = Callable[[Callable[[], bool]], None]
"""A job calls its argument once its result is ready; False means it was cancelled meanwhile: drop the result."""


class Lane:
    """One thread, jobs by key in order of arrival. A cancelled job that waits is dropped, one that runs is told."""

    def __init__(self, name: str) -> None:
        self._waiting: OrderedDict[str, Job] = OrderedDict()
        self._current: str | None = None
        self._cancelled = False
        self._wake = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, key: str, job: Job) -> None:
        with self._wake:
            self._waiting[key] = job
            self._wake.notify()

    def cancel(self, key: str) -> bool:
        """Drop the job of that key; False if it is neither waiting nor running (never put, or done)."""
        with self._wake:
            if self._waiting.pop(key, None) is not None:
                return True
            if self._current == key:
                self._cancelled = True
                return True
            return False

    def finish(self) -> bool:
        """Called by the running job when its result is ready: False if it was cancelled, else it no longer can be."""
        with self._wake:
            self._current = None
            return not self._cancelled

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._waiting:
                    self._wake.wait()
                self._current, job = self._waiting.popitem(last=False)
                self._cancelled = False
            job(self.finish)
            with self._wake:
                self._current = None
