"""How models leave: unloaded by their owner, evicted for others, ended with the server, or dead.

Part of the supervisor: everything here runs in its loop, but for ``exited``. What a leaving worker held counts until it
is seen to be back.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial

from inference.engine.caches import Caches
from inference.engine.child import ChildExit
from inference.engine.crashes import CrashBook
from inference.engine.ledger import Ledger
from inference.engine.mailbox import Mailbox
from inference.engine.memory import MemoryWatch
from inference.engine.runs import ModelRun, death_of, reason_of_death, serve_queues, shutting_down
from inference.engine.settings import EngineSettings
from inference.engine.worker_client import WorkerClient
from inference.errors import LmxError, ModelUnavailable
from inference.records import EventSink

_SAVE_S = 5.0
_SAVE_AT_STOP_S = 2.0
"""How long a worker may write its prefix cache to disk before it goes."""


class Departures:
    """``demands`` are the runs that are to be loaded; one that leaves while it is wanted is put there when it is gone.

    ``granting`` becomes False when the server stops, and stays so.
    """

    def __init__(
        self,
        settings: EngineSettings,
        watch: MemoryWatch,
        ledger: Ledger,
        caches: Caches,
        crashes: CrashBook,
        events: EventSink,
        mailbox: Mailbox,
        runs: dict[str, ModelRun],
        demands: dict[str, ModelRun],
    ) -> None:
        self.granting = True
        self.clock: Callable[[], float] = time.time
        self._settings = settings
        self._watch = watch
        self._ledger = ledger
        self._caches = caches
        self._crashes = crashes
        self._events = events
        self._mailbox = mailbox
        self._runs = runs
        self._demands = demands

    def exited(self, run: ModelRun, client: WorkerClient, death: ChildExit) -> None:
        """Called in the turn that noticed it: a slot that its failing answers free must not be granted again."""
        if run.client is client and run.queue is not None and not death.wanted:
            run.queue.close(death_of(run, death))
        self._mailbox.post(partial(self.died, run, client, death))

    def died(self, run: ModelRun, client: WorkerClient, death: ChildExit) -> None:
        """A worker that was ready is dead. A loading or leaving one is watched by its own task."""
        if run.client is not client or run.state != "ready":
            return
        self._dismiss(run, death_of(run, death))
        self.note_crash(run, death.cause, list(client.child.recent_lines))
        self._mailbox.spawn(self._vanish(run, client, None), f"clean up {run.id}")

    def note_crash(self, run: ModelRun, cause: str, lines: list[str]) -> None:
        run.recent_lines = lines
        self._events.emit("worker.died", model=run.id, cause=cause, lines=lines)
        delay = self._crashes.note(run.id, cause)
        stopped = self._crashes.stopped(run.id)
        if delay is not None:
            run.state, run.reason, run.retry_at = "failed", reason_of_death(cause), time.monotonic() + delay
        elif stopped is not None:
            run.state, run.reason = "stopped-after-crashes", stopped.reason
            self._events.emit("model.stopped", model=run.id, message=stopped.reason, until=stopped.until)
            run.refuse_all(ModelUnavailable(f"{run.id} is {stopped.reason}"))

    def evict(self, model_id: str, why: str) -> None:
        run = self._runs.get(model_id)
        if run is not None and run.state == "ready" and not run.busy:
            self._events.emit("model.evicted", model=run.id, message=why, idle_s=self.clock() - (run.last_used or 0))
            self.leave(run, why, 0.0)

    def leave(self, run: ModelRun, why: str, drain_s: float) -> None:
        """Begin to drain; the run comes back through ``_gone``."""
        client = run.client
        assert client is not None
        run.state, run.reason = "draining", why
        self._dismiss(run, ModelUnavailable(f"{run.id} is being unloaded", retry_after=round(drain_s) + 1))
        self._mailbox.spawn(self._vanish(run, client, drain_s), f"unload {run.id}")

    def _dismiss(self, run: ModelRun, error: LmxError) -> None:
        run.leaving, run.returning = True, self._ledger.footprint(run)
        if run.queue is not None:
            run.queue.close(error)

    async def _vanish(self, run: ModelRun, client: WorkerClient, drain_s: float | None) -> None:
        """See a worker off: drained (``drain_s``) or already dead (None), until its memory is back."""
        used_before = self._watch.reading.used
        save_s = _SAVE_S if self.granting else _SAVE_AT_STOP_S
        await (client.child.wait() if drain_s is None else client.close(drain_s, save_s if run.saves else 0.0))
        back = not self.granting or await self._ledger.returned(client.pid, run.returning, used_before)
        self._mailbox.post(partial(self._gone, run, back))

    def _gone(self, run: ModelRun, back: bool) -> None:
        held, run.returning, run.need, run.leaving = run.returning, 0, 0, False
        run.client, run.loaded, run.queue = None, None, None
        self._caches.forget(run)
        if run.state == "draining":
            self._events.emit("model.unloaded", model=run.id, message=run.reason, freed_bytes=held)
            run.state, run.reason, run.loaded_at = "unloaded", None, None
        if not back:
            self._events.emit("memory.not_returned", model=run.id, held_bytes=held)
        run.resolve_unloaders()
        if any(waiter.here for waiter in run.waiters):
            self._demands[run.id] = run
        self._caches.share()
        serve_queues(self._runs.values())

    def unload(self, model_id: str, done: asyncio.Future[None]) -> None:
        run = self._runs.get(model_id)
        if run is None:
            done.set_result(None)
            return
        run.unloaders.append(done)
        if run.state == "ready":
            self.leave(run, "unloaded by the owner", self._settings.drain_s)
        elif run.state == "loading" and run.load_task is not None:
            run.load_task.cancel()
        elif not run.leaving:
            self._crashes.lift(run.id)
            self._demands.pop(run.id, None)
            run.refuse_all(ModelUnavailable(f"{run.id} was unloaded", retry_after=1))
            run.state, run.reason, run.retry_at, run.failed_loads = "unloaded", None, 0.0, 0
            run.resolve_unloaders()

    def stop(self, drain_s: float) -> None:
        """Grant nothing more, and see everybody off."""
        self.granting = False
        self._demands.clear()
        for run in self._runs.values():
            run.refuse_all(shutting_down())
            if run.state == "ready":
                self.leave(run, "the server is shutting down", drain_s)
            elif run.load_task is not None:
                run.load_task.cancel()
