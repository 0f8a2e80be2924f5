"""The engine singleton: from a request to a running answer.

``generate`` goes through the phases: resolve, lease (load), prepare, bound, queue, start. Whatever happens on the
way, be it a refusal, a caller that leaves or a cancel from a page, everything taken so far is given back: the
prepared prompt in the worker, the place in the queue, the slot, the lease.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from inference.catalog import Catalog
from inference.engine.admission import KV_LOOKAHEAD_TOKENS, bound_answer, kv_estimate
from inference.engine.asking import Asker
from inference.engine.contract import MemoryFit, MemoryReader, ModelStatus, RunState, Size
from inference.engine.generation import RunningGeneration
from inference.engine.health import Outcomes, judge
from inference.engine.memory import MemoryWatch
from inference.engine.pending import DEADLINE, PendingRequests, overdue
from inference.engine.runs import Lease, Wish
from inference.engine.settings import EngineSettings
from inference.engine.supervisor import Supervisor
from inference.engine.watchdog import Watchdog
from inference.errors import DeadlineExceeded, LmxError, ModelNotFound, WorkerDied
from inference.ipc import Embedded, GenerateRequest, Tokens
from inference.model_settings import NO_SETTINGS, ModelSettings
from inference.records import EventSink, RecordSink, RequestRecord

log = logging.getLogger(__name__)

_WATCH_S = 1.0


@dataclass(frozen=True, slots=True)
class _Holding:
    """What a running answer holds, and how many KV tokens it was let in with."""

    lease: Lease
    slots: int
    kv_tokens: int
    began: float
    timer: asyncio.TimerHandle | None


class WorkerEngine:
    """Implements ``contract.Engine`` with one worker process per model."""

    def __init__(
        self,
        settings: EngineSettings,
        catalog: Catalog,
        memory: MemoryReader,
        records: RecordSink,
        events: EventSink,
    ) -> None:
        self._settings = settings
        self._catalog = catalog
        self._records = records
        self._events = events
        self._watch = MemoryWatch(memory, settings)
        self._supervisor = Supervisor(settings, self._watch, events, self._kv_promise, catalog.recheck)
        self._watchdog = Watchdog(settings, lambda client, cause: client.child.kill(cause))
        self._outcomes = Outcomes()
        self._pending = PendingRequests(records, events)
        self._asker = Asker(settings, catalog, self._supervisor, self._pending)
        self._running: dict[RunningGeneration, _Holding] = {}
        self._tasks: list[asyncio.Task[None]] = []

    # ------------------------------------------------------------------------------------------------ life

    async def start(self) -> None:
        await self._supervisor.start()
        self._tasks = [
            asyncio.create_task(self._watch_progress(), name="engine watchdog"),
            asyncio.create_task(self._load_wanted(), name="engine auto_load"),
        ]

    async def stop(self, drain_s: float) -> None:
        """See the contract. Answers still open at the end of the drain get ``Failed(model_unavailable)``."""
        try:
            await self._supervisor.stop(drain_s)
        except Exception:
            log.exception("stopping the workers failed")
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._tasks = []

    async def _load_wanted(self) -> None:
        """Load what ``auto_load`` names; a model that is absent or does not load is reported and stops nothing."""
        for name in self._settings.auto_load:
            try:
                lease = await self._supervisor.acquire(self._catalog.resolve(name))
                lease.release()
            except LmxError as error:
                self._events.emit("auto_load.failed", model=name, code=error.code, message=error.message)

    async def _watch_progress(self) -> None:
        while True:
            await asyncio.sleep(min(_WATCH_S, self._settings.timeout_s / 2))
            try:
                for generation in self._watchdog.check(list(self._running)):
                    record = generation.record
                    self._events.emit("request.timeout", model=record.model, request=record.id, phase=record.phase)
            except Exception:
                log.exception("watching the running answers failed")

    # ------------------------------------------------------------------------------------------------ requests

    async def generate(
        self, model: str, request: GenerateRequest, record: RequestRecord, *, ttl_s: float | None = None
    ) -> RunningGeneration:
        """See the contract."""
        with self._pending.guard(model, record):
            return await self._admit(model, request, record, ttl_s)

    async def _admit(
        self, model: str, request: GenerateRequest, record: RequestRecord, ttl_s: float | None
    ) -> RunningGeneration:
        """A worker that dies while the request waits for a slot costs it nothing but a second try."""
        ref = self._catalog.resolve(model)
        record.model = ref.id
        second_try = False
        while True:
            lease = await self._asker.lease(ref, record, ttl_s)
            try:
                return await self._start(lease, request, record)
            except BaseException as error:
                lease.release()
                if second_try or record.queued is None or not isinstance(error, WorkerDied):
                    raise
                second_try, record.queued, record.prepared = True, None, None

    async def _start(self, lease: Lease, request: GenerateRequest, record: RequestRecord) -> RunningGeneration:
        client, loaded = lease.client, lease.loaded
        key = client.next_key()
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                prepared = await client.prepare(key, request)
        except TimeoutError:
            raise DeadlineExceeded(f"the prompt was not ready within {self._settings.timeout_s:.0f} s") from None
        record.prepared = time.time()
        record.prompt_tokens, record.cached_tokens = prepared.prompt_tokens, prepared.cached_estimate
        try:
            max_tokens = bound_answer(prepared.prompt_tokens, request.max_tokens, loaded.context)
            kv_bytes = kv_estimate(prepared.prompt_tokens, max_tokens, request.n, loaded.kv_bytes_per_token)
            slots = await self._asker.slot(lease, record, request.n, kv_bytes)
        except BaseException:
            client.cancel(key)
            raise
        kv_tokens = prepared.prompt_tokens + request.n * min(max_tokens, KV_LOOKAHEAD_TOKENS)
        generation = RunningGeneration(key, client, request, record, prepared.prompt_tokens, self._ended)
        timer = self._deadline_timer(generation)
        self._running[generation] = _Holding(lease, slots, kv_tokens, time.monotonic(), timer)
        client.start(key, max_tokens, generation.push)
        return generation

    @staticmethod
    def _deadline_timer(generation: RunningGeneration) -> asyncio.TimerHandle | None:
        record = generation.record
        if record.deadline is None:
            return None

        def end() -> None:
            generation.cancel(DEADLINE)
            generation.fail(DeadlineExceeded.code, overdue(record).message)

        return asyncio.get_running_loop().call_later(max(0.0, record.deadline - time.time()), end)

    async def count(self, model: str, request: GenerateRequest, record: RequestRecord) -> int:
        return await self._asker.count(model, request, record)

    async def tokenize(self, model: str, text: str, add_special_tokens: bool, record: RequestRecord) -> list[int]:
        return await self._asker.tokenize(model, text, add_special_tokens, record)

    async def tokens(
        self, model: str, prompt: str | GenerateRequest, add_special_tokens: bool, record: RequestRecord
    ) -> Tokens:
        return await self._asker.tokens(model, prompt, add_special_tokens, record)

    async def detokenize(self, model: str, token_ids: list[int], record: RequestRecord) -> str:
        return await self._asker.detokenize(model, token_ids, record)

    async def embed(
        self, model: str, inputs: list[str | list[int]], dimensions: int | None, record: RequestRecord
    ) -> Embedded:
        return await self._asker.embed(model, inputs, dimensions, record)

    def _ended(self, generation: RunningGeneration) -> None:
        """The last event of an answer has come: give back what it held, put its record away."""
        holding = self._running.pop(generation)
        if holding.timer is not None:
            holding.timer.cancel()
        self._outcomes.note(generation)
        holding.lease.queue.release(holding.slots, time.monotonic() - holding.began)
        holding.lease.release()
        self._records.put(generation.record)

    def _kv_promise(self, model_id: str) -> int:
        """KV bytes that the running answers of a model were let in with and have not taken yet."""
        promised = 0
        for generation, holding in self._running.items():
            record = generation.record
            if record.model == model_id:
                left = holding.kv_tokens - record.prefill_done - record.completion_tokens
                promised += max(0, left) * holding.lease.loaded.kv_bytes_per_token
        return promised

    # -------------------------------------------------------------------------------------------- the owner's view

    async def load(
        self, model: str, *, context: int | None, slots: int | None, pin: bool | None, ttl_s: float | None = None
    ) -> ModelStatus:
        """Load now, whatever happened before. Raises ``LmxError`` with the reason it cannot be."""
        ref = self._catalog.resolve(model)
        try:
            await self._supervisor.load(ref, Wish(context, slots, pin, ttl_s))
        except LmxError as error:
            self._events.emit("load.refused", model=ref.id, code=error.code, message=error.message)
            raise
        return self._supervisor.status(ref)

    def settings(self, model: str) -> ModelSettings:
        """See the contract."""
        try:
            return self._catalog.resolve(model).settings
        except ModelNotFound:
            return NO_SETTINGS

    async def apply_settings(self) -> None:
        """See the contract."""
        await self._supervisor.take_settings({ref.path: ref.settings for ref in self._catalog.all()})

    async def unload(self, model: str) -> ModelStatus:
        """See the contract. A model that left the catalog while loaded goes by its id."""
        run = self._supervisor.runs.get(model)
        ref = run.ref if run is not None else self._catalog.resolve(model)
        await self._supervisor.unload(ref.id)
        return self._supervisor.status(ref)

    def models(self) -> list[ModelStatus]:
        refs = {ref.id: ref for ref in self._catalog.all()}
        for run in self._supervisor.runs.values():
            if run.state != "unloaded":
                refs.setdefault(run.id, run.ref)
        return [self._supervisor.status(refs[model_id]) for model_id in sorted(refs)]

    def directories(self) -> list[tuple[Path, RunState]]:
        """Where the models lie that have a worker, or will have one; a run keeps its place while ids move."""
        states = ("loading", "ready", "draining")
        return [(run.ref.path, run.state) for run in self._supervisor.runs.values() if run.state in states]

    def in_flight(self) -> list[RequestRecord]:
        """Records of all requests that have not ended, the oldest first."""
        self._supervisor.number_queues()
        records = self._pending.records()
        records += [generation.record for generation in self._running]
        return sorted(records, key=lambda record: record.received)

    def cancel(self, request_id: str, by: str) -> bool:
        """End a request in whatever phase; False if there is none of that id."""
        if self._pending.cancel(request_id, by):
            return True
        found = [generation for generation in self._running if generation.record.id == request_id]
        for generation in found:
            generation.cancel(by)
        return bool(found)

    def health(self) -> tuple[Literal["healthy", "degraded", "error"], list[str]]:
        if not self._tasks:
            return "error", ["the engine does not run"]
        runs = self._supervisor.runs.values()
        still = self._watchdog.standing_still()
        return judge(runs, self._outcomes, still, self._watch.reading, self._settings.oom_threshold_percent)

    def memory_fit(self, size: Size, context: int | None = None, model_id: str | None = None) -> MemoryFit:
        """See the contract."""
        return self._supervisor.ledger.fit(size, context, model_id)

    def memory_plan(self) -> dict[str, Any]:
        return self._supervisor.ledger.numbers()
