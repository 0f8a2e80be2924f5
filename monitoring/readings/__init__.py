"""Readings of memory: one module per system behind ``inference.engine.contract.MemoryReader``.

All numbers are bytes. Readers may be called from any thread; none keeps state that a call could tear.
"""

from __future__ import annotations

import sys

from inference.engine.contract import MemoryReader


def open_reader() -> MemoryReader:
    """The reader of this system."""
    if sys.platform == "darwin":
        from monitoring.readings.macos import MacReader

        return MacReader()
    from monitoring.readings.linux import LinuxReader

    return LinuxReader()
