"""Answers that make no progress, and workers that stand still although they answer pings."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from inference.engine.generation import RunningGeneration
from inference.engine.settings import EngineSettings
from inference.engine.worker_client import WorkerClient


@dataclass(slots=True)
class _Suspicion:
    step: int
    since: float


class Watchdog:
    """``check`` is called about once a second. ``on_wedged`` gets a worker whose stepping thread stands still."""

    def __init__(self, settings: EngineSettings, on_wedged: Callable[[WorkerClient, str], None]) -> None:
        self._settings = settings
        self._on_wedged = on_wedged
        self._suspects: dict[WorkerClient, _Suspicion] = {}

    def check(self, running: Iterable[RunningGeneration]) -> list[RunningGeneration]:
        """End what is overdue; returns the answers that were ended for want of progress."""
        now = time.monotonic()
        overdue = [generation for generation in running if self._is_overdue(generation, now)]
        for generation in overdue:
            self._suspects.setdefault(generation.client, _Suspicion(generation.client.step, now))
            self._end(generation)
        for client, suspicion in list(self._suspects.items()):
            self._judge(client, suspicion, now)
        return overdue

    def _is_overdue(self, generation: RunningGeneration, now: float) -> bool:
        if generation.cancelled_at is not None:
            return now - generation.cancelled_at > self._settings.cancel_grace_s
        return now - generation.last_progress > self._settings.timeout_s

    def _end(self, generation: RunningGeneration) -> None:
        generation.cancel("timeout")
        generation.fail("timeout", f"no progress for {self._settings.timeout_s:.0f} s; the request was ended")

    def _judge(self, client: WorkerClient, suspicion: _Suspicion, now: float) -> None:
        stats = client.stats
        idle = stats is not None and stats.running + stats.queued == 0
        if idle or client.step != suspicion.step or not client.child.alive:
            del self._suspects[client]
        elif now - suspicion.since > self._settings.cancel_grace_s:
            del self._suspects[client]
            self._on_wedged(client, f"its stepping thread stood still for {now - suspicion.since:.0f} s")

    def standing_still(self) -> list[str]:
        """Names of the workers under suspicion."""
        return [client.name for client in self._suspects]
