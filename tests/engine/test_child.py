"""The class of child process, with small programs instead of workers."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import textwrap

import psutil
import pytest

from inference.engine.child import Child, ChildExit, Heartbeat, child_environment, describe_return_code
from tests.engine.conftest import open_descriptors, until


class Watch:
    """A child running ``program`` and everything it said."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.lines: list[str] = []
        self.exits: list[ChildExit] = []
        self.child: Child

    async def run(self, program: str, heartbeat: Heartbeat | None = None) -> Child:
        argv = [sys.executable, "-c", textwrap.dedent(program), "{fd}"]
        self.child = await Child.spawn(
            argv,
            name="test",
            on_frame=self.frames.append,
            on_exit=self.exits.append,
            on_line=self.lines.append,
            heartbeat=heartbeat,
        )
        return self.child


CONNECT = "import os, signal, socket, sys, time; s = socket.socket(fileno=int(sys.argv[1]));"


async def test_it_works() -> None:
    before = open_descriptors()
    watch = Watch()
    child = await watch.run(CONNECT + "d = s.recv(100); print('got', d, flush=True); s.sendall(b'\\0\\0\\0\\2ab')")
    child.send(b"hello")
    await child.wait()
    assert watch.lines == ["got b'hello'"]
    assert watch.frames == [b"ab"]
    assert [exit.cause for exit in watch.exits] == ["exit code 0"]
    assert child.return_code == 0
    assert not psutil.pid_exists(child.pid)
    await until(lambda: open_descriptors() <= before + 1)


async def test_last_frames_before_the_exit_are_read() -> None:
    watch = Watch()
    child = await watch.run(CONNECT + "s.sendall(b'\\0\\0\\0\\2ab' * 20000); os._exit(0)")
    await child.wait()
    assert len(watch.frames) == 20000


async def test_end_of_file_is_death_though_the_process_stays() -> None:
    watch = Watch()
    child = await watch.run(CONNECT + "s.close(); time.sleep(600)")
    await child.wait()
    assert watch.exits == [ChildExit("closed its connection", wanted=False)]
    assert child.return_code == -signal.SIGKILL


async def test_stop_kills_what_ignores_sigterm() -> None:
    watch = Watch()
    ignore = "signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"
    child = await watch.run(CONNECT + ignore)
    await until(lambda: watch.lines == ["ready"])
    await child.stop(0.05)
    assert child.return_code == -signal.SIGKILL
    assert watch.exits == [ChildExit("killed", wanted=True)]


async def test_its_own_children_go_with_it() -> None:
    watch = Watch()
    child = await watch.run(
        CONNECT + "import subprocess; p = subprocess.Popen(['sleep', '600']); print(p.pid, flush=True); time.sleep(600)"
    )
    await until(lambda: bool(watch.lines))
    child.kill()
    await child.wait()
    await until(lambda: not psutil.pid_exists(int(watch.lines[0])) or _zombie(int(watch.lines[0])))


def _zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def test_missed_heartbeats() -> None:
    watch = Watch()
    child = await watch.run(CONNECT + "time.sleep(600)", Heartbeat(lambda n: b"ping", 0.02, 4))
    await child.wait()
    assert watch.exits == [ChildExit("missed 4 heartbeats", wanted=False)]


async def test_bytes_that_are_no_frames() -> None:
    watch = Watch()
    child = await watch.run(CONNECT + "s.sendall(b'\\xff' * 100); time.sleep(600)")
    await child.wait()
    assert "not this protocol" in watch.exits[0].cause


async def test_keeps_the_last_lines_and_cuts_long_ones() -> None:
    watch = Watch()
    child = await watch.run("for i in range(500): print(i)\nprint('x' * 100000)")
    await child.wait()
    assert len(child.recent_lines) == 200
    assert child.recent_lines[-2] == "499"
    assert len(child.recent_lines[-1]) == 4096


async def test_a_program_that_does_not_exist() -> None:
    before = open_descriptors()
    with pytest.raises(FileNotFoundError):
        await Child.spawn(["/no/such/program"], name="none", on_frame=lambda b: None, on_exit=lambda e: None)
    await until(lambda: open_descriptors() <= before + 1)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_inherits_nothing_but_its_socket() -> None:
    watch = Watch()
    read, write = os.pipe()
    os.set_inheritable(write, True)
    try:
        child = await watch.run(
            "import os; print(sorted(os.listdir('/proc/self/fd'), key=int), os.getsid(0) == os.getpid())"
        )
        await child.wait()
    finally:
        os.close(read)
        os.close(write)
    assert len(watch.lines[0].split(",")) == 5  # standard three, the socket, the directory just read
    assert watch.lines[0].endswith("True")


def test_environment_has_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMX_SECURITY__ADMIN_KEY", "secret")
    monkeypatch.setenv("PYTHONDEVMODE", "1")
    environment = child_environment({"EXTRA": "1"})
    assert "secret" not in environment.values()
    assert "PYTHONDEVMODE" not in environment
    assert environment["EXTRA"] == "1"


def test_return_codes_in_words() -> None:
    assert describe_return_code(3) == "exit code 3"
    assert describe_return_code(-9) == "signal 9 (SIGKILL)"
    assert describe_return_code(-99) == "signal 99"


async def test_cancelled_spawn_leaves_nothing() -> None:
    before = open_descriptors()
    watch = Watch()
    spawning = asyncio.create_task(watch.run(CONNECT + "time.sleep(600)"))
    await asyncio.sleep(0)
    spawning.cancel()
    with pytest.raises(asyncio.CancelledError):
        await spawning
    await until(lambda: open_descriptors() <= before + 1)
    assert not [c for c in psutil.Process().children() if "time.sleep(600)" in " ".join(c.cmdline())]
