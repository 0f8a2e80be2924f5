"""The servers under measurement: how each is started, where it answers, and which processes are its cost."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
START_LIMIT_S = 300


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Stack(ABC):
    """A server that runs one model; ``with stack:`` starts it, waits for ``/v1/models`` and ends it."""

    name: str
    model: str

    def __init__(self, model_dir: Path, scratch: Path) -> None:
        self.model_dir = model_dir
        self.scratch = scratch / self.name.replace(" ", "-")
        self.port = free_port()
        self.start_s = 0.0

    @abstractmethod
    def command(self) -> list[str]: ...

    def environment(self) -> dict[str, str]:
        return dict(os.environ)

    def __enter__(self) -> Stack:
        self.scratch.mkdir(parents=True, exist_ok=True)
        self._log = (self.scratch / "log").open("wb")
        began = time.perf_counter()
        self._process = subprocess.Popen(
            self.command(), cwd=ROOT, env=self.environment(), stdout=self._log, stderr=self._log, start_new_session=True
        )
        self._wait(began)
        return self

    def _wait(self, began: float) -> None:
        while time.perf_counter() - began < START_LIMIT_S:
            if self._process.poll() is not None:
                raise RuntimeError(f"{self.name} ended at start: {self.log_tail()}")
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/v1/models", timeout=5):
                    self.start_s = time.perf_counter() - began
                    return
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.02)
        raise RuntimeError(f"{self.name} did not answer within {START_LIMIT_S} s: {self.log_tail()}")

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._log.close()

    def log_tail(self) -> str:
        return (self.scratch / "log").read_text(errors="replace")[-1500:]

    def web_process(self) -> psutil.Process:
        """The process that speaks HTTP."""
        return psutil.Process(self._process.pid)

    def cpu_seconds(self) -> dict[str, float]:
        """CPU time so far of the process that speaks HTTP and of all its children."""
        web = self.web_process()
        children = [child.cpu_times() for child in web.children(recursive=True)]
        own = web.cpu_times()
        return {"web": own.user + own.system, "children": sum(times.user + times.system for times in children)}

    def memory_bytes(self) -> dict[str, int]:
        """Resident memory of the process that speaks HTTP and of all its children."""
        web = self.web_process()
        return {
            "web": web.memory_info().rss,
            "children": sum(child.memory_info().rss for child in web.children(recursive=True)),
        }


class Lmx(Stack):
    """This server, with its request ledger on."""

    name = "opta-lmx"

    def __init__(self, model_dir: Path, scratch: Path) -> None:
        super().__init__(model_dir, scratch)
        self.model = model_dir.name

    def command(self) -> list[str]:
        return [sys.executable, "-m", "lmx_site.cli", "serve", "--port", str(self.port)]

    def environment(self) -> dict[str, str]:
        home = self.scratch / "home"
        (home / "models").mkdir(parents=True, exist_ok=True)
        link = home / "models" / self.model
        if not link.exists():
            link.symlink_to(self.model_dir)
        return {
            **os.environ,
            "LMX_HOME": str(home),
            "LMX_MODELS__EXTRA_DIRECTORIES": f'["{self.model_dir}"]',
            "LMX_MODELS__DEMO": "false",
        }


class VllmMlx(Stack):
    """``vllm-mlx serve --continuous-batching`` in its own environment."""

    name = "vllm-mlx serve"
    python = os.environ.get("LMX_BENCH_VLLM_PYTHON", str(ROOT / ".venvs" / "bench-vllm" / "bin" / "python"))

    def __init__(self, model_dir: Path, scratch: Path) -> None:
        super().__init__(model_dir, scratch)
        self.model = str(model_dir)

    def command(self) -> list[str]:
        program = "import sys; from vllm_mlx.cli import main; sys.exit(main())"
        served = [
            "serve",
            str(self.model_dir),
            "--continuous-batching",
            "--host",
            "127.0.0.1",
            "--port",
            str(self.port),
        ]
        return [self.python, "-c", program, *served]

    def environment(self) -> dict[str, str]:
        path = os.environ.get("LMX_BENCH_VLLM_PYTHONPATH")
        return {**os.environ, **({"PYTHONPATH": path} if path else {})}


class MlxLm(Stack):
    """``mlx_lm.server`` in its own environment."""

    name = "mlx_lm.server"
    python = os.environ.get("LMX_BENCH_MLX_LM_PYTHON", str(ROOT / ".venvs" / "bench-mlx-lm" / "bin" / "python"))

    def __init__(self, model_dir: Path, scratch: Path) -> None:
        super().__init__(model_dir, scratch)
        self.model = str(model_dir)

    def command(self) -> list[str]:
        served = ["--model", str(self.model_dir), "--host", "127.0.0.1", "--port", str(self.port)]
        return [self.python, "-m", "mlx_lm.server", *served, "--decode-concurrency", "64", "--prompt-concurrency", "64"]


SERVERS: tuple[type[Stack], ...] = (Lmx, VllmMlx, MlxLm)
