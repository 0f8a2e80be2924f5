"""Sizes and times of files as the inventory keeps them: within what a database's integer holds."""

from __future__ import annotations

import os

_MOST = (1 << 63) - 1


def bounded(number: int) -> int:
    """The nearest integer of 64 bits. A file system can tell of more (a time past 2262, in nanoseconds)."""
    return max(-_MOST, min(number, _MOST))


def stamp_of(status: os.stat_result) -> tuple[int, int]:
    """Size in bytes and modification time in nanoseconds. Whatever is compared to a record is read by this."""
    return bounded(status.st_size), bounded(status.st_mtime_ns)
