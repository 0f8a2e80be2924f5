"""The bounds of the models' prefix caches: in memory as memory comes and goes, on disk for as long as they are loaded.

In memory a cache is bounded by ``ModelRun.cache_limit``, which its worker never exceeds. What it has not taken of that
is promised to it (``policy``), so that two caches are never given the same memory; and it is the first thing that is
taken back. Without a configured size a cache gets a quarter of what is free: enough for the prompts of several agents
on a machine that has memory to spare, and no hindrance to the next model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from inference import ipc
from inference.engine.ledger import Ledger
from inference.engine.prefix_disk import PrefixDisk
from inference.engine.runs import ModelRun
from inference.engine.settings import EngineSettings
from inference.records import EventSink

_SHARE = 4
_MIB = 1024 * 1024


class Caches:
    """Writes ``ModelRun.cache_limit`` and tells the workers. Belongs to the event loop."""

    def __init__(
        self, settings: EngineSettings, ledger: Ledger, runs: Mapping[str, ModelRun], events: EventSink
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._runs = runs
        self._events = events
        self._disk = PrefixDisk(settings.prefix_dir, settings.prefix_disk_bytes) if settings.prefix_dir else None

    async def tidy(self, starting: ModelRun | None = None) -> None:
        """Bring what lies on disk within the quota: at the start of the server, and before ``starting`` is loaded."""
        if self._disk is None:
            return
        name = starting.id if starting is not None else None
        await asyncio.to_thread(self._disk.tidy, self._disk.grants, name)

    def admit(self, run: ModelRun, command: ipc.Load) -> None:
        """Bounds for a model that is about to load, written into its command."""
        run.cache_limit = 0
        run.cache_limit = command.prefix_cache_bytes = self._size(run, 0, self._ledger.spare())
        granted = self._disk.grant(run.id) if self._disk is not None else 0
        if self._disk is not None and granted > 0:
            command.prefix_disk_dir, command.prefix_disk_bytes = str(self._disk.directory(run.id)), granted
        run.saves = command.prefix_disk_dir is not None

    def forget(self, run: ModelRun) -> None:
        """Its worker is gone; what it left on disk stays, as long as there is room."""
        run.cache_limit, run.saves = 0, False
        if self._disk is not None:
            self._disk.release(run.id)

    def share(self) -> None:
        """Tell every worker how much it may hold, now that somebody came or went."""
        for run in self._runs.values():
            if run.state == "ready" and run.client is not None:
                run.cache_limit = self._bound(run)
                run.client.set_limits(
                    ipc.SetLimits(memory_limit_bytes=self._ledger.allowance(run), prefix_cache_bytes=run.cache_limit)
                )

    def _bound(self, run: ModelRun) -> int:
        """A loaded model's bound: nothing is promised to a worker that keeps no prefix cache."""
        if run.loaded is None or not run.loaded.capabilities.prefix_cache:
            return 0
        own = self._ledger.cached(run)
        return max(own, self._size(run, own, self._ledger.spare() + run.cache_limit - own))

    def _size(self, run: ModelRun, own: int, more: int) -> int:
        """A bound for a cache that holds ``own`` bytes and could have ``more``."""
        reach = own + max(0, more)
        for_it = run.ref.settings.prefix_cache_mb
        configured = self._settings.prefix_cache_bytes if for_it is None else for_it * _MIB
        return reach // _SHARE if configured is None else min(configured, reach)

    def shrink(self, bounds: Mapping[str, int], why: str) -> bool:
        """Make caches smaller; their workers give memory back at once. False if there was nothing to make smaller."""
        changed = False
        for name, bound in bounds.items():
            run = self._runs.get(name)
            if run is None or run.state != "ready" or run.client is None or bound >= run.cache_limit:
                continue
            held, run.cache_limit, changed = self._ledger.cached(run), bound, True
            run.client.set_limits(ipc.SetLimits(prefix_cache_bytes=bound))
            if bound < held:
                self._events.emit("cache.shrunk", model=name, message=why, freed_bytes=held - bound)
        return changed
