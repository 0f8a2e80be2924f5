"""The stepping core: takes requests in token ids, gives tokens, and keeps the accelerator busy in between.

One thread constructs the core and calls ``step`` and ``wait_for_work``. Everything else may be called from any thread.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import mlx.core as mx

from inference.worker.core import caches as kv
from inference.worker.core.admission import Admission
from inference.worker.core.decode import DecodeBatch, Unread
from inference.worker.core.lifecycle import Lifecycle
from inference.worker.core.placement import Placement
from inference.worker.core.prefill import ChunkSizer, PrefillJob
from inference.worker.core.prefix_cache import PrefixCache
from inference.worker.core.rows import Row, Running
from inference.worker.core.scoring import Scoring
from inference.worker.core.types import (
    ConstraintError,
    CoreEvent,
    CoreRequest,
    CoreStats,
    PrefillProgress,
    RequestFailed,
    Started,
)
from inference.worker.core.validate import Refusal, check, checked_prompt

_CLEAR_CACHE_EVERY = 512
_CLEAR_CACHE_AFTER_CHUNK = 512
_COUNT_KV_EVERY = 64
_IDLE_S = 1.0
_NOT_NUMBERS = "the model computed logits that are not numbers"

_Cancel = tuple[str, int | None]


class Core:
    """One model, stepped.

    ``slots`` bounds the choices that decode or prefill at once (a request with more choices than that runs alone).
    ``prefill_budget_ms`` is how long a prefill chunk may hold up running streams, see ``ChunkSizer``.
    ``weight_bytes`` is what one forward pass reads of the model (all of its weights, if not given); it decides when
    rows of very different length are stepped apart, see ``Placement``. Construction runs a few tiny forward passes to
    learn ``facts``. ``prefix_cache_bytes`` bounds what is kept of earlier prompts (0: nothing for now, None: never);
    ``prefixes`` is None where nothing can be kept.
    """

    def __init__(
        self,
        model: Any,
        *,
        slots: int = 32,
        prefill_budget_ms: float = 40.0,
        prefill_chunk: int = 2048,
        weight_bytes: int | None = None,
        prefix_cache_bytes: int | None = None,
    ) -> None:
        self.facts = kv.probe(model)
        self.vocab_size = self.facts.vocab_size
        self.batching = self.facts.batching
        self.kv_bytes_per_token = self.facts.kv_bytes_per_token
        self._inbox: deque[Running | _Cancel | RequestFailed | Callable[[], None]] = deque()
        self._wake = threading.Event()
        self.prefixes = None if prefix_cache_bytes is None else PrefixCache.of(model, prefix_cache_bytes)
        self._queue = Admission(model, self.facts, slots, self.prefixes)
        self._life = Lifecycle(self._queue)
        self._scoring = Scoring(self._life)
        self._sizer = ChunkSizer(prefill_budget_ms / 1000, prefill_chunk)
        self.prefill_token_s = self._sizer.token_s
        self._placement = Placement(self.facts, kv.weights_of(model) if weight_bytes is None else weight_bytes)
        self._batches: list[DecodeBatch] = []
        self._unread: list[Unread] = []
        self._batches_of = 0
        self._stats = CoreStats()

    # ------------------------------------------------------------------------------------------------ any thread

    def submit(self, request: CoreRequest) -> None:
        """Queue a request; a refusal comes as ``RequestFailed``. ``ValueError`` when a request of that key is open."""
        if request.key in self._life.open_keys:
            raise ValueError(f"request {request.key} is open already")
        self._life.open_keys.add(request.key)
        try:
            check(request, self.vocab_size)
            self._inbox.append(Running.of(request, checked_prompt(request, self.vocab_size)))
        except Refusal as refusal:
            self._inbox.append(RequestFailed(request.key, "invalid_request", str(refusal), refusal.param))
        self._wake.set()

    def cancel(self, key: str, choice: int | None = None) -> None:
        """End a request, or one choice of it, before its next step or chunk. Unknown keys are ignored."""
        self._inbox.append((key, choice))
        self._wake.set()

    def cancel_all(self) -> None:
        """Cancel every request that is open now."""
        for key in tuple(self._life.open_keys):
            self.cancel(key)

    def set_slots(self, slots: int) -> None:
        """Change the bound on choices at once; what runs goes on."""
        self._queue.slots = max(slots, 1)
        self._wake.set()

    def call(self, job: Callable[[], None]) -> None:
        """Have ``job`` called on the stepping thread, between two steps."""
        self._inbox.append(job)
        self._wake.set()

    def wake(self) -> None:
        """Make a ``wait_for_work`` that blocks return."""
        self._wake.set()

    def stats(self) -> CoreStats:
        """The state after the last step."""
        return dataclasses.replace(self._stats)

    @property
    def busy(self) -> bool:
        """True while a submitted request has not had its last event."""
        return bool(self._life.open_keys)

    # ------------------------------------------------------------------------------------------- stepping thread

    def wait_for_work(self, timeout: float | None = None) -> bool:
        """Block until there is something to do (True), ``wake`` is called or ``timeout`` seconds are over."""
        if not self._inbox and not self._has_work():
            self._sizer.pause()
            self._sleep(timeout)
        self._wake.clear()
        return bool(self._inbox) or self._has_work()

    def _sleep(self, timeout: float | None) -> None:
        """Wait to be woken; after a while give unused memory back to the system, for the other models."""
        first = _IDLE_S if timeout is None else min(timeout, _IDLE_S)
        if self._wake.wait(first) or first == timeout:
            return
        mx.clear_cache()
        self._wake.wait(None if timeout is None else timeout - first)

    def _has_work(self) -> bool:
        return bool(self._batches or self._unread or self._queue.has_work)

    def step(self) -> list[CoreEvent]:
        """Do one step: read the inbox, queue the next decode step and prefill chunk, deliver the tokens before it."""
        events = self._life.events = []
        if self._inbox:
            self._read_inbox()
        self._leave()
        for running in self._queue.admit(sum(len(batch.rows) for batch in self._batches)):
            self._life.events.append(Started(running.request.key))
        unread, self._unread = self._unread, []
        waiting = self._advance()
        behind_step = bool(self._batches) and not waiting
        if behind_step:
            self._prefill()
        for drawn in unread:
            self._deliver(drawn)
        self._draw_constrained(waiting)
        if not behind_step:
            self._prefill()
        self._join()
        if not self._life.running:
            self._end_all()
        self._account()
        return events

    # -------------------------------------------------------------------------------------------------- the inbox

    def _read_inbox(self) -> None:
        """Take in submissions, refusals and cancellations in the order they came."""
        while self._inbox:
            message = self._inbox.popleft()
            if isinstance(message, RequestFailed):
                self._life.open_keys.discard(message.key)
                self._life.events.append(message)
            elif isinstance(message, Running):
                self._life.running[message.request.key] = message
                self._queue.add(message)
            elif isinstance(message, tuple):
                self._cancel(*message)
            else:
                message()
            self._life.changed = True

    def _cancel(self, key: str, choice: int | None) -> None:
        running = self._life.running.get(key)
        if running is None:
            return
        for row in running.rows:
            if row.alive and choice in (None, row.ref.choice):
                self._life.finish(row, "cancelled", self._delivered(row))

    def _delivered(self, row: Row) -> int:
        """Tokens of a row that were delivered, between two steps: all that were drawn but the unread one."""
        for drawn in self._unread:
            if row in drawn.rows:
                return drawn.drawn_by(drawn.rows.index(row)) - 1
        return 0

    # ----------------------------------------------------------------------------------------------- the device

    def _leave(self) -> None:
        """Take out the rows that ended, before they are stepped again."""
        self._batches_of = self._life.generation
        changed = False
        for batch in self._batches:
            try:
                changed = batch.drop_finished(self._life.generation, self._leaving) or changed
            except Exception as error:
                self._life.fail_rows(batch.rows, error)
                batch.rows = []
                changed = True
        if changed:
            self._life.changed = True
            remaining = [batch for batch in self._batches if batch.rows]
            self._batches = []
            self._place(remaining)

    def _leaving(self, batch: DecodeBatch, at: int) -> None:
        if self.prefixes is not None:
            self.prefixes.keep_answer(batch, at)

    def _end_all(self) -> None:
        """Nobody is left in the batches, but in steps that were queued ahead."""
        for batch in self._batches:
            for at in range(len(batch.rows)):
                self._leaving(batch, at)
        self._batches, self._unread = [], []

    def _join(self) -> None:
        """Move prefilled rows into the batches that decode."""
        for job in self._queue.take_finished():
            self._life.changed = True
            self._scoring.prefilled(job.running)
            try:
                self._place(job.batches())
            except Exception as error:
                self._fail_job(job, error)

    def _place(self, batches: list[DecodeBatch]) -> None:
        """Let each batch join one that decodes already, or decode by itself."""
        for batch in batches:
            partner = self._placement.partner(batch, self._batches)
            if partner is None:
                self._batches.append(batch)
                continue
            try:
                partner.extend(batch)
            except Exception as error:
                self._life.fail_rows([*partner.rows, *batch.rows], error)
                self._batches.remove(partner)

    def _advance(self) -> list[DecodeBatch]:
        """Queue the next step of every batch; returns those that must be read before they can draw."""
        waiting = []
        for batch in list(self._batches):
            try:
                batch.forward()
                if batch.constrained:
                    batch.start_forward()
                    waiting.append(batch)
                else:
                    self._unread.append(batch.draw(self._batches_of))
            except Exception as error:
                self._life.fail_rows(batch.rows, error)
                self._batches.remove(batch)
        return waiting

    def _draw_constrained(self, waiting: list[DecodeBatch]) -> None:
        for batch in waiting:
            try:
                allowed = batch.allowed(self.vocab_size, self._constraint_failed)
                self._unread.append(batch.draw(self._batches_of, allowed))
            except Exception as error:
                self._life.fail_rows(batch.rows, error)
                self._batches.remove(batch)

    def _constraint_failed(self, row: Row, error: BaseException) -> None:
        message = f"the output constraint failed: {error}"
        if isinstance(error, ConstraintError):
            self._life.fail(row.owner, "invalid_request", message, "response_format")
        else:
            self._life.fail(row.owner, "internal_error", message)

    def _prefill(self) -> None:
        """Queue one chunk; wait for it only where no stream is decoding."""
        decoding = bool(self._batches)
        job = self._queue.next_job(self._sizer.size(decoding))
        if job is None:
            return
        began = time.perf_counter()
        try:
            count = job.advance(self._sizer.size(decoding))
            if not decoding:
                job.wait()
        except Exception as error:
            if not self._queue.try_again(job):
                self._fail_job(job, error)
            return
        if count >= _CLEAR_CACHE_AFTER_CHUNK:
            mx.clear_cache()
        if decoding:
            self._sizer.queued(count)
        else:
            self._sizer.saw_chunk(count, time.perf_counter() - began, beside_step=False)
        self._stats.prefilled += count
        for running in job.running:
            total = int(running.prompt.size)
            done = total if job.finished else job.done
            self._life.events.append(PrefillProgress(running.request.key, done, total, job.cached))

    def _fail_job(self, job: PrefillJob, error: Exception) -> None:
        for running in job.running:
            self._life.fail(running, "internal_error", f"the prefill failed: {error}")

    # ------------------------------------------------------------------------------------------------- delivery

    def _deliver(self, drawn: Unread) -> None:
        """Wait for drawn tokens, report them, and end the rows that they end."""
        try:
            tokens, sound = drawn.read()
            logprobs = drawn.logprobs()
        except Exception as error:
            self._life.fail_rows(drawn.rows, error)
            return
        sound = self._scoring.deliver(drawn.rows) and sound
        if not sound:
            if self.prefixes is not None:
                self.prefixes.clear()
            for at in drawn.unsound():
                if drawn.rows[at].alive:
                    self._life.fail(drawn.rows[at].owner, "internal_error", _NOT_NUMBERS)
        if self.prefixes is not None and self.prefixes.enabled:
            drawn.remember(tokens)
        event = drawn.event(tokens, logprobs, self._life.generation)
        if event.rows:
            self._stats.tokens += len(event.rows)
            self._life.events.append(event)
        if drawn.constrained or drawn.ending or not drawn.eos.isdisjoint(tokens):
            self._end_rows(drawn, tokens)

    def _end_rows(self, drawn: Unread, tokens: list[int]) -> None:
        """End rows by EOS, by a constraint that is complete, or by length, in that order of precedence."""
        ending = set(drawn.ending)
        for at, row in enumerate(drawn.rows):
            if not row.alive:
                continue
            delivered = drawn.drawn_by(at)
            if tokens[at] in row.owner.request.eos or (row.constraint is not None and self._complete(row, tokens[at])):
                if row.alive:
                    self._life.finish(row, "stop", delivered)
            elif at in ending:
                self._life.finish(row, "length", delivered)

    def _complete(self, row: Row, token: int) -> bool:
        """Advance a row's constraint; True when its text is complete or the constraint failed."""
        constraint = row.constraint
        if constraint is None:
            return False
        try:
            constraint.advance(token)
            return constraint.finished
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic in a native matcher is no Exception
            self._constraint_failed(row, error)
            return True

    # ------------------------------------------------------------------------------------------------ accounting

    def _account(self) -> None:
        """Measure the step for the chunk sizes, return unused memory now and then, refresh the counters."""
        stats = self._stats
        stats.step += 1
        self._sizer.stepped(bool(self._batches))
        if stats.step % _CLEAR_CACHE_EVERY == 0:
            mx.clear_cache()
        if self._life.changed or stats.step % _COUNT_KV_EVERY == 0:
            self._count()

    def _count(self) -> None:
        stats = self._stats
        stats.running = len(self._life.running) - self._queue.queued
        stats.queued = self._queue.queued
        stats.rows = sum(len(batch.rows) for batch in self._batches)
        held = [batch.caches for batch in self._batches] + [job.caches for job in self._queue.jobs()]
        stats.kv_bytes = sum(map(kv.bytes_of, held))
        self._life.changed = False
