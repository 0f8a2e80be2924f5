"""The hub: live data from those who know it to those who watch.

Two kinds of topic. A *state* topic holds cells (one per key, usually just one); the latest value wins and watchers
see at most two values a second. A *log* topic holds entries in order, each with a sequence number; the last
``LOG_ENTRIES`` stay in a ring and are replayed to whoever says up to where they have read.

Threads: ``publish``, ``append``, ``emit`` and ``latest`` may be called from any thread and never block or raise for
what a watcher does. ``subscribe`` and the iteration belong to one event loop. Taps run on the publisher's thread.

A subscription holds cursors, not a queue: a slow watcher costs nothing and finds the latest state, and a ``gap`` where
the log has gone past it. A value is turned into JSON once, however many watch it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import msgspec

log = logging.getLogger(__name__)

EVENTS = "events"
LOG_ENTRIES = 2_000
STATE_INTERVAL_S = 0.5
MAX_TOPICS = 32
REMOVALS_KEPT = 64

_encode = msgspec.json.Encoder(enc_hook=str).encode

Tap = Callable[[str, Any], None]
"""Called with topic and payload (the entry, for a log topic) of everything that passes."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One thing to tell a watcher.

    ``state``: ``payload`` is the cell's value, None when the cell was removed. ``log``: ``payload`` is the entry and
    ``seq`` its number. ``gap``: entries up to ``seq`` are lost to this watcher. ``data`` is the whole frame as JSON
    (``{"type", "topic", "key"?, "seq"?, "data"}``), made once and shared.
    """

    kind: Literal["state", "log", "gap"]
    topic: str
    payload: Any
    data: bytes
    key: str | None = None
    seq: int | None = None


@dataclass(slots=True)
class _Cell:
    payload: Any
    version: int
    frame: Frame | None = None


@dataclass(slots=True)
class _State:
    cells: dict[str | None, _Cell] = field(default_factory=dict)
    version: int = 0
    released: int = 0
    released_at: float = float("-inf")
    pending: bool = False


@dataclass(slots=True)
class _Log:
    entries: deque[Frame]
    last: int


class Hub:
    """All topics of this process. ``clock`` (monotonic seconds) is replaceable for tests."""

    def __init__(
        self,
        *,
        log_entries: int = LOG_ENTRIES,
        interval_s: float = STATE_INTERVAL_S,
        clock: Callable[[], float] = time.monotonic,
        first_seq: int | None = None,
    ) -> None:
        self._lock = threading.Lock()
        self._states: dict[str, _State] = {}
        self._logs: dict[str, _Log] = {}
        self._log_entries = log_entries
        self._interval = interval_s
        self._clock = clock
        # Milliseconds since the epoch: the numbers of a later run of the server lie above those of an earlier one,
        # so a watcher that comes back after a restart is told of the gap instead of being shown nothing.
        self._first_seq = int(time.time() * 1000) if first_seq is None else first_seq
        self._taps: list[Tap] = []
        self._subscriptions: set[Subscription] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    # -------------------------------------------------------------------------------------------------- publishing

    def publish(self, topic: str, payload: Any, *, key: str | None = None) -> None:
        """Set a cell of a state topic. ``payload`` is given away: do not change it afterwards. None removes it."""
        with self._lock:
            state = self._states.setdefault(topic, _State())
            state.version += 1
            state.cells.pop(key, None)
            state.cells[key] = _Cell(payload, state.version)
            if payload is None:
                _forget_removed(state)
            self._schedule(topic, state)
        self._tap(topic, payload)

    def append(self, topic: str, entry: dict[str, Any]) -> int:
        """Add an entry to a log topic; returns its sequence number, which is also put into the entry as ``seq``."""
        with self._lock:
            channel = self._log(topic)
            seq = channel.last + 1
            entry = {"seq": seq, **entry}
            channel.entries.append(_frame("log", topic, entry, seq=seq))
            channel.last = seq
            self._wake_all()
        self._tap(topic, entry)
        return seq

    def emit(self, kind: str, /, **fields: Any) -> None:
        """A domain event, into the ``events`` log with the wall-clock time ``at`` (seconds)."""
        try:
            self.append(EVENTS, {"at": time.time(), "kind": kind, **fields})
        except Exception:
            log.exception("event %s could not be written as JSON", kind)

    def tap(self, tap: Tap) -> Callable[[], None]:
        """Have ``tap`` called for everything that passes, on the publisher's thread; returns how to stop it."""
        self._taps.append(tap)
        return lambda: self._taps.remove(tap) if tap in self._taps else None

    def latest(self, topic: str, key: str | None = None) -> Any:
        """The cell's latest value, None when there is none."""
        with self._lock:
            state = self._states.get(topic)
            cell = state.cells.get(key) if state else None
            return cell.payload if cell else None

    def cells(self, topic: str) -> list[Any]:
        """The latest values of all keys of a state topic, oldest change first."""
        with self._lock:
            state = self._states.get(topic)
            return [cell.payload for cell in state.cells.values() if cell.payload is not None] if state else []

    def recent(self, topic: str = EVENTS, limit: int = 100) -> list[Any]:
        """The last entries of a log topic, oldest first."""
        with self._lock:
            channel = self._logs.get(topic)
            return [frame.payload for frame in list(channel.entries)[-limit:]] if channel else []

    # ------------------------------------------------------------------------------------------------- subscribing

    def subscribe(self, topics: Iterable[str], since: Mapping[str, int] | int | None = None) -> Subscription:
        """Watch ``topics``. First come the present state and the log after ``since``, then what changes.

        ``since`` maps a log topic to the last number the watcher has (0: none, show all there is); a bare number is for
        every log topic among ``topics``; a log topic without one starts with what is new.

        Raises ``ValueError`` for more than 32 topics.
        """
        names = list(dict.fromkeys(topics))
        if len(names) > MAX_TOPICS:
            raise ValueError(f"at most {MAX_TOPICS} topics")
        self._loop = asyncio.get_running_loop()
        cursors = dict.fromkeys(names, since) if isinstance(since, int) else dict(since or {})
        subscription = Subscription(self, names, cursors)
        with self._lock:
            self._subscriptions.add(subscription)
        return subscription

    # ------------------------------------------------------------------------------------------------------ inside

    def _log(self, topic: str) -> _Log:
        channel = self._logs.get(topic)
        if channel is None:
            channel = self._logs[topic] = _Log(deque(maxlen=self._log_entries), self._first_seq)
        return channel

    def _tap(self, topic: str, payload: Any) -> None:
        for tap in tuple(self._taps):
            try:
                tap(topic, payload)
            except Exception:
                log.exception("a tap of the hub failed on %s", topic)

    def _schedule(self, topic: str, state: _State) -> None:
        """Let the new version out now or when the interval since the last one is over. Holds the lock."""
        if state.pending or self._loop is None or not self._subscriptions:
            return
        wait = state.released_at + self._interval - self._clock()
        if wait <= 0:
            self._release(state)
            return
        state.pending = True
        if not self._call(lambda: self._later(wait, topic)):
            state.pending = False

    def _later(self, wait: float, topic: str) -> None:
        assert self._loop is not None
        self._loop.call_later(wait, self._release_later, topic)

    def _release_later(self, topic: str) -> None:
        with self._lock:
            state = self._states[topic]
            state.pending = False
            self._release(state)

    def _release(self, state: _State) -> None:
        state.released, state.released_at = state.version, self._clock()
        self._wake_all()

    def _wake_all(self) -> None:
        for subscription in self._subscriptions:
            if not subscription.waking:
                # Before the call, not from its result: the loop may have run it before this thread goes on.
                subscription.waking = True
                if not self._call(subscription.wake):
                    subscription.waking = False

    def _call(self, callback: Callable[[], None]) -> bool:
        try:
            assert self._loop is not None
            self._loop.call_soon_threadsafe(callback)
        except RuntimeError:  # the loop is closed: nobody watches any more
            return False
        return True

    def _collect(self, cursors: dict[str, int], versions: dict[str, int], first: bool) -> list[Frame]:
        """What a subscription with these cursors has not seen; moves the cursors."""
        frames: list[Frame] = []
        with self._lock:
            for topic in versions:
                if (state := self._states.get(topic)) is not None:
                    frames += _changed(topic, state, versions, first)
                if (channel := self._logs.get(topic)) is not None:
                    frames += _entries(topic, channel, cursors, self._first_seq)
        return frames

    def _start_of(self, topic: str) -> int:
        channel = self._logs.get(topic)
        return channel.last if channel else self._first_seq

    def _forget(self, subscription: Subscription) -> None:
        with self._lock:
            self._subscriptions.discard(subscription)


class Subscription:
    """An async iterator over batches of frames, never empty. Ends after ``close()``.

    The first batch is the snapshot and comes at once, unless there is nothing at all to show. ``pause()`` holds the
    iteration back (a hidden tab, an unacknowledged frame) and ``resume()`` lets it catch up.
    """

    def __init__(self, hub: Hub, topics: list[str], cursors: dict[str, int]) -> None:
        self._hub = hub
        self._versions = dict.fromkeys(topics, 0)
        self._cursors = {topic: cursors.get(topic, hub._start_of(topic)) for topic in topics}
        self._event = asyncio.Event()
        self._event.set()
        self._running = asyncio.Event()
        self._running.set()
        self._first = True
        self._closed = False
        self.waking = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[Frame]:
        while True:
            await self._running.wait()
            await self._event.wait()
            if self._closed:
                raise StopAsyncIteration
            if not self._running.is_set():
                continue
            self._event.clear()
            frames = self._hub._collect(self._cursors, self._versions, self._first)
            self._first = False
            if frames:
                return frames

    def pause(self) -> None:
        self._running.clear()

    def resume(self) -> None:
        self._running.set()

    def wake(self) -> None:
        """Called by the hub on the loop: there may be something new."""
        self.waking = False
        self._event.set()

    def close(self) -> None:
        """End the iteration. Safe to call twice."""
        self._closed = True
        self._hub._forget(self)
        self._event.set()
        self._running.set()


def _frame(
    kind: Literal["state", "log", "gap"], topic: str, payload: Any, *, key: str | None = None, seq: int | None = None
) -> Frame:
    body: dict[str, Any] = {"type": kind, "topic": topic}
    if key is not None:
        body["key"] = key
    if seq is not None:
        body["seq"] = seq
    body["data"] = payload
    return Frame(kind, topic, payload, _encode(body), key, seq)


def _changed(topic: str, state: _State, versions: dict[str, int], first: bool) -> list[Frame]:
    """Cells newer than the watcher's version, up to the released one (on the first turn: all there are)."""
    until = state.version if first else state.released
    seen, frames = versions[topic], []
    for key, cell in state.cells.items():
        if not seen < cell.version or (first and cell.payload is None):
            continue
        if cell.version <= until:
            if cell.frame is None:
                cell.frame = _frame("state", topic, cell.payload, key=key)
            frames.append(cell.frame)
    versions[topic] = max(seen, until)
    return frames


def _forget_removed(state: _State) -> None:
    """Keep the marks of the last removals only: keys such as job numbers never come back."""
    removed = [key for key, cell in state.cells.items() if cell.payload is None]
    for key in removed[:-REMOVALS_KEPT]:
        del state.cells[key]


def _entries(topic: str, channel: _Log, cursors: dict[str, int], first_seq: int) -> list[Frame]:
    """Entries after the watcher's cursor, with a gap in front where the ring no longer has them all."""
    cursor = cursors[topic]
    cursors[topic] = channel.last
    if cursor == 0:
        return list(channel.entries)
    oldest = channel.entries[0].seq if channel.entries else channel.last + 1
    assert oldest is not None
    if cursor > channel.last or cursor < first_seq or cursor + 1 < oldest:
        return [_frame("gap", topic, None, seq=oldest - 1), *channel.entries]
    missing = channel.last - cursor
    return list(channel.entries)[-missing:] if missing else []


_hub: Hub | None = None


def get_hub() -> Hub:
    """The hub of this process; ``RuntimeError`` before ``set_hub``."""
    if _hub is None:
        raise RuntimeError("the hub has not been started")
    return _hub


def set_hub(hub: Hub | None) -> None:
    """Called by the runtime when it starts and with None when it stops."""
    global _hub
    _hub = hub
