"""The outbox under a reader that does not read."""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Iterator

import pytest

from inference import ipc
from inference.worker.outbox import Outbox

LIMIT = 256 * 1024
PATIENCE_S = 20.0


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.settimeout(PATIENCE_S)
    with ours, theirs:
        yield ours, theirs


def read_until(sock: socket.socket, wanted: type[ipc.Event]) -> tuple[list[ipc.Event], int]:
    """Events up to the first ``wanted``, and the number of frames they came in."""
    splitter = ipc.FrameSplitter()
    events: list[ipc.Event] = []
    frames = 0
    while True:
        for body in splitter.feed(sock.recv(1 << 20)):
            frames += 1
            events += ipc.decode_events(body)
        if any(isinstance(event, wanted) for event in events):
            return events, frames


def test_it_works(pair: tuple[socket.socket, socket.socket]) -> None:
    """Order is kept, what is queued while the writer is away shares a frame, close sends the rest."""
    outbox = Outbox(pair[0], on_overload=lambda request: None, on_broken=lambda: None)
    for number in range(100):
        outbox.emit([ipc.Delta("r", content=str(number))])
    outbox.emit([ipc.Drained()])
    outbox.start()
    outbox.close(PATIENCE_S)
    events, frames = read_until(pair[1], ipc.Drained)
    assert [event.content for event in events if isinstance(event, ipc.Delta)] == [str(n) for n in range(100)]
    assert frames == 1


def test_the_largest_is_shed_and_the_others_lose_nothing(pair: tuple[socket.socket, socket.socket]) -> None:
    shed: queue.SimpleQueue[str] = queue.SimpleQueue()
    outbox = Outbox(pair[0], on_overload=shed.put, on_broken=lambda: None, limit_bytes=LIMIT)
    outbox.start()
    for number in range(3000):
        outbox.emit([ipc.Delta("big", content="x" * 1000), ipc.Delta("small", content=str(number))])
    assert shed.get(timeout=PATIENCE_S) == "big"
    outbox.emit([ipc.Delta("big", content="late"), ipc.Finished("big", "cancelled"), ipc.Drained()])
    events, _ = read_until(pair[1], ipc.Drained)
    small = [event.content for event in events if isinstance(event, ipc.Delta) and event.request == "small"]
    assert small == [str(number) for number in range(3000)]
    of_big = [event for event in events if isinstance(event, ipc.RequestEvent) and event.request == "big"]
    assert isinstance(of_big[-1], ipc.Failed)
    assert of_big[-1].code == "overloaded"
    assert shed.empty()


def test_vectors_are_large_and_never_shed(pair: tuple[socket.socket, socket.socket]) -> None:
    shed: queue.SimpleQueue[str] = queue.SimpleQueue()
    outbox = Outbox(pair[0], on_overload=shed.put, on_broken=lambda: None, limit_bytes=LIMIT)
    outbox.start()
    vectors = [[0.1] * 1000] * 50
    for name in "abcd":
        outbox.emit([ipc.Embedded(name, vectors, 1)])
    outbox.emit([ipc.Drained()])
    events, _ = read_until(pair[1], ipc.Drained)
    assert [event.request for event in events if isinstance(event, ipc.Embedded)] == list("abcd")
    assert shed.empty()
    outbox.close(PATIENCE_S)


def test_an_event_too_large_for_a_frame_fails_its_request_alone(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inference.ipc.frames.MAX_FRAME_BYTES", 10_000)
    outbox = Outbox(pair[0], on_overload=lambda request: None, on_broken=lambda: None)
    outbox.emit([ipc.Delta("huge", content="x" * 20_000), ipc.Delta("other", content="fine"), ipc.Drained()])
    outbox.start()
    events, _ = read_until(pair[1], ipc.Drained)
    assert isinstance(events[0], ipc.Failed)
    assert isinstance(events[1], ipc.Delta)


def test_each_thread_keeps_its_order_whether_a_frame_is_sent_at_once_or_queued(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    """A small socket buffer makes frames go at once, in part, and by the writer, in turns."""
    pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    outbox = Outbox(pair[0], on_overload=lambda request: None, on_broken=lambda: None)
    outbox.start()

    def say(name: str) -> None:
        for number in range(500):
            outbox.emit([ipc.Delta(name, content=f"{number}:" + "x" * (number % 700))])

    threads = [threading.Thread(target=say, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()

    def end() -> None:
        for thread in threads:
            thread.join()
        outbox.emit([ipc.Drained()])

    closer = threading.Thread(target=end)
    closer.start()
    events, _ = read_until(pair[1], ipc.Drained)
    closer.join()
    outbox.close(PATIENCE_S)
    for name in "abc":
        numbers = [int(e.content.split(":")[0]) for e in events if isinstance(e, ipc.Delta) and e.request == name]
        assert numbers == list(range(500))


def test_what_is_said_while_nothing_waits_needs_no_other_thread(pair: tuple[socket.socket, socket.socket]) -> None:
    outbox = Outbox(pair[0], on_overload=lambda request: None, on_broken=lambda: None)
    outbox.start()
    outbox.emit([ipc.Delta("r", content="now")])
    pair[1].setblocking(False)
    assert ipc.decode_events(next(iter(ipc.FrameSplitter().feed(pair[1].recv(1 << 16))))) == [
        ipc.Delta("r", content="now")
    ]
    outbox.close(PATIENCE_S)
