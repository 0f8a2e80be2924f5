"""Exit codes of the worker program."""

from __future__ import annotations

from inference.lifeline import EXIT_PARENT_GONE

EXIT_CLEAN = 0
EXIT_USAGE = 2
EXIT_LOAD_FAILED = 3
EXIT_DEFECT = 4
EXIT_BAD_FRAME = 6

__all__ = ["EXIT_BAD_FRAME", "EXIT_CLEAN", "EXIT_DEFECT", "EXIT_LOAD_FAILED", "EXIT_PARENT_GONE", "EXIT_USAGE"]
