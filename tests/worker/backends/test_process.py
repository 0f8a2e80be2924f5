"""The default backend in a real worker process, spoken to over its socket."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from inference import ipc
from inference.ipc import GenerateRequest, Sampling
from tests.material import broken_models, nano_model

_ROOT = Path(__file__).resolve().parents[3]
HI = [{"role": "user", "content": "a secret: xylophone"}]


class Worker:
    """``python -m inference.worker`` and one end of its socket."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        self.socket = ours
        ours.settimeout(120)
        command = [sys.executable, "-m", "inference.worker", "--fd", str(theirs.fileno())]
        self.process = subprocess.Popen(
            command,
            pass_fds=[theirs.fileno()],
            cwd=_ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "PYTHONDEVMODE": "0"},
        )
        theirs.close()
        self._splitter = ipc.FrameSplitter()
        self._events: list[ipc.Event] = []

    def send(self, *commands: ipc.AnyCommand) -> None:
        self.socket.sendall(ipc.encode_frame(list(commands)))

    def next(self, *kinds: type[ipc.Event]) -> ipc.Event:
        """The next event of one of these kinds; others are dropped."""
        while True:
            while self._events:
                event = self._events.pop(0)
                if isinstance(event, kinds):
                    return event
            data = self.socket.recv(65536)
            if not data:
                raise EOFError("the worker is gone")
            for body in self._splitter.feed(data):
                self._events += ipc.decode_events(body)

    def close(self) -> tuple[int, str]:
        """Wait for its end; exit code and everything the process wrote."""
        output, _ = self.process.communicate(timeout=60)
        self.socket.close()
        return self.process.returncode, output.decode()


@pytest.fixture
def worker() -> Iterator[Worker]:
    made = Worker()
    yield made
    made.socket.close()
    if made.process.poll() is None:
        made.process.kill()
    made.process.communicate()


def test_it_works(worker: Worker) -> None:
    worker.send(ipc.Load(str(nano_model()), "test/nano"))
    loaded = worker.next(ipc.Loaded, ipc.LoadFailed)
    assert isinstance(loaded, ipc.Loaded)
    body = GenerateRequest(messages=HI, max_tokens=12, sampling=Sampling(temperature=0.0))
    worker.send(ipc.Prepare("r", body))
    prepared = worker.next(ipc.Prepared, ipc.Failed)
    assert isinstance(prepared, ipc.Prepared)
    worker.send(ipc.Start("r", 12))
    assert isinstance(worker.next(ipc.Started, ipc.Delta, ipc.Finished), ipc.Started)
    tokens = 0
    while isinstance(event := worker.next(ipc.Delta, ipc.Finished, ipc.Failed), ipc.Delta):
        tokens += len(event.token_ids)
    assert isinstance(event, ipc.Finished)
    assert (tokens, event.usage.completion_tokens, event.usage.prompt_tokens) == (12, 12, prepared.prompt_tokens)
    worker.send(ipc.Drain(5.0))
    worker.next(ipc.Drained)
    code, output = worker.close()
    assert code == 0
    assert "xylophone" not in output


def test_a_broken_model_says_why_and_exits(worker: Worker, tmp_path: Path) -> None:
    worker.send(ipc.Load(str(broken_models(tmp_path)["nan-weights"]), "test/broken"))
    failed = worker.next(ipc.LoadFailed)
    assert isinstance(failed, ipc.LoadFailed)
    assert failed.code == "model_unavailable"
    assert "not numbers" in failed.message
    assert worker.close()[0] == 3


def test_a_refused_request_leaves_the_worker_working(worker: Worker) -> None:
    worker.send(ipc.Load(str(nano_model()), "test/nano"))
    worker.next(ipc.Loaded)
    worker.send(ipc.Prepare("bad", GenerateRequest(prompt=[5, 10_000_000])))
    failed = worker.next(ipc.Failed)
    assert isinstance(failed, ipc.Failed)
    assert (failed.code, failed.param) == ("invalid_request", "prompt")
    worker.send(ipc.Prepare("long", GenerateRequest(prompt=[5] * 5000)))
    refused = worker.next(ipc.Failed)
    assert isinstance(refused, ipc.Failed)
    assert refused.code == "context_length_exceeded"
    worker.send(ipc.Tokenize("t", "hello"), ipc.Ping(7))
    assert isinstance(worker.next(ipc.Tokens), ipc.Tokens)
