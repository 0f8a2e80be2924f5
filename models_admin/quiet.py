"""Work that is nobody's hurry: it runs at the lowest priority, and stands still while the engine is busy.

Server and child share a lock file. The server holds it alone while the engine is busy; the child asks for its share of
it between two pieces of work, and the kernel lets it wait. Either's death gives the lock back.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

_NICEST = 19
_DISK, _PROCESS, _THROTTLE = 0, 0, 3
"""Of macOS' ``setiopolicy_np``."""


class Gate:
    """The server's side, for the event loop: neither method waits."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    @property
    def closed(self) -> bool:
        return self._descriptor is not None

    def close(self) -> bool:
        """Let children wait from now on. False: one is just passing; try again."""
        if self._descriptor is not None:
            return True
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise
            return False
        self._descriptor = descriptor
        return True

    def open(self) -> None:
        """Let them go on."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class Passage:
    """The child's side. Without a ``path`` nothing ever waits."""

    def __init__(self, path: str | None) -> None:
        self._descriptor: int | None = None
        if path:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def wait(self) -> None:
        """Return when the gate is open."""
        if self._descriptor is not None:
            fcntl.flock(self._descriptor, fcntl.LOCK_SH)
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def end(self) -> None:
        """Give the file back."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


@contextlib.contextmanager
def passage(path: str | None) -> Iterator[Passage]:
    """A ``Passage`` for one piece of work; with a path the process becomes quiet."""
    if path:
        be_quiet()
    found = Passage(path)
    try:
        yield found
    finally:
        found.end()


def be_quiet() -> None:
    """Give this process the lowest priority, for the processor and for the disk; there is no way back."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, _NICEST)
    if sys.platform == "darwin":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).setiopolicy_np(_DISK, _PROCESS, _THROTTLE)
    else:
        with contextlib.suppress(psutil.Error, OSError, AttributeError):
            psutil.Process().ionice(psutil.IOPRIO_CLASS_IDLE)


def keep_no_pages(descriptor: int) -> None:
    """What is read once must not push out of memory what is used: the pages of loaded models."""
    with contextlib.suppress(OSError, AttributeError):
        if sys.platform == "darwin":
            fcntl.fcntl(descriptor, fcntl.F_NOCACHE, 1)
        else:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
