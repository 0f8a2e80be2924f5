"""The real small models, brought once per machine by the demo job; tests that use them are marked slow."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import pytest

_ROOT = Path(__file__).resolve().parents[3]


@cache
def smollm2() -> Path:
    """SmolLM2-135M-Instruct in MLX's format (float32, 0.5 GB); skips the test where it cannot be brought."""
    return _brought()


def _brought(*options: str) -> Path:
    home = Path(tempfile.gettempdir()) / f"opta-lmx-demo-{os.getuid()}"
    home.mkdir(mode=0o700, exist_ok=True)
    command = [sys.executable, "-m", "models_admin.demo", "--home", str(home), *options]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        pytest.skip(f"the demo model could not be brought: {done.stderr.strip().splitlines()[-1:]}")
    return Path(done.stdout.strip().splitlines()[-1])


@cache
def minilm() -> Path:
    """all-MiniLM-L6-v2 as published (float32, 90 MB), an embedding model; skips the test where it cannot be brought."""
    return _brought("--embeddings")
