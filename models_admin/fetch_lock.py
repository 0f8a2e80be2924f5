"""One program at a time in the place of a model: what fetches it, deletes it, or puts it back."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

_LONGEST = 240
"""Bytes of a name to which something can still be added."""


@contextlib.contextmanager
def locked(model: Path, patience_s: float = 0.0) -> Iterator[FileLock]:
    """Hold the lock of the model in that directory. ``filelock.Timeout`` when another holds it for ``patience_s``,
    ``FileNotFoundError`` where the directory above it is gone: the lock would make it anew, on whatever disk."""
    if not model.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(model.parent))
    name = model.name if len(model.name.encode()) < _LONGEST else hashlib.sha256(model.name.encode()).hexdigest()
    lock = FileLock(model.with_name(f".{name}.lock"))
    lock.acquire(timeout=patience_s)
    try:
        yield lock
    finally:
        lock.release()
