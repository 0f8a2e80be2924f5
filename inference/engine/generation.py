"""One running request on the web side: a list that the worker's frames append to and one consumer empties.

No task, queue or copy per token: ``push`` appends and, if the consumer sleeps, wakes it once per frame.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from inference import ipc
from inference.engine.worker_client import WorkerClient
from inference.errors import from_code
from inference.records import RequestRecord


class RunningGeneration:
    """Implements ``contract.Generation``. ``on_end`` is called once, with the last event already recorded."""

    def __init__(
        self,
        key: str,
        client: WorkerClient,
        request: ipc.GenerateRequest,
        record: RequestRecord,
        prompt_tokens: int,
        on_end: Callable[[RunningGeneration], None],
    ) -> None:
        self.key = key
        self.client = client
        self.request = request
        self.record = record
        self.prompt_tokens = prompt_tokens
        self.ended = False
        self.failure: ipc.Failed | None = None
        self.last_progress = time.monotonic()
        self.cancelled_at: float | None = None
        self._open_choices = request.n
        self._used_tokens = 0
        self._batch: list[ipc.RequestEvent] = []
        self._waiter: asyncio.Future[None] | None = None
        self._begun = False
        self._begin_waiter: asyncio.Future[None] | None = None
        self._on_end = on_end

    # ------------------------------------------------------------------------------------------------- consumer

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.ended:
            left = kind is not None and issubclass(kind, asyncio.CancelledError | GeneratorExit | OSError)
            self.cancel("client" if left else "server")

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[ipc.RequestEvent]:
        if not self._batch:
            if self.ended:
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        batch, self._batch = self._batch, []
        return batch

    async def wait_started(self, timeout: float) -> None:  # noqa: ASYNC109 - it returns, it does not raise
        """Return at ``Started`` or after ``timeout`` seconds; raise the ``LmxError`` of a failure that came first."""
        if not self._begun and not self.ended:
            self._begin_waiter = asyncio.get_running_loop().create_future()
            await asyncio.wait({self._begin_waiter}, timeout=timeout)
            self._begin_waiter = None
        if self.failure is not None and not self._begun:
            raise from_code(self.failure.code, self.failure.message, self.failure.param)

    def cancel(self, by: str) -> None:
        """Ask the worker to end it; the first asker is the one on record."""
        if self.ended or self.cancelled_at is not None:
            return
        self.cancelled_at = time.monotonic()
        self.record.cancelled_by = by
        self.client.cancel(self.key)

    # ------------------------------------------------------------------------------------------------- producer

    def push(self, event: ipc.RequestEvent) -> None:
        """Take one event of the worker's; called for every token of every stream, so it stays short.

        A cancel that nobody asked for is the worker's at the end of its drain: a failure in the eyes of the client.
        """
        if self.ended:
            return
        if type(event) is ipc.Finished and event.reason == "cancelled" and self.cancelled_at is None:
            event = ipc.Failed.cut_off(self.key)
        self.last_progress = time.monotonic()
        last = False
        if type(event) is ipc.Delta:
            record = self.record
            if record.first_token is None:
                record.first_token = time.time()
            record.completion_tokens += len(event.token_ids)
        else:
            last = self._note(event)
        self._batch.append(event)
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)
        if last:
            self.client.forget(self.key)
            self._on_end(self)

    def fail(self, code: str, message: str) -> None:
        """End it from this side, as if the worker had failed it."""
        self.push(ipc.Failed(self.key, code, message))

    def _note(self, event: ipc.RequestEvent) -> bool:
        """Fill the record; True if this was the last event."""
        match event:
            case ipc.Started():
                self.record.started = time.time()
                self._begin()
            case ipc.Prefill():
                self.record.prefill_done = event.done
            case ipc.Finished():
                self._note_finished(event)
            case ipc.Failed():
                self.failure = event
                self.record.error_code = event.code
                self._end(from_code(event.code, event.message).status)
        return self.ended

    def _note_finished(self, event: ipc.Finished) -> None:
        record, usage = self.record, event.usage
        self._used_tokens += usage.completion_tokens
        record.prompt_tokens = usage.prompt_tokens or record.prompt_tokens
        record.cached_tokens = max(record.cached_tokens, usage.cached_tokens)
        record.reasoning_tokens += usage.reasoning_tokens
        record.finish_reason = event.reason
        self._open_choices -= 1
        if self._open_choices <= 0:
            record.completion_tokens = self._used_tokens
            self._end(200)

    def _end(self, status: int) -> None:
        self.ended = True
        self.record.finished = time.time()
        self.record.status = self.record.status or status
        self._wake_begin_waiter()

    def _begin(self) -> None:
        self._begun = True
        self._wake_begin_waiter()

    def _wake_begin_waiter(self) -> None:
        if self._begin_waiter is not None and not self._begin_waiter.done():
            self._begin_waiter.set_result(None)
