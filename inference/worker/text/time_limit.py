"""A limit on how long Python code of somebody else's, such as a model's chat template, may run in this thread."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class TookTooLong(Exception):
    """Raised inside the code that ran too long, between two of its bytecode instructions."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise ``TookTooLong`` in the block when it runs longer. A single call into C is not interrupted."""
    thread, lock, over = threading.get_ident(), threading.Lock(), False

    def strike() -> None:
        with lock:
            if not over:
                _raise_in(thread, TookTooLong)

    timer = threading.Timer(seconds, strike)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        with lock:
            over = True
            _raise_in(thread, None)  # takes back what was sent in the last moment and has not arrived


def _raise_in(thread: int, error: type[Exception] | None) -> None:
    argument = None if error is None else ctypes.py_object(error)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), argument)
