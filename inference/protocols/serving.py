"""The one function that serves a generation, whatever protocol it came by and whoever asks (API or page).

Non-streamed: gather the events, give the body. Streamed: a *pump* task runs the generation and turns events into
frames, the response's iterator hands over what has gathered (``backlog``). Two tasks, because only the iterator can
write keep-alive comments while the engine is silent (loading, queue, prefill), and cancelling a wait inside the engine
would cancel the request.

Status: a stream's status stays open until the request has started or ``status_wait_s`` has passed, so that refusals
are real status codes. After that a failure is an error frame followed by the protocol's regular end.

Cancellation: when the client leaves, Django cancels the view or the response's iterator; both lead to the
generation's ``async with`` being left, which cancels the request in the worker. Nothing here swallows it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol, Self
from urllib.parse import quote

from django.http import HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase

from inference.engine import get_engine
from inference.engine.contract import Generation
from inference.errors import InternalError, LmxError, ModelUnavailable, from_code
from inference.ipc import Delta, Failed, Finished, GenerateRequest, Prefill, RequestEvent, Usage
from inference.protocols.answer import Answer, Tally
from inference.protocols.backlog import Backlog
from inference.records import RequestRecord

log = logging.getLogger(__name__)

STATUS_WAIT_S = 15.0
KEEP_ALIVE_S = 10.0
MAX_IGNORED_NAMES = 20
_KEEP_ALIVE = b": keep-alive\n\n"


class Wording(Protocol):
    """Words one request's events in one wire protocol. Bytes are complete server-sent frames, or empty.

    The methods are called in the order of the events, each for all that happened since the call before it, so that a
    wording may keep a state. Deltas that a slow reader has not taken come joined.
    """

    def begin(self, record: RequestRecord) -> bytes:
        """The first frames; ``record.model`` is the resolved model. Called before anything but ``error``."""
        ...

    def delta(self, event: Delta) -> bytes: ...

    def finish(self, event: Finished) -> bytes: ...

    def end(self, usage: Usage) -> bytes:
        """The last frames of an answer whose choices have all finished."""
        ...

    def error(self, error: LmxError) -> bytes:
        """The last frames of an answer that failed, possibly before ``begin``."""
        ...

    def body(self, answer: Answer, record: RequestRecord) -> bytes:
        """The whole answer as one JSON document."""
        ...


@dataclass(slots=True)
class Call:
    """One parsed request, ready to be served. ``ignored`` names parameters that were accepted without effect.

    ``keep_alive`` is the frame sent into silence; ``ttl_s`` as in ``Engine.generate``. ``source`` makes the generation
    where it is not simply the engine's for ``request``, for example one that is several of them. ``answer`` makes what
    gathers an answer that is not streamed, given the number of choices. ``fit`` is asked, before anything else, for
    the request to send in place of ``request``: for protocols that shorten a conversation to the model's context.
    ``named`` gives the client's name of a parameter that the engine refuses by its own.
    """

    model: str
    request: GenerateRequest
    record: RequestRecord
    wording: Wording
    stream: bool = False
    ignored: list[str] = field(default_factory=list)
    status_wait_s: float = STATUS_WAIT_S
    keep_alive_s: float = KEEP_ALIVE_S
    keep_alive: bytes = _KEEP_ALIVE
    ttl_s: float | None = None
    source: Callable[[], Generation] | None = None
    answer: Callable[[int], Answer] = Answer
    fit: Callable[[], Awaitable[GenerateRequest]] | None = None
    named: Callable[[str], str] | None = None

    def headers(self) -> dict[str, str]:
        return ignored_header(self.ignored)


def ignored_header(ignored: list[str]) -> dict[str, str]:
    """The header that names parameters without effect, safe whatever names a client invents; none for none."""
    if not ignored:
        return {}
    names = (quote(name[:64], safe="[]._-") for name in ignored[:MAX_IGNORED_NAMES])
    return {"x-lmx-ignored": ", ".join(names)}


async def respond(call: Call) -> HttpResponseBase:
    """Serve ``call``. Raises ``LmxError`` for every refusal; the caller words it for its path."""
    if not call.stream:
        body = await complete(call)
        return HttpResponse(body, content_type="application/json", headers=call.headers())
    chunks = stream(call)
    first = await anext(chunks)
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no", **call.headers()}
    return StreamingHttpResponse(_Primed(first, chunks), content_type="text/event-stream", headers=headers)


async def complete(call: Call) -> bytes:
    """The whole answer as one document."""
    generation = await _generation(call)
    choices = generation.request.n
    answer, tally = call.answer(choices), Tally(choices, generation.prompt_tokens)
    async with generation:
        async for batch in generation:
            for event in batch:
                if isinstance(event, Delta):
                    answer.add(event)
                elif isinstance(event, Finished):
                    tally.finish(event)
                    answer.finish(event)
                elif isinstance(event, Failed):
                    raise from_code(event.code, event.message, event.param)
    answer.usage = tally.close()
    return call.wording.body(answer, call.record)


async def _generation(call: Call) -> Generation:
    if call.source is not None:
        return call.source()
    if call.fit is not None:
        call.request = await call.fit()
    try:
        return await get_engine().generate(call.model, call.request, call.record, ttl_s=call.ttl_s)
    except LmxError as error:
        if call.named is not None:
            rename(error, call.named)
        raise


def rename(error: LmxError, named: Callable[[str], str]) -> None:
    """Tell the parameter at fault by another name."""
    if error.param is not None and (name := named(error.param)) != error.param:
        error.message = error.message.replace(error.param, name)
        error.param = name


async def stream(call: Call) -> AsyncGenerator[bytes, None]:
    """The answer as chunks of whole frames. Raises ``LmxError`` before the first chunk, never after it."""
    pump = _Pump(call)
    try:
        yield await pump.first(call.status_wait_s)
        async for chunk in pump:
            yield chunk
    finally:
        await pump.close()


class _Primed:
    """A generator together with its first item, which was taken to learn the status.

    If the response is dropped unused (the client left in between), so is the started generator, and the event loop
    closes it, which cancels the request. A generator wrapped in another would not be closed.
    """

    def __init__(self, first: bytes, rest: AsyncGenerator[bytes, None]) -> None:
        self._first: bytes | None = first
        self._rest = rest

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        return await anext(self._rest)

    async def aclose(self) -> None:
        await self._rest.aclose()


class _Pump:
    """Runs one generation and holds the frames its reader has not taken yet."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._loop = asyncio.get_running_loop()
        self._backlog = Backlog(call.wording.delta)
        self._done = False
        self._closing = False
        self._committed = False
        self._refusal: LmxError | None = None
        self._comment = call.keep_alive
        self._waiter: asyncio.Future[None] | None = None
        self._deadline = self._loop.time() + call.status_wait_s
        self._last_read = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self._task = asyncio.create_task(self._run(), name=f"answer {call.record.id}")

    # ---------------------------------------------------------------------------------------------- the reader's side

    async def first(self, wait_s: float) -> bytes:
        """The first chunk; a comment when the request has not started after ``wait_s``. Raises its refusal."""
        self._timer = self._loop.call_later(wait_s, self._tick)
        if not self._backlog and not self._done:
            await self._wait()
        if self._refusal is not None:
            raise self._refusal
        self._committed = True
        self._timer.cancel()
        self._timer = self._loop.call_later(self._call.keep_alive_s, self._tick)
        return self._taken() or self._comment

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._backlog:
            # Frames are ready: without this turn a fast generation would keep the loop to itself.
            await asyncio.sleep(0)
        elif not self._done:
            await self._wait()
        if chunk := self._taken():
            return chunk
        if self._done:
            raise StopAsyncIteration
        return self._comment

    async def close(self) -> None:
        """End the generation if it still runs, and wait until it has ended."""
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        if not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task})

    def _taken(self) -> bytes:
        self._last_read = self._loop.time()
        return self._backlog.take()

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _tick(self) -> None:
        """One timer per stream, not one per wait: wakes the reader when nothing has flowed for a while."""
        now = self._loop.time()
        silent_until = self._last_read + self._call.keep_alive_s
        if not self._committed or now >= silent_until:
            self._wake()
            silent_until = now + self._call.keep_alive_s
        self._timer = self._loop.call_at(silent_until, self._tick)

    # ------------------------------------------------------------------------------------------ the generation's side

    async def _run(self) -> None:
        try:
            await self._generate()
        except LmxError as error:
            self._fail(error)
        except asyncio.CancelledError:
            if not self._closing:  # not by the reader: the server is stopping
                self._fail(ModelUnavailable("the server is stopping", retry_after=5))
            raise
        except Exception:
            log.exception("request %s failed", self._call.record.id)
            self._fail(InternalError("the server failed to answer; its log says why"))
        finally:
            self._done = True
            self._wake()

    async def _generate(self) -> None:
        call = self._call
        generation = await _generation(call)
        async with generation:
            await generation.wait_started(max(0.0, self._deadline - self._loop.time()))
            self._backlog.frame(call.wording.begin(call.record))
            self._wake()
            await self._follow(generation)

    async def _follow(self, generation: Generation) -> None:
        wording, tally = self._call.wording, Tally(generation.request.n, generation.prompt_tokens)
        async for batch in generation:
            for event in batch:
                self._note(event, wording, tally)
            if self._waiter is None or self._waiter.done():
                await asyncio.sleep(0)  # the reader has not caught up: let it
            elif self._backlog:  # not for a token whose text is held back
                self._wake()
        usage = tally.close()
        self._backlog.settle()
        self._backlog.frame(wording.end(usage))

    def _note(self, event: RequestEvent, wording: Wording, tally: Tally) -> None:
        if isinstance(event, Delta):
            self._comment = self._call.keep_alive
            self._backlog.delta(event)
        elif isinstance(event, Finished):
            tally.finish(event)
            self._backlog.settle()
            self._backlog.frame(wording.finish(event))
        elif isinstance(event, Prefill):
            own = self._call.keep_alive if self._call.keep_alive is not _KEEP_ALIVE else b""  # readers of events see it
            self._comment = b": prefill %d of %d tokens\n\n" % (event.done, event.total) + own
        elif isinstance(event, Failed):
            raise from_code(event.code, event.message, event.param)

    def _fail(self, error: LmxError) -> None:
        if self._committed:
            self._backlog.settle()
            self._backlog.frame(self._call.wording.error(error))
        else:
            self._refusal = error
