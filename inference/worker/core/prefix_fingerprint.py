"""Tells models apart whose cached prefixes must not be mixed up, by their files and by what computes with them."""

from __future__ import annotations

import importlib.metadata
import os
from hashlib import blake2b
from pathlib import Path
from typing import Any

from inference.worker.core.prefix_file import FORMAT

_SMALL = ("config.json", "tokenizer.json", "tokenizer_config.json")
_PACKAGES = ("mlx", "mlx-lm")
_MAX_WHOLE = 64 * 1024 * 1024
_SAMPLES = 64
_SAMPLE = 4096


def fingerprint(model_dir: Path, layout: str) -> str:
    """40 hexadecimal digits; ``layout`` says what the model's caches look like. ``OSError`` if files cannot be read.

    Small files count with all they contain; of the weights, names, sizes, times, and samples all over them: they are
    too large to be read for this alone.
    """
    digest = blake2b(digest_size=20)
    parts = [str(FORMAT), layout, *(f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES)]
    digest.update("\n".join(parts).encode())
    for name in _SMALL:
        path = model_dir / name
        if path.is_file():
            digest.update(f"\n{name} {path.stat().st_size}\n".encode())
            with path.open("rb") as file:
                digest.update(file.read(_MAX_WHOLE))
    for path in sorted(model_dir.glob("*.safetensors")):
        _add_weights(digest, path)
    return digest.hexdigest()


def _add_weights(digest: Any, path: Path) -> None:
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        digest.update(f"\n{path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
        for sample in range(_SAMPLES):
            file.seek(sample * max(status.st_size - _SAMPLE, 0) // max(_SAMPLES - 1, 1))
            digest.update(file.read(_SAMPLE))
