"""The owner of all model workers: one loop, the only writer of run state.

    unloaded → loading → ready → draining → unloaded        failed(reason)        stopped-after-crashes(until, reason)

Everybody else posts a message and awaits a future; nobody checks a state first, because it may have changed by the
time the message is read. What takes time (a load, a drain, waiting for memory) runs in a task of its own and posts
its end. What ``acquire`` does in each state: ready, grants; loading, joins the load; draining, waits and loads again;
unloaded or failed, loads (a load that just failed is refused for a while); stopped after crashes, refuses.

Two lifetimes are kept apart: after ``stop`` began nothing is granted any more, while running answers still have their
workers until the drain limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from inference import ipc
from inference.catalog import ModelRef
from inference.engine.admission import SlotQueue
from inference.engine.caches import Caches
from inference.engine.contract import ModelStatus
from inference.engine.crashes import LONGEST_BACK_OFF_S, CrashBook, CrashLimits
from inference.engine.departures import Departures
from inference.engine.launch import LaunchFailed, LaunchHooks, launch, load_command
from inference.engine.ledger import KvPromise, Ledger
from inference.engine.mailbox import Mailbox
from inference.engine.memory import MemoryWatch
from inference.engine.policy import Load, Refuse, Shrink, Wait, refusal
from inference.engine.runs import (
    Lease,
    ModelRun,
    Resting,
    Waiter,
    Wish,
    disk_refusal,
    load_failure,
    refusal_to_wait,
    serve_queues,
    shutting_down,
    snapshot,
)
from inference.engine.settings import EngineSettings
from inference.engine.words import duration
from inference.engine.worker_client import WorkerClient
from inference.errors import LmxError, ModelUnavailable
from inference.model_settings import ModelSettings
from inference.records import EventSink

_TICK_S = 1.0
_SHARE_EVERY = 30
_STOP_GRACE_S = 8.0


Recheck = Callable[[ModelRef], Awaitable[ModelRef]]
"""``inference.catalog.Catalog.recheck``."""


class Supervisor:
    """All methods belong to the event loop that called ``start``."""

    def __init__(
        self, settings: EngineSettings, watch: MemoryWatch, events: EventSink, kv_promise: KvPromise, recheck: Recheck
    ) -> None:
        self._settings = settings
        self._recheck = recheck
        self._watch = watch
        self._events = events
        self.runs: dict[str, ModelRun] = {}
        self.ledger = Ledger(settings, watch, self.runs, kv_promise)
        self._crashes = CrashBook(settings.run_dir, CrashLimits(settings.max_crashes, settings.crash_window_s))
        self._mailbox = Mailbox("supervisor", self._settle)
        self._post = self._mailbox.post
        self._demands: dict[str, ModelRun] = {}
        self._caches = Caches(settings, self.ledger, self.runs, events)
        self.departures = Departures(
            settings,
            watch,
            self.ledger,
            self._caches,
            self._crashes,
            events,
            self._mailbox,
            self.runs,
            self._demands,
        )
        self._resting = Resting(settings.slots)
        self._ticker: asyncio.Task[None] | None = None
        self._looks = 0

    # ------------------------------------------------------------------------------------------ for all the others

    async def start(self) -> None:
        await self.ledger.measure()
        self._mailbox.start()
        self._mailbox.spawn(self._caches.tidy(), "prefix cache on disk")
        self._ticker = asyncio.create_task(self._tick(), name="supervisor tick")

    async def acquire(self, ref: ModelRef, ttl_s: float | None = None) -> Lease:
        """A lease on the loaded model, loading it if need be. Raises ``LmxError``. ``ttl_s`` as in ``Waiter``.

        A caller that is cancelled is forgotten: before a load is begun for it, and after, when the lease came too late.
        """
        lease = await self._want(ref, ttl_s=ttl_s, wish=None)
        assert lease is not None
        return lease

    async def load(self, ref: ModelRef, wish: Wish) -> None:
        """Load as the owner wishes; lifts a stop after crashes, reloads where context or slots differ."""
        await self._want(ref, ttl_s=wish.ttl_s, wish=wish)

    def status(self, ref: ModelRef) -> ModelStatus:
        """A snapshot; a model that was never asked for may still be stopped from before a restart."""
        run, stopped = self.runs.get(ref.id), self._crashes.stopped(ref.id)
        if run is None and stopped is None:
            return self._resting.status(ref)
        run = run or ModelRun(ref)
        return snapshot(run, ref, stopped, self.ledger.footprint(run), self._settings.slots)

    async def take_settings(self, settings: Mapping[Path, ModelSettings]) -> None:
        """What the owner keeps for each model, by its directory. What needs no reload holds on return."""
        if not self.departures.granting:
            return
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._post(partial(self._on_settings, settings))
        self._post(partial(done.set_result, None))
        await asyncio.shield(done)

    def _on_settings(self, settings: Mapping[Path, ModelSettings]) -> None:
        for run in self.runs.values():
            run.take(settings.get(run.ref.path, run.ref.settings), self._settings.idle_unload_s)
        self._caches.share()

    def number_queues(self) -> None:
        """Bring the queue positions of all who wait up to date."""
        for run in self.runs.values():
            if run.queue is not None:
                run.queue.number()

    async def unload(self, model_id: str) -> None:
        """Return when the model's memory is back. A failed or stopped model is reset to unloaded."""
        if not self.departures.granting:
            raise shutting_down()
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._post(partial(self.departures.unload, model_id, done))
        await done

    async def stop(self, drain_s: float) -> None:
        """Grant nothing more, drain every worker for ``drain_s``, then end them. Leaves no process and no task."""
        if self._ticker is None:
            return
        self._post(partial(self.departures.stop, drain_s))
        await self._mailbox.finish(drain_s + _STOP_GRACE_S, self._kill_all)
        self._ticker.cancel()
        await asyncio.wait({self._ticker})
        self._ticker = None

    def _kill_all(self) -> None:
        for run in self.runs.values():
            if run.client is not None:
                run.client.child.kill()

    async def _settle(self) -> None:
        if self._demands:
            await self.ledger.measure()
            self._serve_demands()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            await self.look()

    async def look(self) -> None:
        """What every second is for: is memory short, has a model been idle for too long?"""
        await self.ledger.measure()
        self._post(self._relieve)

    # -------------------------------------------------------------------------------------------- wanting and granting

    async def _want(self, ref: ModelRef, *, ttl_s: float | None, wish: Wish | None) -> Lease | None:
        if not self.departures.granting:
            raise shutting_down()
        waiter = Waiter(asyncio.get_running_loop().create_future(), wish is not None, ttl_s)
        self._post(partial(self._on_want, ref, waiter, wish))
        try:
            return await waiter.future
        except asyncio.CancelledError:
            future = waiter.future
            if future.done() and not future.cancelled() and future.exception() is None:
                lease = future.result()
                if lease is not None:
                    lease.release()
            raise

    def _on_want(self, ref: ModelRef, waiter: Waiter, wish: Wish | None) -> None:
        if not waiter.here:
            return
        run = self.runs.setdefault(ref.id, ModelRun(ref))
        if run.client is None:
            run.ref = ref
        if wish is not None:
            self._apply(wish, run)
        error = self._refusal(run)
        if error is not None:
            waiter.refuse(error)
        elif run.able:
            self._grant(run, waiter)
        else:
            run.waiters.append(waiter)
            if run.state not in ("loading", "ready") and not run.leaving:
                self._demands[run.id] = run

    def _apply(self, wish: Wish, run: ModelRun) -> None:
        """The owner's load: a fresh start, with new bounds if given."""
        self._crashes.lift(run.id)
        run.wish(wish)
        if run.outdated(self._settings.slots) and run.state == "ready":
            self.departures.leave(run, "loaded again with other bounds", self._settings.drain_s)

    def _refusal(self, run: ModelRun) -> LmxError | None:
        if not self.departures.granting:
            return shutting_down()
        stopped = self._crashes.stopped(run.id)
        if stopped is not None:
            run.state, run.reason = "stopped-after-crashes", stopped.reason
        return refusal_to_wait(run, stopped, self._settings.queue_limit)

    def _grant(self, run: ModelRun, waiter: Waiter) -> None:
        """A grant counts only if the waiter is still there, else the model would stay busy for ever."""
        if not waiter.here:
            return
        run.last_used = self.departures.clock()
        if waiter.by_owner or run.client is None or run.loaded is None or run.queue is None:
            waiter.future.set_result(None)
            return
        run.users += 1
        on_release = partial(self._post, partial(self._release, run))
        waiter.future.set_result(Lease(run.client, run.loaded, run.queue, on_release))

    def _release(self, run: ModelRun) -> None:
        run.users -= 1
        run.last_used = self.departures.clock()

    # -------------------------------------------------------------------------------------------------- loading

    def _serve_demands(self) -> None:
        """Begin every wanted load for which there is room, in order of arrival."""
        first = True
        for run in list(self._demands.values()):
            run.waiters = [waiter for waiter in run.waiters if waiter.here]
            if not run.waiters or run.state == "loading" or run.leaving:
                del self._demands[run.id]
                continue
            if (delay := run.retry_at - time.monotonic()) > 0:
                asyncio.get_running_loop().call_later(delay, self._post, lambda: None)
                continue
            self._decide(run, first)
            first = first and run.id not in self._demands

    def _decide(self, run: ModelRun, first: bool) -> None:
        decision = self.ledger.plan_load(run, first=first)
        while isinstance(decision, Shrink) and self._caches.shrink(decision.caches, f"room for {run.id}"):
            decision = self.ledger.plan_load(run, first=first)
        match decision:
            case Load(evict=()):
                del self._demands[run.id]
                self._begin_load(run)
            case Load(evict=victims):
                for victim in victims:
                    self.departures.evict(victim, f"room for {run.id}")
            case Refuse() if first:
                del self._demands[run.id]
                run.refuse_all(refusal(run.id, decision, self.ledger.situation(), time.time()))
            case Wait() if isinstance(final := self.ledger.plan_load(run, first=first, patient=False), Refuse):
                run.refuse_owner(refusal(run.id, final, self.ledger.situation(), time.time()))

    def _answer_gate(self, run: ModelRun, kv_bytes: int) -> bool | LmxError:
        """Whether one more answer of a loaded model fits; asks for room where it can be made (False: wait)."""
        why = f"room for an answer of {run.id}"
        decision = self.ledger.plan_answer(run, kv_bytes)
        while isinstance(decision, Shrink) and self._caches.shrink(decision.caches, why):
            decision = self.ledger.plan_answer(run, kv_bytes)
        match decision:
            case Load(evict=victims):
                for victim in victims:
                    self._post(partial(self.departures.evict, victim, why))
                return not victims
            case Refuse():
                return self.ledger.answer_refusal(run, decision)
            case _:
                return False

    def _begin_load(self, run: ModelRun) -> None:
        run.state, run.reason, run.progress = "loading", None, None
        run.ttl_s = run.wanted_ttl(self._settings.idle_unload_s)
        run.need = self.ledger.need(run)
        sizes = {"need_bytes": run.need, "free_bytes": self.ledger.free()}
        self._events.emit("model.loading", model=run.id, **sizes, **run.asked())
        run.bounds = run.wanted_bounds(self._settings.slots)
        command = load_command(run.ref, self._settings, run.bounds)
        self._caches.admit(run, command)
        command.memory_limit_bytes = self.ledger.allowance(run)
        run.load_task = self._mailbox.spawn(self._load(run, command), f"load {run.id}")

    async def _load(self, run: ModelRun, command: ipc.Load) -> None:
        hooks = LaunchHooks(
            on_spawn=lambda client: self._post(partial(setattr, run, "client", client)),
            on_exit=partial(self.departures.exited, run),
            on_progress=lambda progress: self._post(partial(setattr, run, "progress", progress)),
            on_log=lambda line: self._events.emit("worker.log", model=run.id, level=line.level, message=line.message),
        )
        try:
            await self._caches.tidy(run)
            # A scan meanwhile may have given the name to another revision; this run keeps the one it is known by.
            run.ref = replace(await self._recheck(run.ref), id=run.ref.id)
            if (refused := disk_refusal(run.id, run.ref)) is not None:
                raise LaunchFailed(refused, [], crashed=False)
            client, loaded = await launch(command, self._settings, hooks)
        except asyncio.CancelledError:  # given up before there was a process
            given_up = ModelUnavailable("its loading was given up", retry_after=1)
            self._post(partial(self._load_failed, run, LaunchFailed(given_up, [], crashed=False)))
        except LaunchFailed as failure:
            self._post(partial(self._load_failed, run, failure))
        else:
            with contextlib.suppress(asyncio.CancelledError):
                await self.ledger.measure()
            self._post(partial(self._load_done, run, client, loaded))

    def _load_done(self, run: ModelRun, client: WorkerClient, loaded: ipc.Loaded) -> None:
        run.client, run.loaded, run.load_task, run.progress = client, loaded, None, None
        run.state, run.loaded_at, run.failed_loads = "ready", time.time(), 0
        gate = partial(self._answer_gate, run)
        run.queue = SlotQueue(run.id, loaded.slots, self._settings.queue_limit, gate)
        footprint = self.ledger.footprint(run)
        self.ledger.observed.note(run.id, footprint)
        self._events.emit(
            "model.loaded", model=run.id, seconds=loaded.seconds, footprint_bytes=footprint, pid=client.pid
        )
        if client.child.death is not None:
            self.departures.died(run, client, client.child.death)
            return
        if run.unloaders or not self.departures.granting:
            self.departures.leave(run, "its loading was given up", 0.0)
            return
        waiters, run.waiters = run.waiters, []
        for waiter in waiters:
            self._grant(run, waiter)
        self._caches.share()

    def _load_failed(self, run: ModelRun, failure: LaunchFailed) -> None:
        run.client, run.load_task, run.progress, run.need = None, None, None, 0
        self._caches.forget(run)
        run.recent_lines = failure.lines
        error = failure.error
        if failure.crashed:
            self.departures.note_crash(run, error.message, failure.lines)
        elif run.unloaders or not self.departures.granting or run.ref.problem is not None:
            run.state, run.reason = (
                "unloaded",
                None,
            )  # what speaks against its files the catalog says, as long as it does
        else:
            run.failed_loads += 1
            back_off = min(LONGEST_BACK_OFF_S, 2.0 ** min(run.failed_loads, 16))
            run.state, run.reason, run.retry_at = "failed", error.message, time.monotonic() + back_off
            error = load_failure(run, error, back_off)
            self._events.emit("model.failed", model=run.id, code=error.code, message=run.reason, lines=failure.lines)
        run.refuse_all(error)
        run.resolve_unloaders()

    def _relieve(self) -> None:
        """Called every second. What caches had to give up they get back in time, if nobody else wants it."""
        used = self._watch.reading.used
        self._looks += 1
        match self.ledger.plan_relief():
            case Shrink(caches=bounds):
                self._caches.shrink(bounds, "the machine is short of memory")
            case Load(evict=victims):
                for victim in victims:
                    self._events.emit("memory.pressure", model=victim, used_bytes=used)
                    self.departures.evict(victim, "the machine is short of memory")
            case None if self._looks % _SHARE_EVERY == 0 and not self._demands:
                self._caches.share()
        for run in self.runs.values():
            if run.expired(now := self.departures.clock()):
                self.departures.evict(run.id, f"idle for {duration(now - (run.last_used or now))}")
        serve_queues(self.runs.values())
