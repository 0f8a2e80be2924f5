"""The shell around a backend: threads, socket, life and death of one worker process.

Threads: *main* loads the model and steps it, and alone touches the accelerator; *socket* reads commands and answers
pings, and ends the process at end-of-file; *prepare* runs templating and counting; *constrain* the same for requests
with a grammar, which takes long to compile; *embed* runs embeddings, which wait for the main thread; *save* writes
cached prefixes to disk; *outbox* writes; *stats* reports once a second; *signals* waits for SIGTERM. Prompt and answer
text never reaches a log line: of a defect, type and place are told, not the message. A defect that ends a thread ends
the process, because a worker without one of its threads answers pings and nothing else.
"""

from __future__ import annotations

import gc
import importlib
import importlib.metadata
import os
import platform
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

from inference import ipc
from inference.errors import LmxError
from inference.worker import logs
from inference.worker.backends.base import Backend
from inference.worker.constraints.needs import needs_grammar
from inference.worker.exits import EXIT_BAD_FRAME, EXIT_CLEAN, EXIT_DEFECT, EXIT_LOAD_FAILED, EXIT_PARENT_GONE
from inference.worker.lane import Lane
from inference.worker.logs import one_line, place_of
from inference.worker.outbox import Outbox

_DEFAULT_BACKEND = "vllm_mlx"
_REPORTED_PACKAGES = ("mlx", "mlx-lm", "vllm-mlx", "transformers")
_VITAL_THREADS = {
    *("socket", "prepare", "constrain", "embed", "save", "prefix-reader", "text", "outbox", "stats", "signals", "drain")
}
_READ_BYTES = 256 * 1024
_FLUSH_S = 5.0
_STATS_S = 1.0
_DRAIN_POLL_S = 0.01


def open_backend(name: str) -> Backend:
    """The backend of that name: ``open_backend()`` of the module ``inference.worker.backends.<name>``."""
    if not name.isidentifier():
        raise ValueError(f"{name!r} is not the name of a backend")
    module = importlib.import_module(f"inference.worker.backends.{name}")
    backend: Backend = module.open_backend()
    return backend


def installed_versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _REPORTED_PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _thread_ended(arguments: threading.ExceptHookArgs) -> None:
    """A thread met a defect that nobody caught: end the process, so that the web process starts another.

    Not for a library's own thread, which nobody here waits for.
    """
    name = arguments.thread.name if arguments.thread is not None else ""
    if arguments.exc_value is not None:
        logs.print_defect(f"the thread {name or 'without a name'} ended", arguments.exc_value)
    if name in _VITAL_THREADS:
        sys.stderr.flush()
        os._exit(EXIT_DEFECT)


class WorkerProcess:
    """One worker over one connected socket. ``run`` never returns: it ends the process."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._outbox = Outbox(sock, on_overload=self._cancel_overloaded, on_broken=lambda: os._exit(EXIT_PARENT_GONE))
        self._emit = self._outbox.emit
        self._prepare_lane = Lane("prepare")
        self._constrain_lane = Lane("constrain")
        self._embed_lane = Lane("embed")
        self._save_lane = Lane("save")
        self._lanes = (self._prepare_lane, self._constrain_lane, self._embed_lane, self._save_lane)
        self._load: queue.SimpleQueue[ipc.Load] = queue.SimpleQueue()
        self._backend: Backend | None = None
        self._stopping = threading.Event()
        self._draining = False
        self._drained = False
        self._handlers: dict[type[ipc.Command], Callable[[Any], None]] = {
            ipc.Load: self._load.put,
            ipc.Prepare: self._on_prepare,
            ipc.Start: self._on_start,
            ipc.Cancel: self._on_cancel,
            ipc.Tokenize: self._on_tokenize,
            ipc.Detokenize: self._on_detokenize,
            ipc.Count: self._on_count,
            ipc.Embed: self._on_embed,
            ipc.SetLimits: self._on_set_limits,
            ipc.Drain: self._on_drain,
            ipc.SaveCache: self._on_save_cache,
            ipc.Ping: self._on_ping,
        }

    # ------------------------------------------------------------------------------------------------ main thread

    def run(self) -> NoReturn:
        """Say hello, load what is asked for, step until told to stop, leave by ``os._exit``.

        ``os._exit`` because interpreter teardown with live accelerator threads aborts now and then.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.excepthook = _thread_ended
        logs.install()
        self._outbox.start()
        self._emit([ipc.Hello(ipc.PROTOCOL_VERSION, os.getpid(), installed_versions())])
        for lane in self._lanes:
            lane.start()
        for target, name in ((self._read_socket, "socket"), (self._wait_for_sigterm, "signals")):
            threading.Thread(target=target, name=name, daemon=True).start()
        code = self._serve(self._load.get())
        if self._drained:
            self._emit([ipc.Drained()])
        self._outbox.close(_FLUSH_S)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    def _serve(self, command: ipc.Load) -> int:
        backend = self._load_backend(command)
        if backend is None:
            return EXIT_LOAD_FAILED
        threading.Thread(target=self._report_stats, args=(backend,), name="stats", daemon=True).start()
        try:
            backend.run()
        except BaseException as error:
            logs.print_defect("the stepping loop ended", error)
            return EXIT_DEFECT
        return EXIT_CLEAN if self._stopping.is_set() else EXIT_DEFECT

    def _load_backend(self, command: ipc.Load) -> Backend | None:
        """Load; None after ``LoadFailed`` was queued."""
        started = time.monotonic()
        try:
            backend = open_backend(command.options.get("backend") or _DEFAULT_BACKEND)
            loaded = backend.load(command, self._emit)
        except LmxError as error:
            self._emit([ipc.LoadFailed(error.code, error.message)])
            return None
        except MemoryError:
            self._emit([ipc.LoadFailed("insufficient_memory", "the machine ran out of memory while loading")])
            return None
        except Exception as error:
            logs.print_defect("loading failed", error)
            self._emit([ipc.LoadFailed("model_unavailable", one_line(error))])
            return None
        logs.seal()
        loaded.seconds = loaded.seconds or time.monotonic() - started
        loaded.backend = loaded.backend or backend.name
        self._backend = backend
        # What loading made stays: a full collection that walks it again and again would hold up every stream.
        gc.collect()
        gc.freeze()
        self._emit([loaded])
        return backend

    # ---------------------------------------------------------------------------------------------- other threads

    def _read_socket(self) -> None:
        splitter = ipc.FrameSplitter()
        try:
            while data := self._socket.recv(_READ_BYTES):
                for body in splitter.feed(data):
                    for command in ipc.decode_commands(body):
                        self._handlers[type(command)](command)
        except ipc.FrameError as error:
            sys.stderr.write(f"the web process sent a bad frame: {error}\n")
            os._exit(EXIT_BAD_FRAME)
        except OSError:
            pass
        os._exit(EXIT_PARENT_GONE)

    def _wait_for_sigterm(self) -> None:
        signal.sigwait({signal.SIGTERM})
        self._stop()

    def _report_stats(self, backend: Backend) -> None:
        while not self._stopping.wait(_STATS_S):
            self._emit([backend.stats()])

    def _stop(self) -> None:
        """Make the main thread leave its step loop; without a loaded model there is nothing to finish."""
        self._stopping.set()
        if self._backend is None:
            os._exit(EXIT_CLEAN)
        self._backend.stop()

    def _drain(self, backend: Backend, command: ipc.Drain) -> None:
        deadline = time.monotonic() + command.deadline_s
        while backend.busy() and time.monotonic() < deadline:
            time.sleep(_DRAIN_POLL_S)
        if command.save_s > 0:
            self._save_last(backend, command.save_s)
        self._drained = True
        self._stop()

    def _save_last(self, backend: Backend, seconds: float) -> None:
        """What cannot be saved does not keep the process from leaving."""
        try:
            backend.save_cache("", seconds)
        except LmxError:
            pass
        except Exception as error:
            self._log("warning", f"the prefix cache was not saved: {place_of(error)}")

    def _cancel_overloaded(self, request: str) -> None:
        self._log("warning", "an answer's reader is too slow: over 16 MiB unsent, the request was ended")
        if self._backend is not None:
            self._backend.cancel(request)

    # ------------------------------------------------------------------------------ commands, on the socket thread

    def _on_ping(self, command: ipc.Ping) -> None:
        step = self._backend.step_number() if self._backend is not None else 0
        self._emit([ipc.Pong(command.nonce, step)])

    def _on_prepare(self, command: ipc.Prepare) -> None:
        lane = self._constrain_lane if needs_grammar(command.body) else self._prepare_lane
        self._answer(lane, command.request, lambda b: b.prepare(command.request, command.body))

    def _on_tokenize(self, command: ipc.Tokenize) -> None:
        def answer(backend: Backend) -> ipc.Event:
            if command.body is not None:
                tokens = backend.prompt_tokens(command.body)
            else:
                tokens = backend.tokenize(command.text, command.add_special_tokens)
            texts = {token: backend.detokenize([token]) for token in set(tokens)} if command.texts else {}
            return ipc.Tokens(command.request, tokens, [texts[token] for token in tokens if command.texts])

        self._answer(self._prepare_lane, command.request, answer)

    def _on_detokenize(self, command: ipc.Detokenize) -> None:
        def answer(backend: Backend) -> ipc.Event:
            return ipc.Text(command.request, backend.detokenize(command.token_ids))

        self._answer(self._prepare_lane, command.request, answer)

    def _on_count(self, command: ipc.Count) -> None:
        def answer(backend: Backend) -> ipc.Event:
            return ipc.Counted(command.request, backend.count(command.body))

        self._answer(self._prepare_lane, command.request, answer)

    def _on_embed(self, command: ipc.Embed) -> None:
        def answer(backend: Backend) -> ipc.Event | None:
            return backend.embed(command.request, command.inputs, command.dimensions)

        self._answer(self._embed_lane, command.request, answer)

    def _on_save_cache(self, command: ipc.SaveCache) -> None:
        def answer(backend: Backend) -> ipc.Event:
            return ipc.CacheSaved(command.request, backend.save_cache(command.directory, None))

        self._answer(self._save_lane, command.request, answer)

    def _on_start(self, command: ipc.Start) -> None:
        if self._backend is None or self._draining or self._stopping.is_set():
            self._fail(command.request, "model_unavailable", "the model is being unloaded")
            return
        try:
            self._backend.start(command.request, command.max_tokens)
        except Exception as error:
            self._report_defect("start", command.request, error)

    def _on_cancel(self, command: ipc.Cancel) -> None:
        waiting = any(lane.cancel(command.request) for lane in self._lanes)
        if not waiting and self._backend is not None:
            self._backend.cancel(command.request)

    def _on_set_limits(self, command: ipc.SetLimits) -> None:
        if self._backend is not None:
            self._backend.set_limits(command)

    def _on_drain(self, command: ipc.Drain) -> None:
        if self._backend is None:
            self._stop()
            return
        self._draining = True
        arguments = (self._backend, command)
        threading.Thread(target=self._drain, args=arguments, name="drain", daemon=True).start()

    # ---------------------------------------------------------------------------------------------------- helpers

    def _answer(self, lane: Lane, request: str, answer: Callable[[Backend], ipc.Event | None]) -> None:
        """Run ``answer`` on ``lane``; its refusal or defect becomes ``Failed`` for this request alone.

        None: the backend answers through its own ``emit``.
        """
        backend = self._backend
        if backend is None:
            self._fail(request, "model_unavailable", "the model is not loaded yet")
            return

        def job(finish: Callable[[], bool]) -> None:
            event: ipc.Event | None = None
            failure: BaseException | None = None
            try:
                event = answer(backend)
            except BaseException as error:  # a panic in a library of Rust is no Exception
                failure = error
            if not finish():
                backend.cancel(request)
            elif isinstance(failure, LmxError):
                self._emit([ipc.Failed(request, failure.code, failure.message, failure.param, failure.details)])
            elif failure is not None:
                self._report_defect("prepare", request, failure)
            elif event is not None:
                self._emit([event])

        lane.put(request, job)

    def _report_defect(self, what: str, request: str, error: BaseException) -> None:
        self._log("error", f"{what} of a request failed: {place_of(error)}")
        self._fail(request, "internal_error", f"the model's worker could not {what} this request ({place_of(error)})")

    def _fail(self, request: str, code: str, message: str, param: str | None = None) -> None:
        self._emit([ipc.Failed(request, code, message, param)])

    def _log(self, level: Any, message: str) -> None:
        self._emit([ipc.Log(level, message)])
