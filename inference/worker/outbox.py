"""What a worker has to say, sent so that the stepping thread never waits for the web process.

While nothing is unsent, ``emit`` sends at once, without blocking: for one stream the hand-over to another thread costs
more than the sending. Else it only appends to a queue, whose writer thread joins everything queued into one frame. When
the reader at the other end falls behind by more than ``limit_bytes``, the request with the most unsent bytes is ended
with ``overloaded`` and what it had queued is dropped; all others keep every event.
"""

from __future__ import annotations

import queue
import select
import socket
import threading
from collections import deque
from collections.abc import Callable

import msgspec

from inference import ipc

LIMIT_BYTES = 16 * 1024 * 1024
_BLOCKED_POLL_S = 0.05
_FRAME_EVENTS = 512
_DIRECT_EVENTS = 8
_REMEMBERED_VICTIMS = 1024


class Outbox:
    """Thread-safe, ordered, never blocks the caller.

    ``on_overload`` is called with the id of the request it ended, ``on_broken`` when nobody can read any more.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        on_overload: Callable[[str], None],
        on_broken: Callable[[], None],
        limit_bytes: int = LIMIT_BYTES,
    ) -> None:
        self._socket = sock
        self._on_overload = on_overload
        self._on_broken = on_broken
        self._limit = limit_bytes
        self._queue: queue.SimpleQueue[list[ipc.Event] | None] = queue.SimpleQueue()
        self._backlog: deque[tuple[list[ipc.Event], bytes]] = deque()
        self._backlog_bytes = 0
        self._muted: deque[str] = deque(maxlen=_REMEMBERED_VICTIMS)
        self._closing = False
        self._lock = threading.Lock()
        self._unsent = False
        self._rest = b""
        self._encoder = msgspec.msgpack.Encoder()
        self._thread = threading.Thread(target=self._write_for_ever, name="outbox", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def emit(self, events: list[ipc.Event]) -> None:
        """Send ``events`` as one frame, or queue them. The list belongs to the outbox from here on."""
        with self._lock:
            if not self._unsent and len(events) <= _DIRECT_EVENTS and self._sent_at_once(events):
                return
            self._unsent = True
            self._queue.put(events)

    def _sent_at_once(self, events: list[ipc.Event]) -> bool:
        """Try to send without waiting; a frame that went in part is left to the writer, whom ``emit`` wakes."""
        if self._muted or not self._thread.is_alive():
            return False
        _, frame = self._frame(events)
        try:
            sent = self._socket.send(frame, socket.MSG_DONTWAIT)
        except (OSError, ValueError):  # full, or broken: the writer finds out which
            return False
        if sent < len(frame):
            self._unsent, self._rest = True, frame[sent:]
            self._queue.put([])
        return True

    def close(self, timeout_s: float) -> None:
        """Send what is queued, then end the writer; gives up after ``timeout_s``."""
        self._queue.put(None)
        self._thread.join(timeout_s)

    def _write_for_ever(self) -> None:
        try:
            while not self._closing or self._backlog:
                self._send(self._next_frame())
                self._note_sent()
        except (OSError, ValueError):
            self._on_broken()

    def _next_frame(self) -> bytes:
        """The oldest bytes not sent; waits for some."""
        if self._backlog:
            _, frame = self._backlog.popleft()
            self._backlog_bytes -= len(frame)
            return frame
        events = self._gather(block=True)
        rest, self._rest = self._rest, b""
        return rest + self._frame(events)[1]

    def _note_sent(self) -> None:
        """When everything is out, the next ``emit`` may send by itself again."""
        with self._lock:
            if not self._backlog and self._queue.empty():
                self._unsent = False

    def _gather(self, *, block: bool) -> list[ipc.Event]:
        """What is queued right now, up to a frame's worth, as one list; with ``block`` waits for the first piece."""
        gathered: list[ipc.Event] = []
        try:
            piece = self._queue.get() if block else self._queue.get_nowait()
            while True:
                if piece is None:
                    self._closing = True
                else:
                    gathered.extend(piece)
                if self._closing or len(gathered) >= _FRAME_EVENTS:
                    break
                piece = self._queue.get_nowait()
        except queue.Empty:
            pass
        if self._muted:
            gathered = [event for event in gathered if getattr(event, "request", None) not in self._muted]
        return gathered

    def _frame(self, events: list[ipc.Event]) -> tuple[list[ipc.Event], bytes]:
        if not events:
            return events, b""
        try:
            return events, ipc.encode_frame(events)
        except ipc.FrameError:
            return events, b"".join(self._single_frame(event) for event in events)

    @staticmethod
    def _single_frame(event: ipc.Event) -> bytes:
        try:
            return ipc.encode_frame([event])
        except ipc.FrameError as error:
            if isinstance(event, ipc.RequestEvent):
                return ipc.encode_frame([ipc.Failed(event.request, "internal_error", str(error))])
            return b""

    def _send(self, frame: bytes) -> None:
        """Send one frame; while the socket is full, keep reading the queue and watch its size."""
        view = memoryview(frame)
        while view:
            try:
                view = view[self._socket.send(view, socket.MSG_DONTWAIT) :]
            except BlockingIOError:
                self._absorb()
                select.select([], [self._socket], [], _BLOCKED_POLL_S)

    def _absorb(self) -> None:
        """Move newly queued events to the backlog, and shed a request while it is over the limit."""
        while not self._queue.empty():
            events, frame = self._frame(self._gather(block=False))
            self._backlog.append((events, frame))
            self._backlog_bytes += len(frame)
        while self._backlog_bytes > self._limit and self._shed():
            pass

    def _shed(self) -> bool:
        """End the request with the most unsent bytes; False when no request has any.

        Never one that is answered at once: nobody reads its vectors slowly, and there is nothing left to spare.
        """
        unsent: dict[str, int] = {}
        for events, _ in self._backlog:
            for event in events:
                if isinstance(event, ipc.RequestEvent) and not isinstance(event, ipc.Embedded):
                    unsent[event.request] = unsent.get(event.request, 0) + len(self._encoder.encode(event))
        if not unsent:
            return False
        victim = max(unsent, key=unsent.__getitem__)
        self._muted.append(victim)
        kept = [[e for e in events if getattr(e, "request", None) != victim] for events, _ in self._backlog]
        kept.append([ipc.Failed(victim, "overloaded", "the reader of this answer is too slow; it was ended")])
        self._backlog = deque(self._frame(events) for events in kept if events)
        self._backlog_bytes = sum(len(frame) for _, frame in self._backlog)
        self._on_overload(victim)
        return True
