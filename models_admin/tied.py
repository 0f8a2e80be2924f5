"""Runs another module's main program, tied to the process that started it: ``python -m models_admin.tied PID MODULE``.

A job's own child (pip) cannot be asked to watch its parent; this does it in its place, before it hands over.
"""

from __future__ import annotations

import os
import runpy
import sys

from inference.lifeline import EXIT_PARENT_GONE, die_with_parent


def tied_command(module: str, *arguments: str) -> list[str]:
    """The command that runs ``python -m module`` so that it dies with this process."""
    # -P: what lies in the working directory must not stand in for the module.
    return [sys.executable, "-P", "-m", "models_admin.tied", str(os.getpid()), module, *arguments]


if __name__ == "__main__":
    die_with_parent()
    if os.getppid() != int(sys.argv[1]):
        sys.exit(EXIT_PARENT_GONE)
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
