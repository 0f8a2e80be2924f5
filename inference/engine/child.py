"""One class of child process: model workers and jobs.

A child inherits one connected Unix socket and nothing else, runs in a session of its own, and speaks the frames of
``inference.ipc`` (only their length prefix is known here). It is *dead* as soon as the socket ends, the process
exits, or it misses its heartbeats, whichever is first; ``on_exit`` is called then, once, and what may be left of the
process is killed and reaped. All methods belong to the event loop that spawned it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import inference
from inference.ipc import FrameError, FrameSplitter

KEPT_LINES = 200
_LINE_LIMIT = 4096
_BUFFER_BYTES = 1024 * 1024
_AFTER_EOF_S = 2.0
_STATUS_GRACE_S = 0.2
_DROPPED_VARIABLES = ("PYTHONWARNINGS", "PYTHONDEVMODE", "PYTHONASYNCIODEBUG")
_SECRET_PREFIX = "LMX_SECURITY__"


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Send ``make(n)`` every ``interval_s``; ``misses`` intervals without a byte from the child mean it is dead."""

    make: Callable[[int], bytes]
    interval_s: float
    misses: int


@dataclass(frozen=True, slots=True)
class ChildExit:
    """Why a child is dead, known at once. ``wanted``: its end had been asked for with ``stop``, ``kill`` or a drain."""

    cause: str
    wanted: bool


def child_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a child: ours without keys and developer switches, with our packages importable."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in _DROPPED_VARIABLES and not name.startswith(_SECRET_PREFIX)
    }
    root = str(Path(inference.__file__).resolve().parent.parent)
    inherited = environment.get("PYTHONPATH")
    environment["PYTHONPATH"] = root if not inherited else os.pathsep.join((root, inherited))
    environment["PYTHONUNBUFFERED"] = "1"
    environment["PYTHONFAULTHANDLER"] = "1"
    return environment | dict(extra or {})


def describe_return_code(code: int) -> str:
    """``exit code 3`` or ``signal 9 (SIGKILL)``."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {-code} ({signal.Signals(-code).name})"
    except ValueError:
        return f"signal {-code}"


def _enlarge_buffers(*pair: socket.socket) -> None:
    """macOS gives a Unix socket 8 KiB, less than one frame of a busy worker."""
    for end in pair:
        with contextlib.suppress(OSError):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)


class Child(asyncio.Protocol):
    """A running child. Make one with ``await Child.spawn(...)``."""

    def __init__(
        self,
        name: str,
        on_frame: Callable[[bytes], None],
        on_exit: Callable[[ChildExit], None],
        on_line: Callable[[str], None] | None,
        heartbeat: Heartbeat | None,
    ) -> None:
        self.name = name
        self.pid = 0
        self.recent_lines: deque[str] = deque(maxlen=KEPT_LINES)
        self.return_code: int | None = None
        self._on_frame = on_frame
        self._on_exit = on_exit
        self._on_line = on_line
        self._heartbeat = heartbeat
        self._splitter = FrameSplitter()
        self._transport: asyncio.WriteTransport | None = None
        self.death: ChildExit | None = None
        self._wanted = False
        self._heard = True
        self.missed = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._timers: list[asyncio.TimerHandle] = []
        loop = asyncio.get_running_loop()
        self._eof: asyncio.Future[None] = loop.create_future()
        self._gone: asyncio.Future[None] = loop.create_future()

    @classmethod
    async def spawn(
        cls,
        argv: Sequence[str],
        *,
        name: str,
        on_frame: Callable[[bytes], None],
        on_exit: Callable[[ChildExit], None],
        on_line: Callable[[str], None] | None = None,
        env: Mapping[str, str] | None = None,
        heartbeat: Heartbeat | None = None,
    ) -> Self:
        """Start ``argv``, in which ``{fd}`` becomes the number of the inherited socket. Raises ``OSError``.

        If the caller is cancelled meanwhile, the child is killed and reaped before the cancellation goes on.
        """
        child = cls(name, on_frame, on_exit, on_line, heartbeat)
        ours, theirs = socket.socketpair()
        _enlarge_buffers(ours, theirs)
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    *(part.replace("{fd}", str(theirs.fileno())) for part in argv),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.STDOUT,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                    env=child_environment(env),
                )
        except BaseException:
            ours.close()
            raise
        child.pid = process.pid
        try:
            await asyncio.get_running_loop().create_unix_connection(lambda: child, sock=ours)
        except BaseException:
            process.kill()
            ours.close()
            await process.wait()
            raise
        child._begin(process)
        return child

    @property
    def alive(self) -> bool:
        return self.death is None

    def send(self, frame: bytes) -> None:
        """Queue bytes for the child; dropped when it is dead."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame)

    def expect_exit(self) -> None:
        """From here on its end counts as wanted."""
        self._wanted = True

    def kill(self, cause: str | None = None) -> None:
        """SIGKILL to its whole session. With ``cause`` it counts as an unwanted death of that cause."""
        if cause is None:
            self._wanted = True
        self._signal(signal.SIGKILL)
        self._declare_dead(cause or "killed")

    async def wait(self) -> None:
        """Return once the process is reaped and its descriptors are closed."""
        await asyncio.shield(self._gone)

    async def stop(self, terminate_s: float) -> None:
        """SIGTERM, then SIGKILL after ``terminate_s`` seconds; return when it is gone."""
        self._wanted = True
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(terminate_s):
                await self.wait()
        except TimeoutError:
            self.kill()
            await self.wait()

    # ------------------------------------------------------------------------------------------ asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._heard = True
        if self.death is not None:
            return
        try:
            for body in self._splitter.feed(data):
                self._on_frame(body)
        except FrameError as error:
            self.kill(f"sent bytes that are not this protocol ({error})")

    def connection_lost(self, error: Exception | None) -> None:
        """End-of-file. The exit status usually follows within milliseconds and says more, so it gets a moment."""
        if not self._eof.done():
            self._eof.set_result(None)
        if self.return_code is not None:
            return
        loop = asyncio.get_running_loop()
        self._timers.append(loop.call_later(_STATUS_GRACE_S, self._declare_dead, "closed its connection"))
        self._timers.append(loop.call_later(_AFTER_EOF_S, self._signal, signal.SIGKILL))

    # ------------------------------------------------------------------------------------------------- internals

    def _begin(self, process: asyncio.subprocess.Process) -> None:
        self._start(self._watch(process), "watch")
        if self._heartbeat is not None:
            self._start(self._beat(self._heartbeat), "heartbeat")

    def _start(self, work: Coroutine[Any, Any, None], what: str) -> None:
        self._tasks.append(asyncio.create_task(work, name=f"{self.name} {what}"))

    def _signal(self, number: int) -> None:
        if self.return_code is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def _declare_dead(self, cause: str) -> None:
        """Tell ``on_exit`` once. The watcher goes on until the process is gone."""
        if self.death is None:
            self.death = ChildExit(cause, self._wanted)
            if self._transport is not None:
                self._transport.close()
            self._on_exit(self.death)

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        """Read the output, wait for the exit, read what the socket still holds, leave nothing behind."""
        assert process.stdout is not None
        output = asyncio.create_task(self._drain_output(process.stdout), name=f"{self.name} output")
        code = await process.wait()
        self._signal(signal.SIGKILL)
        self.return_code = code
        await asyncio.wait({output, self._eof}, timeout=_AFTER_EOF_S)
        output.cancel()
        self._declare_dead(describe_return_code(code))
        for timer in self._timers:
            timer.cancel()
        for task in self._tasks:
            if task is not asyncio.current_task():
                task.cancel()
        self._gone.set_result(None)

    async def _drain_output(self, stream: asyncio.StreamReader) -> None:
        rest = b""
        while data := await stream.read(65536):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                self._keep(line)
            rest = rest[-_LINE_LIMIT:]
        if rest:
            self._keep(rest)

    def _keep(self, raw: bytes) -> None:
        line = raw[:_LINE_LIMIT].decode(errors="replace").rstrip()
        self.recent_lines.append(line)
        if self._on_line is not None:
            self._on_line(line)

    async def _beat(self, heartbeat: Heartbeat) -> None:
        """Count our own ticks, not the clock: a machine that slept, or a busy loop here, is no fault of the child's."""
        number = 0
        while self.death is None:
            self._heard = False
            number += 1
            self.send(heartbeat.make(number))
            await asyncio.sleep(heartbeat.interval_s)
            self.missed = 0 if self._heard else self.missed + 1
            if self.missed >= heartbeat.misses:
                self.kill(f"missed {self.missed} heartbeats")
