"""Readings of memory: one module per system behind ``inference.engine.contract.MemoryReader``.

All numbers are bytes. Readers may be called from any thread; none keeps state that a call could tear.
"""

from __future__ import annotations

import sys

from inference.engine.contract import MemoryReader
from monitoring.readings.capped import CappedReader


def open_reader(cap_bytes: int | None = None) -> MemoryReader:
    """The reader of this system. ``cap_bytes`` is a test aid: a machine of that size with only our children in it."""
    reader = _system_reader()
    return reader if cap_bytes is None else CappedReader(reader, cap_bytes)


def _system_reader() -> MemoryReader:
    if sys.platform == "darwin":
        from monitoring.readings.macos import MacReader

        return MacReader()
    from monitoring.readings.linux import LinuxReader

    return LinuxReader()
