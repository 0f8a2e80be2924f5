"""Responses that run on without their client: polled, followed, left and followed again, cancelled.

A run is the reader of an ordinary stream (``serving.stream``) that nobody else reads; what it reads goes into an event
log where the stream was asked for. It is stored at its begin, so that a restart can tell what became of it, and at its
end.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable

import orjson

from inference.errors import InternalError, InvalidRequest, LmxError, ModelUnavailable, TooManyRequests
from inference.protocols.responses.calls import Asked
from inference.protocols.responses.event_log import EventLog, joined, unpacked
from inference.protocols.responses.store import ResponseStore, Stored
from inference.protocols.responses.wording import last_frame
from inference.protocols.serving import stream

log = logging.getLogger(__name__)

MOST_RUNS = 512
MOST_BYTES = 256 * 1024 * 1024
"""What the conversations of all runs together may take: there is no connection whose end would free them."""


class Run:
    """One background response. ``on_end`` is called once it is stored in its last state."""

    def __init__(self, asked: Asked, store: ResponseStore, on_end: Callable[[Run], None]) -> None:
        self.asked = asked
        self._log = EventLog() if asked.parsed.params.stream else None
        self._store = store
        self._on_end = on_end
        self.size = len(orjson.dumps(asked.call.request.messages))
        self._cancelled = False
        self._note(asked.wording.queued())
        store.put(asked.stored())
        self._task = asyncio.create_task(self._run(), name=f"background {asked.call.record.id}")
        # Not in the task itself: one that is cancelled before its first step never runs.
        self._task.add_done_callback(self._ended)

    @property
    def id(self) -> str:
        return self.asked.parsed.id

    @property
    def task(self) -> asyncio.Task[None]:
        """Done when the response is in its last state and stored."""
        return self._task

    async def cancel(self) -> None:
        """End it, and return when it has ended."""
        self._cancelled = True
        self._task.cancel()
        await asyncio.wait({self._task})

    def follow(self, after: int) -> AsyncGenerator[bytes, None]:
        """Its events from the one after number ``after`` on, to the last. ``InvalidRequest`` where none are kept."""
        if self._log is None:
            raise no_events(self.id)
        return self._log.follow(after)

    async def _run(self) -> None:
        wording = self.asked.wording
        try:
            async for chunk in stream(self.asked.call):
                self._note(chunk)
        except LmxError as error:
            self._note(wording.error(error))
        except Exception:
            log.exception("background response %s failed", self.id)
            self._note(wording.error(InternalError("the server failed to answer; its log says why")))

    def _note(self, frames: bytes) -> None:
        if self._log is not None:
            self._log.add(frames)

    def _ended(self, _: asyncio.Task[None]) -> None:
        wording = self.asked.wording
        if not wording.over:
            stopping = ModelUnavailable("the server stopped before this response was finished")
            self._note(wording.cancel() if self._cancelled else wording.error(stopping))
        events = None
        if self._log is not None:
            self._log.close()
            events = self._log.packed()
        self._store.put(self.asked.stored(events))
        self._on_end(self)


class Responses:
    """The responses of this server: those that are stored, and those that run in the background."""

    def __init__(
        self, store: ResponseStore | None = None, *, most_runs: int = MOST_RUNS, most_bytes: int = MOST_BYTES
    ) -> None:
        self.store = store or ResponseStore()
        self._most = most_runs
        self._most_bytes = most_bytes
        self._runs: dict[str, Run] = {}

    def begin(self, asked: Asked) -> Run:
        """Run it in the background. ``TooManyRequests`` where very many do."""
        if len(self._runs) >= self._most or sum(run.size for run in self._runs.values()) >= self._most_bytes:
            message = f"{len(self._runs)} background responses run already, which is as many as this server takes"
            raise TooManyRequests(message, retry_after=10)
        run = Run(asked, self.store, self._end)
        self._runs[run.id] = run
        return run

    def running(self, response_id: str, owner: str) -> Run | None:
        """None where it does not run, or is somebody else's."""
        run = self._runs.get(response_id)
        return run if run is not None and run.asked.parsed.owner == owner else None

    def _end(self, run: Run) -> None:
        self._runs.pop(run.id, None)


def replayed(entry: Stored, after: int) -> AsyncGenerator[bytes, None]:
    """Events of a stored response from the one after number ``after`` on; ``InvalidRequest`` where none were kept."""
    if entry.events is None and entry.status != "failed":
        raise no_events(entry.id)
    return _replay(entry, after)


async def _replay(entry: Stored, after: int) -> AsyncGenerator[bytes, None]:
    """At least the last event, which says what became of the response.

    Where the server was stopped before all events were kept, the last one is made from the response itself.
    """
    count, last = 0, b""
    for frames in unpacked(entry.events or b""):
        wanted = frames[max(0, after + 1 - count) :]
        count, last = count + len(frames), frames[-1] if frames else last
        if wanted:
            yield joined(wanted)
            await asyncio.sleep(0)  # a long answer is many blocks: others get their turn
    if not last.startswith(_LAST_EVENTS):
        yield last_frame(entry.whole(), max(count, after + 1))
    elif after + 1 >= count:
        yield joined([last])


_LAST_EVENTS = tuple(f"event: response.{name}".encode() for name in ("completed", "incomplete", "failed"))


def no_events(response_id: str) -> InvalidRequest:
    """A response that cannot be streamed again."""
    message = f"{response_id} cannot be streamed: only what was created with background and stream both true can be"
    return InvalidRequest(message, param="stream", code="invalid_value")
