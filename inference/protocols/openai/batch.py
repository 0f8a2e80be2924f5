"""Several engine requests that are answered as one: the prompts of a text completion.

They run beside each other, a few at a time, as requests of their own in the engine's queue; what fails one fails the
answer, and leaving the answer ends them all.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from types import TracebackType
from typing import Self

from msgspec import structs

from inference.engine import get_engine
from inference.engine.contract import Generation
from inference.errors import LmxError, from_code
from inference.ipc import Failed, Finished, GenerateRequest, RequestEvent, Started
from inference.protocols.openai.parts import Part
from inference.protocols.serving import rename
from inference.records import RequestRecord

AT_ONCE = 16
"""Requests of one answer in the engine at a time: a long list must not fill the model's queue."""


class BatchGeneration:
    """A ``Generation`` made of one for each of ``requests``, whose choices are numbered on by ``parts``.

    ``n`` is the number of choices that the parts give. ``record`` is the first request's; the others have records of
    their own, whose ids have a number at their end. ``named`` is ``Call.named``.
    """

    def __init__(
        self,
        model: str,
        requests: list[GenerateRequest],
        parts: list[Part],
        n: int,
        record: RequestRecord,
        ttl_s: float | None,
        named: Callable[[str], str],
    ) -> None:
        self.record = record
        self.request = structs.replace(requests[0], n=n)
        self.prompt_tokens = 0  # until they are known: every ``Finished`` brings the sum so far
        self._model = model
        self._requests = requests
        self._records = [record, *(replace(record, id=f"{record.id}-{at}") for at in range(1, len(requests)))]
        self._parts = parts
        self._ttl_s = ttl_s
        self._named = named
        self._room = asyncio.Semaphore(AT_ONCE)
        self._unstarted = min(AT_ONCE, len(requests))
        self._started = asyncio.Event()
        self._arrived = asyncio.Event()
        self._events: list[RequestEvent] = []
        self._running: dict[int, Generation] = {}
        self._open = len(requests)
        self._failure: BaseException | None = None
        self._prompts = [0] * len(requests)
        self._cached = [0] * len(requests)
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._run(number)) for number in range(len(self._requests))]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    async def __aiter__(self) -> AsyncIterator[list[RequestEvent]]:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            batch, self._events = self._events, []
            if batch:
                yield batch
            if self._failure is not None:
                raise self._failure
            if not self._open and not self._events:
                return

    async def wait_started(self, timeout: float) -> None:  # noqa: ASYNC109 - it returns, it does not raise
        """As the contract has it, for the requests that are in the engine at first."""
        try:
            await asyncio.wait_for(self._started.wait(), timeout)
        except TimeoutError:
            return
        if self._failure is not None:
            raise self._failure

    def cancel(self, by: str) -> None:
        for generation in list(self._running.values()):
            generation.cancel(by)

    async def _run(self, number: int) -> None:
        try:
            async with self._room:
                await self._follow(number)
            self._open -= 1
        except Exception as error:  # whoever iterates raises it
            self._failure = self._failure or self._placed(error, number)
            self._started.set()
        finally:
            self._arrived.set()

    async def _follow(self, number: int) -> None:
        request, part = self._requests[number], self._parts[number]
        if request.max_tokens == 0:
            request = structs.replace(request, max_tokens=1)
        generation = await get_engine().generate(self._model, request, self._records[number], ttl_s=self._ttl_s)
        self._prompts[number] = generation.prompt_tokens
        self._running[number] = generation
        try:
            async with generation:
                async for batch in generation:
                    self._take(number, part, batch)
        finally:
            del self._running[number]

    def _take(self, number: int, part: Part, batch: list[RequestEvent]) -> None:
        for event in batch:
            if isinstance(event, Started):
                self._unstarted -= 1
                if self._unstarted <= 0:
                    self._started.set()
            elif isinstance(event, Failed):
                raise from_code(event.code, event.message, event.param, event.details)
            elif isinstance(event, Finished):
                self._cached[number] = max(self._cached[number], event.usage.cached_tokens)
        if made := part.take(batch):
            self._events += [self._with_sums(event) for event in made]
            self._arrived.set()

    def _with_sums(self, event: RequestEvent) -> RequestEvent:
        """The tokens of all prompts: choices of one prompt share them, prompts do not."""
        if not isinstance(event, Finished):
            return event
        usage = structs.replace(event.usage, prompt_tokens=sum(self._prompts), cached_tokens=sum(self._cached))
        return structs.replace(event, usage=usage)

    def _placed(self, error: Exception, number: int) -> Exception:
        """An error of one prompt out of several names its place."""
        if isinstance(error, LmxError):
            rename(error, self._named)
            if error.param == "prompt" and len(self._requests) > 1:
                error.param = f"prompt[{number}]"
        return error
