"""Installs the engine that pip cannot bring as a dependency: vllm-mlx, without what its metadata asks for.

Its metadata wants an older mlx-lm, torch, gradio and opencv; everything that the text path really uses is a dependency
of this package already. So it is installed with ``--no-deps`` into the environment of the running interpreter.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata

from lmx_site import paths

# Seen in a process of its own: nothing of MLX may enter the one that serves.
_TRY = "import mlx.core, mlx_lm, vllm_mlx"


class SetupError(Exception):
    """The engine could not be installed or does not load; the text says what to do, in one line."""


def ensure_engine(say: Callable[[str], None]) -> bool:
    """Install the pinned engine if it is not there; True when something was installed. Cheap when nothing is missing.

    ``say`` gets one line before the wait begins. Raises ``SetupError``.
    """
    pin = paths.engine_pin()
    name, _, version = pin.partition("==")
    if installed_version(name) == version:
        return False
    say(f"Installing {name} {version}, the engine (once; a few MB, without the torch and gradio it asks for)")
    _run(_installer(pin), f"{pin} could not be installed; check the network, then run 'lmx setup' again")
    check_engine()
    return True


def check_engine() -> None:
    """Import the engine in a child process; raises ``SetupError`` with the last line of what it said."""
    _run([sys.executable, "-c", _TRY], "the engine is installed but does not load; 'pip install' this package again")


def installed_version(name: str) -> str | None:
    """The installed version of a distribution, None without one."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _installer(pin: str) -> list[str]:
    """The command that installs into this environment: its own pip, else uv for environments that have none."""
    if importlib.util.find_spec("pip") is not None:
        options = ["--quiet", "--no-input", "--disable-pip-version-check", "--no-deps"]
        return [sys.executable, "-m", "pip", "install", *options, pin]
    uv = shutil.which("uv")
    if uv is None:
        raise SetupError(f"this environment has no pip: install pip or uv, or put {pin} (--no-deps) into it yourself")
    return [uv, "pip", "install", "--quiet", "--no-deps", "--python", sys.executable, pin]


def _run(command: list[str], what: str) -> None:
    result = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if result.returncode == 0:
        return
    said = [line for line in result.stderr.strip().splitlines() if line and not line.startswith("WARNING")]
    reason = f" ({said[-1].strip()})" if said else ""
    raise SetupError(f"{what}{reason}")
