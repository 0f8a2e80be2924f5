"""Models for tests and benchmarks: made once per machine, the same everywhere, without a network.

``tiny_model()`` and ``nano_model()`` give a directory that mlx-lm loads; ``broken_models(root)`` makes one directory
per defect that a scan or a load must survive; ``models_dir(root)`` fills a models directory with good ones;
``encoder_model(architecture)`` gives an embedding model; ``spoken_model(directory, pieces)`` makes one that says what
it is told. Everything is made by a child process (``tests.material.make``, ``tests.material.encoder``), so that the
caller imports neither MLX nor numpy.

The random models never produce a special token, hence never stop by themselves (see ``make.weights``): their answers
run to ``max_tokens``, and a test that wants an early end biases ``EOS_TOKEN_ID`` or gives a stop string.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from tests.material.broken import broken_models
from tests.material.spoken import spoken_model

EOS_TOKEN_ID = 2
"""``<|im_end|>`` of tiny and nano."""

_ROOT = Path(__file__).resolve().parents[2]

__all__ = [
    "EOS_TOKEN_ID",
    "broken_models",
    "encoder_model",
    "models_dir",
    "nano_model",
    "place",
    "spoken_model",
    "tiny_model",
]


@cache
def tiny_model() -> Path:
    """Llama, 2 layers, hidden 64, vocabulary 49152, float32, context 2048, chat template; about 27 MB."""
    return _made("tiny")


@cache
def nano_model() -> Path:
    """Llama, 1 layer, hidden 32, vocabulary 512, float32, context 2048, chat template; about 200 KB."""
    return _made("nano")


@cache
def encoder_model(architecture: str = "bert") -> Path:
    """A random embedding model, 4 layers, hidden 64, vocabulary 300, mean pooling, inputs of 64 tokens; under 1 MB."""
    return _made(architecture, "tests.material.encoder")


def models_dir(root: Path, *names: str) -> Path:
    """Fill ``root`` with the models named (``tiny``, ``nano``; both when none is named) and return it."""
    makers: dict[str, Callable[[], Path]] = {"tiny": tiny_model, "nano": nano_model}
    for name in names or makers:
        place(makers[name](), root / name)
    return root


def place(source: Path, target: Path) -> Path:
    """Put the files of ``source`` at ``target``, by hard link where the file system allows it, else by copy."""
    target.mkdir(parents=True, exist_ok=True)
    for file in source.iterdir():
        if file.is_dir():
            place(file, target / file.name)
            continue
        try:
            os.link(file, target / file.name)
        except OSError:
            shutil.copy2(file, target / file.name)
    return target


def _made(kind: str, maker: str = "tests.material.make") -> Path:
    """The directory of ``kind`` in this machine's cache; makes it if it is not there. Safe to call from many tests."""
    target = _cache() / kind
    if target.is_dir():
        return target
    with tempfile.TemporaryDirectory(dir=_cache()) as scratch:
        made = Path(scratch) / kind
        command = [sys.executable, "-m", maker, kind, str(made)]
        done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode:
            raise RuntimeError(f"the maker of {kind} failed: {done.stderr[-2000:]}")
        try:
            made.rename(target)
        except OSError:
            if not target.is_dir():  # else: another test process was first, and its copy is as good
                raise
    return target


@cache
def _cache() -> Path:
    """A directory named after the makers' source, so that a change of theirs is never answered with old material."""
    here = Path(__file__).parent
    source = b"".join((here / name).read_bytes() for name in ("make.py", "tokenizer.py", "encoder.py"))
    stamp = hashlib.sha256(source).hexdigest()[:12]
    path = Path(tempfile.gettempdir()) / f"opta-lmx-material-{os.getuid()}-{stamp}"
    path.mkdir(mode=0o700, exist_ok=True)
    return path
