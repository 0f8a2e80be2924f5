"""The end of a server: running streams get a clean end, nothing is left behind, exit status 0."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.live.process import MODEL, LiveServer, script, until

pytestmark = pytest.mark.live
STREAMS = 20


class Stream(threading.Thread):
    """One streaming client; ``lines`` is what came, ``clean`` whether the answer ended as HTTP says."""

    def __init__(self, server: LiveServer, gate: Path) -> None:
        super().__init__(daemon=True)
        self.lines: list[str] = []
        self.clean = False
        self._url = f"{server.url}/v1/chat/completions"
        self._body = {
            "model": MODEL,
            "stream": True,
            "messages": [{"role": "user", "content": script("go", hold_after=2, gate=str(gate))}],
        }
        self.begun = threading.Event()
        self.start()

    def run(self) -> None:
        with contextlib.suppress(httpx.TransportError), self._open() as response:
            for line in response.iter_lines():
                if line:
                    self.lines.append(line)
                if '"content"' in line:
                    self.begun.set()
            self.clean = True

    def _open(self) -> contextlib.AbstractContextManager[httpx.Response]:
        return httpx.stream("POST", self._url, json=self._body, timeout=60)


def open_streams(server: LiveServer, tmp_path: Path) -> list[Stream]:
    streams = [Stream(server, tmp_path / f"gate-{number}") for number in range(STREAMS)]
    for stream in streams:
        assert stream.begun.wait(60), stream.lines
    return streams


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_streams_that_do_not_finish_get_a_clean_end(
    start_server: Callable[..., LiveServer], tmp_path: Path, number: int
) -> None:
    server = start_server(LMX_ENGINE__DRAIN_SEC="0.5")
    streams = open_streams(server, tmp_path)
    assert server.stop(number) == 0, server.stderr
    for stream in streams:
        stream.join(10)
        assert stream.clean
        assert stream.lines[-1] == "data: [DONE]" or '"error"' in stream.lines[-1], stream.lines
    assert "Traceback" not in server.stderr
    assert f"Stopping: {STREAMS} answers may run on for up to 0.375 s" in server.stdout
    assert not (server.home / "run" / "server.json").exists()


def test_streams_may_finish_while_the_server_drains(start_server: Callable[..., LiveServer], tmp_path: Path) -> None:
    server = start_server(LMX_ENGINE__DRAIN_SEC="60")
    streams = open_streams(server, tmp_path)
    server.send(signal.SIGTERM)
    body = {"model": MODEL, "messages": [{"role": "user", "content": "late"}]}
    until(
        lambda: httpx.post(f"{server.url}/v1/chat/completions", json=body).status_code == 503,
        "a refusal while draining",
    )
    for number in range(STREAMS):
        (tmp_path / f"gate-{number}").touch()
    assert server.wait() == 0, server.stderr
    for stream in streams:
        stream.join(10)
        assert stream.lines[-1] == "data: [DONE]"
        assert '"finish_reason":"stop"' in "".join(stream.lines).replace(" ", "")


def test_a_second_signal_ends_it_at_once(start_server: Callable[..., LiveServer], tmp_path: Path) -> None:
    server = start_server(LMX_ENGINE__DRAIN_SEC="600")
    stream = Stream(server, tmp_path / "gate")
    assert stream.begun.wait(60)
    server.send(signal.SIGINT)
    until(lambda: "stopping" in server.log, "the stop to begin")
    assert server.stop(signal.SIGINT) == 128 + signal.SIGINT


def test_a_killed_server_leaves_no_children_and_no_lock(
    start_server: Callable[..., LiveServer], tmp_path: Path
) -> None:
    server = start_server()
    stream = Stream(server, tmp_path / "gate")
    assert stream.begun.wait(60)
    assert server.stop(signal.SIGKILL) == -signal.SIGKILL
    assert (server.home / "run" / "server.json").exists()
    again = start_server(server.home)
    assert again.pid != server.pid
    assert again.stop() == 0


def test_an_idle_server_stops_with_an_open_connection(lmx_server: LiveServer) -> None:
    with httpx.Client(base_url=lmx_server.url) as client:
        assert client.get("/v1/models").status_code == 200
        assert lmx_server.stop() == 0
    assert not [pid for pid in (lmx_server.pid,) if os.path.exists(f"/proc/{pid}")]
