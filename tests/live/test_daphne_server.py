"""``LmxServer`` alone, with a small ASGI application: what daphne lacks and we rely on."""

from __future__ import annotations

import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import httpx
import pytest

from tests.live.process import PATIENCE_S, ROOT

pytestmark = pytest.mark.live
MIB = 1024 * 1024


class Toy:
    """The program of ``toy_server.py``; ``expect`` waits for a line of its output."""

    def __init__(self, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.live.toy_server", *options],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self._queue: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._queue.put(line.strip())

    def expect(self, start: str) -> str:
        while True:
            line = self._queue.get(timeout=PATIENCE_S)
            self.lines.append(line)
            if line.startswith(start):
                return line

    @property
    def port(self) -> int:
        known = next((line for line in self.lines if line.startswith("port ")), None) or self.expect("port ")
        return int(known.split()[1])

    def connect(self, path: str) -> socket.socket:
        """A raw connection that has sent a GET and reads nothing by itself."""
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.connect(("127.0.0.1", self.port))
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return connection

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=PATIENCE_S)

    def end(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE_S)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


@pytest.fixture
def toy() -> Iterator[Callable[..., Toy]]:
    started: list[Toy] = []

    def start(*options: str) -> Toy:
        started.append(Toy(*options))
        return started[-1]

    yield start
    for one in started:
        one.close()


def test_it_answers(toy: Callable[..., Toy]) -> None:
    server = toy()
    assert httpx.post(f"http://127.0.0.1:{server.port}/", content=b"abc").text == "3"
    assert server.end() == 0


def test_a_form_is_left_to_the_application(toy: Callable[..., Toy]) -> None:
    """Twisted would take it apart first: 10 s for 32 MB of fields, and its own answer to what is no form."""
    server = toy()
    for kind in ("multipart/form-data", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded"):
        answer = httpx.post(f"http://127.0.0.1:{server.port}/", content=b"abc", headers={"Content-Type": kind})
        assert (answer.status_code, answer.text) == (200, "3")
    assert server.end() == 0


def test_a_client_that_does_not_read_stops_the_sender(toy: Callable[..., Toy]) -> None:
    server = toy()
    with server.connect("/flood") as connection:
        server.expect("sent ")
        for _ in range(50):  # many turns of the loop: without back-pressure all would be sent by now
            assert server.get("/").status_code == 200
        server.expect("sent ")
        assert not [line for line in server.lines if line.startswith("flood over")]
        held = max(int(line.split()[1]) for line in server.lines if line.startswith("sent "))
        assert held < 32 * MIB
        received = 0
        while received < 64 * MIB:
            received += len(connection.recv(MIB))
        server.expect("flood over at 67108864")
    assert server.end() == 0


def test_a_stalled_client_that_leaves_lets_the_sender_go(toy: Callable[..., Toy]) -> None:
    server = toy()
    with server.connect("/flood"):
        server.expect("sent ")
    server.expect("flood over")
    assert server.end() == 0


def test_an_exception_in_the_middle_cuts_the_connection(toy: Callable[..., Toy]) -> None:
    server = toy()
    with pytest.raises(httpx.TransportError):
        server.get("/broken")
    assert server.end() == 0


def test_an_exception_before_the_first_byte_is_a_500_in_the_shape_of_the_path(toy: Callable[..., Toy]) -> None:
    server = toy()
    answer = server.get("/early")
    assert answer.status_code == 500
    assert answer.headers["content-type"].startswith("text/plain")


def test_headers_do_not_wait_for_a_body(toy: Callable[..., Toy]) -> None:
    server = toy()
    with server.connect("/silent") as connection:
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert server.end() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_lets_the_owner_end_the_streams(toy: Callable[..., Toy], number: int) -> None:
    server = toy()
    connections = [server.connect("/endless") for _ in range(5)]
    server.expect("streams 5")
    assert server.end(number) == 0
    server.expect("stopped")
    assert "stopping 5" in server.lines
    for connection in connections:
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
        connection.close()
        assert b"begin" in answer
        assert answer.endswith(b"3\r\nend\r\n0\r\n\r\n")


def test_a_second_signal_ends_the_process(toy: Callable[..., Toy]) -> None:
    server = toy("--slow-stop")
    assert server.port
    server.process.send_signal(signal.SIGINT)
    server.expect("stopping 0")
    assert server.end(signal.SIGINT) == 128 + signal.SIGINT


def test_a_failed_start_is_reported(toy: Callable[..., Toy]) -> None:
    assert toy("--fail").process.wait(PATIENCE_S) == 3
