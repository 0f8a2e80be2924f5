"""The worker program by itself: a socket in, events out, exit codes."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import psutil
import pytest

from inference import ipc
from inference.engine.child import child_environment
from inference.worker.backends.fake_script import draw, tokenize

EventT = TypeVar("EventT", bound=ipc.Event)
PATIENCE_S = 20.0


class Worker:
    """A worker process and blocking ways to talk to it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(PATIENCE_S)
        argv = [sys.executable, "-m", "inference.worker", "--fd", str(theirs.fileno())]
        with theirs:
            self.process = subprocess.Popen(
                argv,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                env=child_environment(),
                stderr=subprocess.PIPE,
                text=True,
            )
        self._splitter = ipc.FrameSplitter()
        self._events: list[ipc.Event] = []

    def send(self, *commands: ipc.Command) -> None:
        self.socket.sendall(ipc.encode_frame(list(commands)))

    def load(self, **script: Any) -> ipc.Loaded:
        self.send(ipc.Load(str(self.directory), "m", options={"backend": "fake", "script": script}))
        return self.expect(ipc.Loaded)

    def expect(self, wanted: type[EventT]) -> EventT:
        """The next event of that type; what comes before it is dropped."""
        while True:
            while self._events:
                event = self._events.pop(0)
                if isinstance(event, wanted):
                    return event
            data = self.socket.recv(1 << 16)
            if not data:
                raise EOFError(wanted)
            for body in self._splitter.feed(data):
                self._events += ipc.decode_events(body)

    def start(self, request: str, prompt: str, max_tokens: int = 100) -> None:
        self.send(ipc.Prepare(request, ipc.GenerateRequest(prompt=prompt)))
        assert self.expect(ipc.Prepared).prompt_tokens == len(prompt)
        self.send(ipc.Start(request, max_tokens))

    def exit_code(self) -> int:
        return self.process.wait(PATIENCE_S)


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    worker = Worker(tmp_path)
    yield worker
    worker.socket.close()
    worker.process.kill()
    worker.process.communicate()


def test_it_works(worker: Worker) -> None:
    hello = worker.expect(ipc.Hello)
    assert (hello.protocol, hello.pid) == (ipc.PROTOCOL_VERSION, worker.process.pid)
    assert "python" in hello.versions
    assert worker.load().backend == "fake"
    worker.start("r", "hello")
    assert worker.expect(ipc.Started).request == "r"
    assert worker.expect(ipc.Prefill).done == 5
    assert worker.expect(ipc.Delta).token_ids == draw(b"hello", 0, 1)
    assert worker.expect(ipc.Finished).usage.completion_tokens == 16
    worker.send(ipc.Drain(1.0))
    worker.expect(ipc.Drained)
    assert worker.exit_code() == 0


def test_questions(worker: Worker) -> None:
    worker.load()
    worker.send(
        ipc.Tokenize("t", "héllo"),
        ipc.Detokenize("d", tokenize("héllo")),
        ipc.Count("c", ipc.GenerateRequest(messages=[{"role": "user", "content": "hi"}])),
        ipc.Embed("e", ["x"]),
        ipc.SaveCache("s"),
    )
    assert worker.expect(ipc.Tokens).token_ids == tokenize("héllo")
    assert worker.expect(ipc.Text).text == "héllo"
    assert worker.expect(ipc.Counted).prompt_tokens == len("user: hi")


def test_what_is_unsupported_says_so(worker: Worker) -> None:
    worker.load()
    for command in (ipc.Embed("e", ["x"]), ipc.SaveCache("s")):
        worker.send(command)
        failed = worker.expect(ipc.Failed)
        assert (failed.request, failed.code) == (command.request, "unsupported")


def test_before_it_is_loaded(worker: Worker) -> None:
    worker.send(ipc.Prepare("r", ipc.GenerateRequest(prompt="x")), ipc.Start("q", 1), ipc.Cancel("z"), ipc.Ping(7))
    assert worker.expect(ipc.Failed).code == "model_unavailable"
    assert worker.expect(ipc.Failed).request == "q"
    assert worker.expect(ipc.Pong).nonce == 7


def test_pings_are_answered_while_a_prompt_is_prepared_and_while_stepping_hangs(worker: Worker, tmp_path: Path) -> None:
    worker.load(prepare_gate=str(tmp_path / "gate"))
    worker.send(ipc.Prepare("r", ipc.GenerateRequest(prompt='<<fake {"hang_after": 1, "prepare_gate": null}>>')))
    worker.expect(ipc.Prepared)
    worker.send(ipc.Start("r", 10))
    worker.expect(ipc.Delta)
    worker.send(ipc.Prepare("held", ipc.GenerateRequest(prompt="x")), ipc.Ping(1))
    assert worker.expect(ipc.Pong).step >= 3
    worker.send(ipc.Cancel("held"), ipc.Ping(2))
    assert worker.expect(ipc.Pong).nonce == 2


def test_stats_come_once_a_second(worker: Worker) -> None:
    worker.load(weight_bytes=1234)
    first = worker.expect(ipc.Stats)
    assert first.active_bytes == 1234
    worker.start("r", "hello")
    worker.expect(ipc.Finished)
    assert worker.expect(ipc.Stats).step > first.step


@pytest.mark.parametrize(
    ("script", "code", "message"),
    [
        ({"load_error": "no such tensor"}, "model_unavailable", "no such tensor"),
        ({"load_error": "too big", "load_code": "insufficient_memory"}, "insufficient_memory", "too big"),
    ],
)
def test_load_failure_is_one_line_and_exit_3(worker: Worker, script: dict[str, str], code: str, message: str) -> None:
    worker.send(ipc.Load(str(worker.directory), "m", options={"backend": "fake", "script": script}))
    failed = worker.expect(ipc.LoadFailed)
    assert (failed.code, failed.message) == (code, message)
    assert worker.exit_code() == 3


def test_unknown_backend(worker: Worker) -> None:
    worker.send(ipc.Load("/x", "m", options={"backend": "os"}))
    assert "inference.worker.backends.os" in worker.expect(ipc.LoadFailed).message
    assert worker.exit_code() == 3


def test_end_of_file_ends_it_even_in_a_step_that_hangs(worker: Worker) -> None:
    worker.load()
    worker.start("r", '<<fake {"hang_after": 1}>>')
    worker.expect(ipc.Delta)
    worker.socket.close()
    assert worker.exit_code() == 5


def test_bytes_that_are_no_frame(worker: Worker) -> None:
    worker.expect(ipc.Hello)
    worker.socket.sendall(b"\0\0\0\4junk")
    assert worker.exit_code() == 6
    assert worker.process.stderr is not None
    assert "bad frame" in worker.process.stderr.read()


def test_ctrl_c_is_for_the_parent(worker: Worker) -> None:
    worker.load()
    worker.process.send_signal(signal.SIGINT)
    worker.start("r", "still there")
    worker.expect(ipc.Finished)


def test_sigterm_ends_open_requests_and_exits_0(worker: Worker, tmp_path: Path) -> None:
    worker.load()
    worker.start("r", f'<<fake {{"hold_after": 1, "gate": "{tmp_path / "gate"}"}}>>')
    worker.expect(ipc.Delta)
    worker.process.terminate()
    assert worker.expect(ipc.Failed) == ipc.Failed.cut_off("r")
    assert worker.exit_code() == 0


def test_drain_finishes_what_runs_and_refuses_the_new(worker: Worker, tmp_path: Path) -> None:
    worker.load()
    gate = tmp_path / "gate"
    worker.start("r", f'<<fake {{"hold_after": 1, "gate": "{gate}"}}>>')
    worker.send(ipc.Prepare("late", ipc.GenerateRequest(prompt="x")))
    worker.expect(ipc.Prepared)
    worker.send(ipc.Drain(PATIENCE_S), ipc.Start("late", 5))
    assert worker.expect(ipc.Failed).request == "late"
    gate.touch()
    assert worker.expect(ipc.Finished).reason == "stop"
    worker.expect(ipc.Drained)
    assert worker.exit_code() == 0


def load_with_prefixes(worker: Worker, directory: Path) -> None:
    load = ipc.Load(
        str(worker.directory),
        "m",
        prefix_cache_bytes=1000,
        prefix_disk_dir=str(directory),
        prefix_disk_bytes=300,
        options={"backend": "fake", "script": {"prefix_bytes": 500}},
    )
    worker.send(load)
    worker.expect(ipc.Loaded)


def test_the_prefix_cache_is_saved_where_it_is_asked_for(worker: Worker, tmp_path: Path) -> None:
    load_with_prefixes(worker, tmp_path / "own")
    (tmp_path / "file").touch()
    worker.send(ipc.SaveCache("s", str(tmp_path / "asked")))
    assert worker.expect(ipc.CacheSaved) == ipc.CacheSaved("s", 500)
    assert (tmp_path / "asked/fake.prefix").stat().st_size == 500
    worker.send(ipc.SaveCache("bad", str(tmp_path / "file/below")))
    failed = worker.expect(ipc.Failed)
    assert (failed.request, failed.code, failed.param) == ("bad", "invalid_request", "directory")


@pytest.mark.parametrize("seconds", [0.0, 5.0])
def test_the_prefix_cache_is_saved_at_the_end_if_there_is_time_for_it(
    worker: Worker, tmp_path: Path, seconds: float
) -> None:
    load_with_prefixes(worker, tmp_path / "own")
    worker.send(ipc.Drain(1.0, seconds))
    worker.expect(ipc.Drained)
    assert worker.exit_code() == 0
    saved = tmp_path / "own/fake.prefix"
    assert saved.exists() == (seconds > 0)
    assert not saved.exists() or saved.stat().st_size == 300


def test_what_cannot_be_saved_keeps_nobody_from_leaving(worker: Worker, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    load_with_prefixes(worker, tmp_path / "file/below")
    worker.send(ipc.Drain(1.0, 5.0))
    worker.expect(ipc.Drained)
    assert worker.exit_code() == 0


def test_a_cancelled_prepare_is_dropped(worker: Worker, tmp_path: Path) -> None:
    worker.load()
    gate = tmp_path / "gate"
    prompt = f'<<fake {{"prepare_gate": "{gate}"}}>>'
    worker.send(
        ipc.Prepare("one", ipc.GenerateRequest(prompt=prompt)), ipc.Prepare("two", ipc.GenerateRequest(prompt="x"))
    )
    deadline = time.monotonic() + PATIENCE_S
    while not Path(f"{gate}.reached").exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    worker.send(
        ipc.Cancel("one"), ipc.Cancel("two"), ipc.Prepare("three", ipc.GenerateRequest(prompt="x")), ipc.Ping(1)
    )
    worker.expect(ipc.Pong)
    gate.touch()
    assert worker.expect(ipc.Prepared).request == "three"
    worker.send(ipc.Start("one", 5), ipc.Start("two", 5), ipc.Start("three", 5))
    assert worker.expect(ipc.Finished).request == "three"


def directed(**script: Any) -> ipc.GenerateRequest:
    return ipc.GenerateRequest(prompt=f"a secret: xylophone <<fake {json.dumps(script)}>>")


def everything_said(worker: Worker) -> str:
    """What it wrote to stderr, once it has ended."""
    assert worker.process.stderr is not None
    return worker.process.stderr.read()


def test_a_grammar_that_takes_long_to_compile_holds_up_no_other_request(worker: Worker, tmp_path: Path) -> None:
    worker.load()
    gate = tmp_path / "gate"
    held = msgspec.structs.replace(directed(prepare_gate=str(gate)), output_format=ipc.OutputFormat("json_object"))
    worker.send(ipc.Prepare("held", held), ipc.Prepare("behind it", held))
    worker.send(ipc.Prepare("r", ipc.GenerateRequest(prompt="x")))
    assert worker.expect(ipc.Prepared).request == "r"
    worker.send(ipc.Cancel("behind it"))
    gate.touch()
    assert worker.expect(ipc.Prepared).request == "held"
    worker.send(ipc.Start("behind it", 5), ipc.Start("held", 5))
    assert worker.expect(ipc.Finished).request == "held"


def test_a_panic_over_one_prompt_fails_that_request_alone(worker: Worker) -> None:
    """Panics of Rust libraries are no ``Exception``: the thread that prepares must outlive them."""
    worker.load()
    worker.send(ipc.Prepare("r", directed(prepare_error="panic")), ipc.Tokenize("t", "hello"))
    failed = worker.expect(ipc.Failed)
    assert (failed.request, failed.code) == ("r", "internal_error")
    assert "xylophone" not in failed.message
    assert worker.expect(ipc.Tokens).request == "t"
    worker.send(ipc.Drain(1.0))
    assert worker.exit_code() == 0
    assert "xylophone" not in everything_said(worker)


def test_a_thread_that_dies_takes_the_process_with_it(worker: Worker) -> None:
    """Else it would answer pings for ever and nothing else."""
    worker.load(stats_panic=True)
    assert worker.exit_code() == 4
    said = everything_said(worker)
    assert "the thread stats ended: Panic" in said
    assert "after 0 steps" not in said


def test_a_panic_while_stepping_ends_it_without_its_message(worker: Worker) -> None:
    worker.load()
    worker.start("r", '<<fake {"die_after": 1, "die": "panic"}>>')
    assert worker.exit_code() == 4
    said = everything_said(worker)
    assert "the stepping loop ended: Panic" in said
    assert "a panic in process " + str(worker.process.pid) not in said


def test_what_libraries_log_about_requests_is_withheld(worker: Worker) -> None:
    worker.load()
    worker.send(ipc.Prepare("r", directed(prepare_error="chatter")))
    worker.expect(ipc.Prepared)
    worker.send(ipc.Drain(1.0))
    assert worker.exit_code() == 0
    said = everything_said(worker)
    assert "WARNING some.library: (message withheld) fake.py:" in said
    assert "xylophone" not in said


def test_a_prompt_over_the_context_is_refused_with_its_numbers(worker: Worker) -> None:
    worker.load(context=64)
    worker.send(ipc.Prepare("r", ipc.GenerateRequest(prompt="x" * 64)))
    failed = worker.expect(ipc.Failed)
    assert (failed.code, failed.param) == ("context_length_exceeded", "prompt")
    assert failed.details == {"context": 64, "prompt_tokens": 64}


def test_it_starts_light(worker: Worker) -> None:
    """No accelerator library is loaded before a backend asks for it."""
    worker.load()
    mapped = " ".join(entry.path for entry in psutil.Process(worker.process.pid).memory_maps())
    assert "mlx" not in mapped
    assert "django" not in mapped
