"""``/admin/events``: the hub's event log as server-sent events that a client can resume."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence

import orjson
from django.http import HttpRequest, StreamingHttpResponse

from inference.api.deps import EventFrame, EventSource, EventSubscription, event_source
from inference.errors import InvalidRequest

log = logging.getLogger(__name__)

KEEP_ALIVE_S = 15.0
_TOPIC = "events"


async def events_response(request: HttpRequest, since: int | None) -> StreamingHttpResponse:
    """The stream from the entry after ``since`` on; ``Last-Event-ID`` (what a browser sends again) wins over it."""
    last = request.headers.get("Last-Event-ID")
    if last is not None:
        if not last.isdecimal() or len(last) > 18:
            raise InvalidRequest("Last-Event-ID is not a number that this server gave", param="Last-Event-ID")
        since = int(last)
    return StreamingHttpResponse(
        _frames(event_source(), since),
        content_type="text/event-stream",
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


async def _frames(source: EventSource, since: int | None) -> AsyncGenerator[bytes, None]:
    # Subscribed here, not before: a response that is never read must not leave a subscription behind.
    subscription = source.subscribe([_TOPIC], since)
    waiting: asyncio.Future[Sequence[EventFrame]] | None = None
    try:
        yield b": listening\n\n"
        while True:
            waiting = waiting or asyncio.ensure_future(_next(subscription))
            await asyncio.wait({waiting}, timeout=KEEP_ALIVE_S)
            if not waiting.done():
                yield b": keep-alive\n\n"
                continue
            batch, waiting = waiting.result(), None
            if not batch:
                return
            yield b"".join(_frame(frame) for frame in batch)
    except Exception:
        # An exception that leaves a stream keeps its connection open for ever.
        log.exception("the event stream failed")
    finally:
        if waiting is not None:
            waiting.cancel()
        subscription.close()


async def _next(subscription: EventSubscription) -> Sequence[EventFrame]:
    """The next batch, empty when there will be none: a task cannot raise ``StopAsyncIteration``."""
    return await anext(aiter(subscription), [])


def _frame(frame: EventFrame) -> bytes:
    kind = frame.kind if frame.kind == "gap" else str(frame.payload.get("kind", "event"))
    data = orjson.dumps(frame.payload, default=str, option=orjson.OPT_NON_STR_KEYS)
    number = b"id: %d\n" % frame.seq if frame.seq is not None else b""
    return number + b"event: " + kind.encode().replace(b"\n", b" ") + b"\ndata: " + data + b"\n\n"
