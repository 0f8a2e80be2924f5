"""The child's side of a job: ``run_job(work)`` is the whole main program of a job module.

The process dies with its server: the kernel's notice where there is one, and the end of the socket everywhere. It
takes its own children (pip) with it, because it leads its session.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from inference.ipc import FrameSplitter
from inference.lifeline import die_with_parent
from models_admin.job_protocol import Bye, Done, Go, Part, Problem, Progress, decode_from_server, encode

_REPORT_EVERY_S = 0.1


class JobError(Exception):
    """Ends the job with this sentence for people; ``code`` and ``details`` are for programs."""

    def __init__(self, message: str, *, code: str = "", details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.details = details or {}


class Reporter:
    """Sends progress, at most ten times a second within a phase; the first and last of a phase always.

    What is held back follows by itself: work that then stands still is shown where it stands.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._lock = threading.Lock()
        self._phase = ""
        self._next = 0.0
        self._held: Progress | None = None
        self._timer: threading.Timer | None = None

    def __call__(
        self,
        phase: str,
        done: int = 0,
        total: int = 0,
        unit: str = "bytes",
        *,
        note: str = "",
        file: str = "",
        file_done: int = 0,
    ) -> None:
        progress = Progress(phase, done, total, unit, note, file, file_done)
        with self._lock:
            if self._held is not None and self._held.file != file:
                self._tell(self._held)  # the last that is said of that file
            wait_s = self._next - time.monotonic()
            if phase != self._phase or note or wait_s <= 0 or done == total:
                self._tell(progress)
                return
            self._held = progress
            if self._timer is None:
                self._timer = threading.Timer(wait_s, self._follow)
                self._timer.daemon = True
                self._timer.start()

    def part(self, about: dict[str, Any]) -> None:
        """Hand over a result that is final, whatever becomes of the job."""
        with self._lock:
            self._socket.sendall(encode(Part(about)))

    def end(self, outcome: Done | Problem) -> None:
        """The last word; no progress follows it."""
        with self._lock:
            self._held = None
            self._socket.sendall(encode(outcome))

    def _follow(self) -> None:
        with self._lock:
            self._timer = None
            if self._held is not None:
                with contextlib.suppress(OSError):  # the server is gone: the end of the socket says so too
                    self._tell(self._held)

    def _tell(self, progress: Progress) -> None:
        self._phase, self._next, self._held = progress.phase, time.monotonic() + _REPORT_EVERY_S, None
        self._socket.sendall(encode(progress))


Work = Callable[[dict[str, Any], Reporter], dict[str, Any]]


def run_job(work: Work) -> None:
    """Read the parameters from the socket named by ``--fd N``, do the work, report the end, wait to be dismissed."""
    die_with_parent()
    sock = socket.socket(fileno=int(sys.argv[sys.argv.index("--fd") + 1]))
    started, dismissed = threading.Event(), threading.Event()
    params: dict[str, Any] = {}

    def listen() -> None:
        splitter = FrameSplitter()
        while data := sock.recv(65536):
            for message in map(decode_from_server, splitter.feed(data)):
                match message:
                    case Go():
                        params.update(message.params)
                        started.set()
                    case Bye():
                        dismissed.set()
        if not dismissed.is_set():
            os.killpg(os.getpgid(0), signal.SIGKILL)

    threading.Thread(target=listen, name="server", daemon=True).start()
    started.wait()
    reporter = Reporter(sock)
    reporter.end(_outcome(work, params, reporter))
    dismissed.wait()
    sys.stdout.flush()
    os._exit(0)  # interpreter teardown with MLX loaded aborts now and then


def _outcome(work: Work, params: dict[str, Any], reporter: Reporter) -> Done | Problem:
    try:
        return Done(work(params, reporter))
    except JobError as error:
        return Problem(str(error), error.code, error.details)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return Problem("The disk is full. Free some space and resume it.", "insufficient_storage")
        return Problem(f"{error.filename or 'a file'}: {error.strerror or error}")
