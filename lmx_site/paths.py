"""Where things are: ``LMX_HOME`` with everything the server keeps, and the files that come with the program."""

from __future__ import annotations

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def home() -> Path:
    """``$LMX_HOME``, else ``~/.opta-lmx``: absolute, not created here."""
    return Path(os.environ.get("LMX_HOME") or "~/.opta-lmx").expanduser().absolute()


def assets() -> Path:
    """The folder of ``templates/`` and ``static/``: the package's own in an installed wheel, else the checkout."""
    packed = _PACKAGE / "assets"
    return packed if packed.is_dir() else _PACKAGE.parent


def server_file(folder: Path) -> Path:
    """``run/server.json`` under that home: ``{"pid", "host", "port", "url"}`` of the server that runs there."""
    return folder / "run" / "server.json"


def engine_pins() -> list[str]:
    """What is installed without its dependencies, the engine first: ``vllm-mlx==0.6.0``, ``mlx-embeddings==0.1.0``."""
    packed = _PACKAGE / "assets" / "engine.txt"
    listed = packed if packed.is_file() else _PACKAGE.parent / "requirements" / "engine.txt"
    lines = (line.partition("#")[0].strip() for line in listed.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line]
