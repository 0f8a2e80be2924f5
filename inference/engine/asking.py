"""Questions that a model answers once: how many tokens, which tokens, which text, which vectors.

They go the way of a generation as far as it is theirs: resolve, lease (load), and for embeddings a slot in the model's
queue, in fair turns with everybody else. They run in their caller's task, so whatever ends that task ends them, and a
question that was being worked on is cancelled in the worker. All of them can be asked twice without harm: a worker
that dies over one costs it a second try, and no third.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from inference.catalog import Catalog, ModelRef
from inference.engine.pending import PendingRequests
from inference.engine.runs import Lease
from inference.engine.settings import EngineSettings
from inference.engine.supervisor import Supervisor
from inference.errors import DeadlineExceeded, ModelUnavailable, TooManyRequests, Unsupported, WorkerDied
from inference.ipc import Embedded, GenerateRequest, Tokens
from inference.records import RequestRecord

AnswerT = TypeVar("AnswerT")
Question = Callable[[Lease], Awaitable[AnswerT]]


class Asker:
    """Belongs to the event loop. ``lease`` and ``slot`` serve generations too."""

    def __init__(
        self, settings: EngineSettings, catalog: Catalog, supervisor: Supervisor, pending: PendingRequests
    ) -> None:
        self._settings = settings
        self._catalog = catalog
        self._supervisor = supervisor
        self._pending = pending

    async def lease(self, ref: ModelRef, record: RequestRecord, ttl_s: float | None = None) -> Lease:
        """The loaded model, loaded if need be; ``ModelUnavailable`` when that takes longer than anything may."""
        asked = time.monotonic()
        limit = self._settings.queue_timeout_s + self._settings.load_timeout_s
        try:
            async with asyncio.timeout(limit):
                return await self._supervisor.acquire(ref, ttl_s)
        except TimeoutError:
            message = f"{ref.id} was not ready within {limit:.0f} s: it waited for memory, for its loading or unloading"
            raise ModelUnavailable(message, retry_after=30) from None
        finally:
            record.load_waited_s += time.monotonic() - asked

    async def slot(self, lease: Lease, record: RequestRecord, choices: int, kv_bytes: int) -> int:
        """Wait for the turn of ``record``; the number of slots taken, to be given back to ``lease.queue``."""
        limit, queue = self._settings.queue_timeout_s, lease.queue
        record.queued = time.time()
        try:
            async with asyncio.timeout(limit):
                return await queue.acquire(record, choices, kv_bytes)
        except TimeoutError:
            message = f"the request waited {limit:.0f} s for its turn"
            raise TooManyRequests(message, code="queue_timeout", retry_after=queue.retry_after()) from None

    # ----------------------------------------------------------------------------------------------- questions

    async def count(self, model: str, request: GenerateRequest, record: RequestRecord) -> int:
        async def question(lease: Lease) -> int:
            record.prompt_tokens = await self._in_time(record, lease.client.count(request))
            return record.prompt_tokens

        return await self._ask(model, record, question)

    async def tokenize(self, model: str, text: str, add_special_tokens: bool, record: RequestRecord) -> list[int]:
        async def question(lease: Lease) -> list[int]:
            tokens = await self._in_time(record, lease.client.tokenize(text, add_special_tokens))
            record.prompt_tokens = len(tokens)
            return tokens

        return await self._ask(model, record, question)

    async def tokens(
        self, model: str, prompt: str | GenerateRequest, add_special_tokens: bool, record: RequestRecord
    ) -> Tokens:
        async def question(lease: Lease) -> Tokens:
            tokens = await self._in_time(record, lease.client.tokens(prompt, add_special_tokens))
            record.prompt_tokens = len(tokens.token_ids)
            return tokens

        return await self._ask(model, record, question)

    async def detokenize(self, model: str, token_ids: list[int], record: RequestRecord) -> str:
        async def question(lease: Lease) -> str:
            return await self._in_time(record, lease.client.detokenize(token_ids))

        return await self._ask(model, record, question)

    async def embed(
        self, model: str, inputs: list[str | list[int]], dimensions: int | None, record: RequestRecord
    ) -> Embedded:
        async def question(lease: Lease) -> Embedded:
            if not lease.loaded.capabilities.embeddings:
                raise Unsupported(f"{record.model} makes no embeddings", param="model")
            record.prepared = time.time()
            slots = await self.slot(lease, record, 1, 0)
            began = time.monotonic()
            try:
                answer = await self._in_time(record, lease.client.embed(inputs, dimensions))
            finally:
                lease.queue.release(slots, time.monotonic() - began)
            record.prompt_tokens = answer.prompt_tokens
            return answer

        return await self._ask(model, record, question)

    async def _ask(self, model: str, record: RequestRecord, question: Question[AnswerT]) -> AnswerT:
        """Ask, at most twice, and put ``record`` away."""
        with self._pending.guard(model, record):
            ref = self._catalog.resolve(model)
            record.model = ref.id
            try:
                answer = await self._once(ref, record, question)
            except WorkerDied:
                record.queued, record.prepared, record.started = None, None, None
                answer = await self._once(ref, record, question)
        self._pending.close(record, None, 200)
        return answer

    async def _once(self, ref: ModelRef, record: RequestRecord, question: Question[AnswerT]) -> AnswerT:
        lease = await self.lease(ref, record)
        try:
            return await question(lease)
        finally:
            lease.release()

    async def _in_time(self, record: RequestRecord, answer: Awaitable[AnswerT]) -> AnswerT:
        """What the worker says, if it does so within the time that it may stand still over a running request."""
        record.started, limit = time.time(), self._settings.timeout_s
        try:
            async with asyncio.timeout(limit):
                return await answer
        except TimeoutError:
            raise DeadlineExceeded(f"{record.model} did not answer within {limit:.0f} s") from None
