"""The run state of one model, and the tokens by which others hold on to it. Written by the supervisor's loop alone."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from inference import ipc
from inference.catalog import ModelRef
from inference.engine.admission import SlotQueue
from inference.engine.child import ChildExit
from inference.engine.contract import ModelStatus, RunState
from inference.engine.crashes import Stopped
from inference.engine.worker_client import WorkerClient
from inference.errors import InsufficientMemory, LmxError, ModelCorrupt, ModelUnavailable, TooManyRequests, WorkerDied
from inference.model_settings import ModelSettings
from inference.principal import acting
from inference.request_id import request_id

_WORTH_WAITING_S = 2.0
"""A request waits so long for a model whose worker died; longer than that it is told when to come back."""


class Lease:
    """A right to use a loaded model; while one is out, the model is busy and is not evicted."""

    def __init__(
        self, client: WorkerClient, loaded: ipc.Loaded, queue: SlotQueue, on_release: Callable[[], None]
    ) -> None:
        self.client = client
        self.loaded = loaded
        self.queue = queue
        self._on_release: Callable[[], None] | None = on_release

    def release(self) -> None:
        """Give it back; more than once does no harm."""
        if self._on_release is not None:
            on_release, self._on_release = self._on_release, None
            on_release()


@dataclass(frozen=True, slots=True)
class Wish:
    """What the owner says of a load; None leaves it as it is, or to the configuration."""

    context: int | None = None
    slots: int | None = None
    pin: bool | None = None
    ttl_s: float | None = None


def _asker() -> str:
    """Made where the wish is spoken: the supervisor's loop works for everybody."""
    principal = acting.get()
    return "" if principal is None else principal.id


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a worker is loaded with, and what only another load changes. ``context`` None: as long as the model can."""

    context: int | None
    slots: int
    tool_parser: str | None
    reasoning_parser: str | None


@dataclass(eq=False, slots=True)
class Waiter:
    """Someone who wants the model loaded. ``future`` gets a lease, or None for a load by the owner.

    ``ttl_s``: how many idle seconds the model may stay, if it is for this waiter that it is loaded.
    A waiter whose future is cancelled has left: nothing is granted to it and no load is begun for it.
    ``by`` is who waits ("" for the server itself), ``request`` the id of what they asked.
    """

    future: asyncio.Future[Lease | None]
    by_owner: bool = False
    ttl_s: float | None = None
    by: str = field(default_factory=_asker)
    request: str | None = field(default_factory=request_id.get)

    @property
    def here(self) -> bool:
        return not self.future.done()

    def refuse(self, error: BaseException) -> None:
        if self.here:
            self.future.set_exception(error)


@dataclass(eq=False, slots=True)
class ModelRun:
    """``need`` is what the load was planned with, ``returning`` what a leaving worker held (bytes).

    ``cache_limit`` bounds its prefix cache in memory, ``saves`` says that it has a place on disk for it.
    ``retry_at`` is in monotonic time, ``loaded_at`` and ``last_used`` in epoch time. ``ttl_s`` is how many idle seconds
    the model may stay, None for ever. ``context``, ``slots`` and ``pin`` are what a load of the owner's said, None
    where the model's settings say it; ``bounds`` are those of the load under way or done.
    """

    ref: ModelRef
    state: RunState = "unloaded"
    reason: str | None = None
    pin: bool | None = None
    context: int | None = None
    slots: int | None = None
    bounds: Bounds | None = None
    ttl_s: float | None = None
    client: WorkerClient | None = None
    loaded: ipc.Loaded | None = None
    queue: SlotQueue | None = None
    progress: ipc.LoadProgress | None = None
    load_task: asyncio.Task[None] | None = None
    leaving: bool = False
    returning: int = 0
    users: int = 0
    need: int = 0
    cache_limit: int = 0
    saves: bool = False
    retry_at: float = 0.0
    failed_loads: int = 0
    loaded_at: float | None = None
    last_used: float | None = None
    waiters: list[Waiter] = field(default_factory=list)
    unloaders: list[asyncio.Future[None]] = field(default_factory=list)
    recent_lines: list[str] = field(default_factory=list)

    @property
    def id(self) -> str:
        return self.ref.id

    @property
    def able(self) -> bool:
        """Loaded and alive; a worker may be dead before the loop has read the message of it."""
        return self.state == "ready" and self.client is not None and self.client.child.alive

    @property
    def busy(self) -> bool:
        return self.users > 0 or self.state == "loading" or any(waiter.here for waiter in self.waiters)

    def wish(self, wish: Wish) -> None:
        """Take the owner's wishes: a fresh start."""
        self.retry_at, self.failed_loads = 0.0, 0
        if wish.pin is not None:
            self.pin = wish.pin
        if wish.ttl_s is not None:
            self.ttl_s = wish.ttl_s
        self.context, self.slots = wish.context or self.context, wish.slots or self.slots

    @property
    def pinned(self) -> bool:
        """Whether it is not to be unloaded for others: a load said so, or its settings do."""
        return bool(self.ref.settings.pinned) if self.pin is None else self.pin

    @property
    def wanted_context(self) -> int | None:
        """The bound of its context: a load's own words, else its settings."""
        return self.context or self.ref.settings.context

    def wanted_bounds(self, slots: int) -> Bounds:
        """What it would be loaded with now; ``slots`` where nobody said anything about this model."""
        settings, most = self.ref.settings, self.ref.context_length
        context = self.wanted_context
        return Bounds(
            context=None if context is None or 0 < most <= context else context,
            slots=self.slots or settings.slots or slots,
            tool_parser=settings.tool_parser,
            reasoning_parser=settings.reasoning_parser,
        )

    def outdated(self, slots: int) -> bool:
        """Whether it is loaded, or about to be, with other bounds than it would be now."""
        return self.state in ("loading", "ready") and self.bounds not in (None, self.wanted_bounds(slots))

    def take(self, settings: ModelSettings, default_ttl: float | None) -> None:
        """New settings from the owner: what they change wins over what an earlier load said."""
        before, self.ref = self.ref.settings, replace(self.ref, settings=settings)
        if before.pinned != settings.pinned:
            self.pin = None
        if before.context != settings.context:
            self.context = None
        if before.slots != settings.slots:
            self.slots = None
        if before.ttl != settings.ttl:
            self.ttl_s = self.usual_ttl(default_ttl)

    def usual_ttl(self, default: float | None) -> float | None:
        """Its time to live where no load and no request says one."""
        wanted = self.ref.settings.ttl
        if wanted is None:
            return default
        return None if isinstance(wanted, str) else wanted

    def wanted_ttl(self, default: float | None) -> float | None:
        """The time to live of a load that begins: the owner's who waits for it, else the one's who asked first."""
        waiting = sorted((waiter for waiter in self.waiters if waiter.here), key=lambda waiter: not waiter.by_owner)
        wanted = waiting[0].ttl_s if waiting else None
        return self.usual_ttl(default) if wanted is None else wanted

    def asked(self) -> dict[str, Any]:
        """For whom a load begins: ``by`` and ``request``, and ``wanted`` by the owner, a request or the server."""
        first = next((waiter for waiter in self.waiters if waiter.here), None)
        if first is None or not first.by:
            return {"wanted": "server"}
        return {"wanted": "owner" if first.by_owner else "request", "by": first.by, "request": first.request}

    def expired(self, now: float) -> bool:
        """Whether it was idle for longer than its time to live."""
        if self.ttl_s is None or self.state != "ready" or self.busy or self.pinned:
            return False
        return now - (self.last_used or self.loaded_at or now) >= self.ttl_s

    @property
    def prefix_bytes(self) -> int:
        """What its prefix cache held when the worker last told."""
        stats = self.client.stats if self.client is not None else None
        return stats.prefix_bytes if stats is not None else 0

    def refuse_all(self, error: BaseException) -> None:
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            waiter.refuse(error)

    def refuse_owner(self, error: BaseException) -> None:
        """Requests wait for busy models to become idle; the owner, at a button, is told at once."""
        for waiter in self.waiters:
            if waiter.by_owner:
                waiter.refuse(error)

    def resolve_unloaders(self) -> None:
        unloaders, self.unloaders = self.unloaders, []
        for done in unloaders:
            if not done.done():
                done.set_result(None)

    def status(self, footprint: int) -> ModelStatus:
        """A snapshot for pages and the admin API."""
        client, loaded, progress, queue = self.client, self.loaded, self.progress, self.queue
        waiting = sum(waiter.here and not waiter.by_owner for waiter in self.waiters)
        return ModelStatus(
            id=self.id,
            state=self.state,
            reason=self.reason,
            pid=client.pid if client is not None else None,
            pinned=self.pinned,
            context=loaded.context if loaded is not None else self.wanted_context or self.ref.context_length,
            slots=loaded.slots if loaded is not None else self.slots or self.ref.settings.slots or 0,
            weight_bytes=(loaded.weight_bytes if loaded is not None else 0) or self.ref.weight_bytes,
            footprint_bytes=footprint,
            load_phase=progress.phase if progress is not None else None,
            load_done=progress.done if progress is not None else 0,
            load_total=progress.total if progress is not None else 0,
            load_seconds=loaded.seconds if loaded is not None else None,
            loaded_at=self.loaded_at,
            last_used=self.last_used,
            ttl_s=self.ttl_s if self.state in ("loading", "ready") else None,
            running=queue.running if queue is not None else 0,
            queued=waiting + (queue.queued if queue is not None else 0),
            capabilities=loaded.capabilities if loaded is not None else None,
            stats=client.stats if client is not None else None,
            kind=self.ref.kind,
            recent_stderr=list(client.child.recent_lines) if client is not None else self.recent_lines,
        )


def snapshot(run: ModelRun, ref: ModelRef, stopped: Stopped | None, footprint: int, slots: int) -> ModelStatus:
    """A status that also knows what no load has found out yet: a problem on disk, a stop from before a restart."""
    status = run.status(footprint)
    status.reload_needed = run.outdated(slots)
    if status.state == "stopped-after-crashes" and stopped is None:
        status.state, status.reason = "unloaded", None
    if status.state == "unloaded" and stopped is not None:
        status.state, status.reason = "stopped-after-crashes", stopped.reason
    elif status.state == "unloaded" and ref.problem is not None:
        status.state, status.reason = "failed", ref.problem
    return status


class Resting:
    """Statuses of models that nobody runs, each made once for its files as they are: thousands are asked for every
    second. They are shared, so nobody may change one."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._known: dict[str, tuple[ModelRef, ModelStatus]] = {}

    def status(self, ref: ModelRef) -> ModelStatus:
        """A snapshot of a model that has no run and is not stopped."""
        ref_of, status = self._known.get(ref.id, (None, None))
        if status is None or ref_of is not ref:
            status = snapshot(ModelRun(ref), ref, None, 0, self._slots)
            self._known[ref.id] = (ref, status)
        return status


def disk_refusal(name: str, ref: ModelRef) -> LmxError | None:
    """Why the files of a model cannot be loaded; None if nothing speaks against it."""
    if ref.problem is None:
        return None
    kind = ModelCorrupt if ref.disk_state == "corrupt" else ModelUnavailable
    return kind(
        f"{name} cannot be loaded: {ref.problem}", details={"files": list(ref.bad_files)} if ref.bad_files else {}
    )


def load_failure(run: ModelRun, error: LmxError, back_off: float) -> LmxError:
    """A failed load as those are told who waited for it."""
    if isinstance(error, InsufficientMemory | ModelCorrupt):
        return error
    return ModelUnavailable(f"{run.id} failed to load: {error.message}", retry_after=back_off)


def serve_queues(runs: Iterable[ModelRun]) -> None:
    """Memory may have come free: see whether answers that waited for it fit now."""
    for run in runs:
        if run.queue is not None:
            run.queue.serve()


def shutting_down() -> ModelUnavailable:
    return ModelUnavailable("the server is shutting down", retry_after=5)


def death_of(run: ModelRun, death: ChildExit) -> WorkerDied:
    return WorkerDied(f"the process of {run.id} died: {death.cause}", retry_after=1)


def reason_of_death(cause: str) -> str:
    """Why a model whose worker died is not loaded, and what the owner need not do about it."""
    return f"its process died: {cause}; the next request loads it again"


def refusal_to_wait(run: ModelRun, stopped: Stopped | None, queue_limit: int) -> LmxError | None:
    """Why one more waiter for this model is sent away at once; None if it may wait."""
    if (refused := disk_refusal(run.id, run.ref)) is not None:
        return refused
    if stopped is not None:
        return ModelUnavailable(f"{run.id} is {stopped.reason}", retry_after=max(1.0, stopped.until - time.time()))
    wait_s = run.retry_at - time.monotonic()
    if run.state == "failed" and wait_s > (0 if run.failed_loads else _WORTH_WAITING_S):
        what = "failed to load" if run.failed_loads else "is held back"
        return ModelUnavailable(f"{run.id} {what}: {run.reason}", retry_after=math.ceil(wait_s))
    waiting = sum(waiter.here for waiter in run.waiters)
    if waiting >= queue_limit:
        return TooManyRequests(f"{waiting} requests wait for {run.id} already", retry_after=5)
    return None
