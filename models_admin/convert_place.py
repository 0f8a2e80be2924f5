"""Where a conversion works, what it will take, and what it is called. No MLX."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from filelock import Timeout

from inference.errors import InvalidRequest
from inference.keeping import ConvertTo
from inference.model_files import read_weights
from models_admin.fetch_lock import locked
from models_admin.gguf_header import GgufHeader

CONVERTING = ".lmx-converting"
ORG = "local"
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
_WIDTH = re.compile(r"[-._](\d+bit|bf16|f16|fp16|f32|q\d+_[a-z0-9_]+|mlx|gguf)$", re.IGNORECASE)
_SHARD_BYTES = 2 << 30
_RUNTIME_BYTES = 512 << 20
_FLOAT = 4
_SLACK = 1.05


@dataclass(frozen=True, slots=True)
class Needs:
    """In bytes: what the result and what is made on the way take on the disk, and the memory at its highest."""

    disk: int
    memory: int


def converting(target: Path) -> Path:
    """Where ``target`` is while it is made."""
    return target.with_name(f".{target.name}{CONVERTING}")


def sweep(models: Path) -> None:
    """Delete what conversions that were killed have left, but of those that another server has under way."""
    for place in _left(models / ORG):
        target = place.with_name(place.name.removeprefix(".").removesuffix(CONVERTING))
        try:
            with locked(target):
                shutil.rmtree(place, ignore_errors=True)
        except (Timeout, OSError):
            continue


def _left(directory: Path) -> Iterable[Path]:
    try:
        with os.scandir(directory) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []
    return [directory / name for name in names if name.startswith(".") and name.endswith(CONVERTING)]


def result_name(source: str, bits: int | None, wanted: str | None) -> str:
    """What the result is called, without its organisation. Raises ``InvalidRequest``."""
    if wanted is None:
        base = source.rsplit("/", 1)[-1].removesuffix(".gguf")
        while (shorter := _WIDTH.sub("", base)) != base:
            base = shorter
        base = re.sub(r"[^A-Za-z0-9._-]+|-{2,}", "-", base).strip("-._")[:70] or "model"
        wanted = f"{base}-{bits}bit-mlx" if bits else f"{base}-mlx"
    if not _NAME.fullmatch(wanted) or ".." in wanted or "--" in wanted:
        raise InvalidRequest(
            f"{wanted[:120]!r} is no name for a model: letters, digits, '.', '_' and '-', 96 at most; it becomes "
            f"{ORG}/NAME",
            param="name",
        )
    return wanted


def needs_of_model(directory: Path, to: ConvertTo) -> Needs:
    """Of a quantised copy. Raises ``inference.model_files.Unusable`` or ``OSError``."""
    tensors = [one for header in read_weights(directory, set(os.listdir(directory))) for one in header.tensors.values()]
    # Packed numbers are counted as 4 bits each.
    counts = [count * (8 if dtype == "U32" else 1) for dtype, count in tensors]
    disk, largest = _packed(sum(counts), to), max(counts, default=0)
    # One shard of the result, and its largest tensor as it comes, as numbers that can be scaled, and packed.
    return Needs(disk, min(disk, _SHARD_BYTES + largest) + 3 * largest * _FLOAT + _RUNTIME_BYTES)


def needs_of_gguf(header: GgufHeader, to: ConvertTo) -> Needs:
    """Of an MLX model made of the file, which is read whole."""
    if to.bits is None:
        made = int(header.size * 1.4)  # its scales and norms are halves, and may become floats
        return Needs(made, header.size + 2 * made + _RUNTIME_BYTES)
    plain = header.elements * _FLOAT
    return Needs(plain + _packed(header.elements, to), 2 * header.size + 2 * plain + _RUNTIME_BYTES)


def _packed(elements: int, to: ConvertTo) -> int:
    bits = to.bits or 32
    # A scale and a bias for each group.
    return int(elements * (bits / 8 + 2 * _FLOAT / (to.group_size or 64)) * _SLACK)
