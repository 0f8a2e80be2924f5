"""A child that dies with its parent, for model workers and job programs alike.

The first guarantee is the socket: its reader ends the process at end-of-file. This module adds the kernel's own
notice for the time before the socket is read, or while its reader cannot run. macOS' branch has been checked against
its documentation only, never on a Mac.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
import threading

EXIT_PARENT_GONE = 5
"""How a child ends whose parent is gone."""

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Ask the kernel to end this process when its parent goes; ignore Ctrl-C, which is for the parent to handle.

    Call it first thing, on the main thread. A parent that is already gone ends the process at once. Linux ties the
    notice to the *thread* that forked, so children are started from one that lives as long as the parent.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if sys.platform == "darwin":
        threading.Thread(target=_watch_parent, args=(parent,), name="parent-watch", daemon=True).start()
    if os.getppid() != parent:
        os._exit(EXIT_PARENT_GONE)


def _watch_parent(parent: int) -> None:
    """Wait for the parent's exit with kqueue (macOS)."""
    if sys.platform == "darwin":
        queue = select.kqueue()
        watch = select.kevent(
            parent,
            filter=select.KQ_FILTER_PROC,
            flags=select.KQ_EV_ADD | select.KQ_EV_ONESHOT,
            fflags=select.KQ_NOTE_EXIT,
        )
        with contextlib.suppress(ProcessLookupError):
            queue.control([watch], 1, None)
        os._exit(EXIT_PARENT_GONE)
