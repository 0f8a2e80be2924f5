"""Installs what pip cannot bring as a dependency: vllm-mlx and mlx-embeddings, without what their metadata ask for.

They want an older mlx-lm, torch, gradio and opencv; everything that is really used of them is a dependency
of this package already. So they are installed with ``--no-deps`` into the environment of the running interpreter.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata

from lmx_site import paths

# Seen in a process of its own: nothing of MLX may enter the one that serves. mlx-embeddings is only looked for, as
# importing the whole package needs mlx-vlm, which is not here.
_TRY = (
    "import importlib.util, sys, mlx.core, mlx_lm, vllm_mlx; sys.exit(not importlib.util.find_spec('mlx_embeddings'))"
)


class SetupError(Exception):
    """The engine could not be installed or does not load; the text says what to do, in one line."""


def ensure_engine(say: Callable[[str], None]) -> bool:
    """Install the pins that are not there; True when something was installed. Cheap when nothing is missing.

    ``say`` gets one line before the wait begins. Raises ``SetupError``.
    """
    pins = [pin for pin in paths.engine_pins() if not _is_installed(pin)]
    if not pins:
        return False
    names = " and ".join(pin.replace("==", " ") for pin in pins)
    say(f"Installing {names} (once; a few MB, without the torch and gradio that they ask for)")
    what = " and ".join(pins)
    _run(_installer(pins), f"{what} could not be installed; check the network, then run 'lmx setup' again")
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


def _is_installed(pin: str) -> bool:
    name, _, version = pin.partition("==")
    return installed_version(name) == version


def _installer(pins: list[str]) -> list[str]:
    """The command that installs into this environment: its own pip, else uv for environments that have none."""
    if importlib.util.find_spec("pip") is not None:
        options = ["--quiet", "--no-input", "--disable-pip-version-check", "--no-deps"]
        return [sys.executable, "-m", "pip", "install", *options, *pins]
    uv = shutil.which("uv")
    if uv is None:
        what = " and ".join(pins)
        raise SetupError(f"this environment has no pip: install pip or uv, or put {what} (--no-deps) into it yourself")
    return [uv, "pip", "install", "--quiet", "--no-deps", "--python", sys.executable, *pins]


def _run(command: list[str], what: str) -> None:
    result = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if result.returncode == 0:
        return
    said = [line for line in result.stderr.strip().splitlines() if line and not line.startswith("WARNING")]
    reason = f" ({said[-1].strip()})" if said else ""
    raise SetupError(f"{what}{reason}")
