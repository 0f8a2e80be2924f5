"""The real server as a child process of a test, with fake models in real worker processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import psutil

from tests.material import nano_model, place

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 60.0
MODEL = "fake-a"


def until(condition: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
    """The first true value of ``condition``; the limit only keeps a broken test from hanging."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.01)
    raise AssertionError(f"waited in vain for: {what}")


def fake_model(home: Path, name: str = MODEL, **script: Any) -> None:
    """Put a model on that home's disk; its worker runs the fake backend with that script."""
    directory = place(nano_model(), home / "models" / name)
    (directory / "fake.json").write_text(json.dumps(script))


def script(text: str, **fields: Any) -> str:
    """A prompt that tells the fake what to do."""
    return f"{text} <<fake {json.dumps(fields)}>>"


def _read(stream: IO[bytes]) -> str:
    return os.pread(stream.fileno(), 1 << 26, 0).decode()


class LiveServer:
    """``python -m lmx_site.cli serve`` on a home of its own and a free port. ``stop`` ends exactly what it started."""

    def __init__(self, home: Path, variables: Mapping[str, str] | None = None) -> None:
        self.home = home
        self._variables = dict(variables or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._children: list[psutil.Process] = []

    def launch(self, terminal: int | None = None) -> LiveServer:
        """Start the process and return at once; on that terminal, if given, in place of files that tests can read."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("LMX_")}
        environment = {
            **kept,
            "LMX_HOME": str(self.home),
            "LMX_SERVER__PORT": "0",
            "LMX_ENGINE__BACKEND": "fake",
            "LMX_MODELS__EXTRA_DIRECTORIES": "[]",
            "LMX_MODELS__DEMO": "false",
            **self._variables,
        }
        self._out, self._err = tempfile.TemporaryFile("w+b"), tempfile.TemporaryFile("w+b")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "lmx_site.cli", "serve"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self._out if terminal is None else terminal,
            stderr=self._err if terminal is None else terminal,
        )
        return self

    def start(self) -> LiveServer:
        """Start and wait until it serves."""
        self.launch()
        until(self._serves, "the server's announcement")
        return self

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "not started"
        return self._process

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def url(self) -> str:
        return str(self._server_file()["url"])

    @property
    def port(self) -> int:
        return int(self._server_file()["port"])

    @property
    def stdout(self) -> str:
        return _read(self._out)

    @property
    def stderr(self) -> str:
        return _read(self._err)

    @property
    def log(self) -> str:
        return (self.home / "logs" / "server.log").read_text()

    def wait(self) -> int:
        """Its exit status, once it has ended by itself."""
        return self.process.wait(PATIENCE_S)

    def send(self, number: int) -> None:
        self._children = psutil.Process(self.pid).children(recursive=True)
        self.process.send_signal(number)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to end, wait, and give its exit status; afterwards none of its children may be left."""
        try:
            if self.process.poll() is None:
                self.send(number)
            status = self.wait()
            _, alive = psutil.wait_procs(self._children, timeout=5)
            assert not alive, f"children outlive the server: {alive}"
            return status
        finally:
            self.kill()

    def kill(self) -> None:
        """Make sure that it is gone."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(PATIENCE_S)

    def close(self) -> None:
        """``kill``, and forget its output."""
        self.kill()
        if self._process is not None:
            self._out.close()
            self._err.close()

    def _serves(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"the server ended with {self.process.returncode}: {self.stderr}")
        return self._server_file().get("pid") == self.pid

    def _server_file(self) -> dict[str, Any]:
        try:
            content: dict[str, Any] = json.loads((self.home / "run" / "server.json").read_text())
        except (OSError, ValueError):
            return {}
        return content
