"""The header of a GGUF file, read without MLX: what model it is, and how large its tensors are. Never its weights.

A file is: ``GGUF``, version, counts, metadata (key, type, value), then an entry per tensor (name, shape, type, offset).
Everything is bounded; a file that is something else is a sentence for people.
"""

from __future__ import annotations

import math
import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_MAX_COUNT = 10_000_000
_MAX_TEXT = 1 << 24
_STRING, _ARRAY = 8, 9
_WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_KINDS = {0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1", 10: "Q2_K"}
_KINDS |= {11: "Q3_K", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 30: "BF16"}
READABLE = frozenset({"F32", "F16", "Q4_0", "Q4_1", "Q8_0"})
"""Kinds of tensors that are converted."""

OWN_BITS = {"Q4_0": 4, "Q4_1": 4, "Q8_0": 8}


class BadGguf(Exception):
    """The file is not a GGUF that can be read; the message is the sentence to show, without the file's name."""


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """``size`` is the file's in bytes; ``elements`` are those of all tensors, ``kinds`` counts them by type."""

    architecture: str
    size: int
    elements: int
    kinds: dict[str, int]

    @property
    def own_bits(self) -> int | None:
        """The width that most of its weights have; None when they are no integers."""
        kind = max(self.kinds, key=lambda one: self.kinds[one], default="")
        return OWN_BITS.get(kind)


def read_gguf(path: Path) -> GgufHeader:
    """Raises ``BadGguf`` or ``OSError``."""
    # A pipe would keep the caller for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise BadGguf("is not a regular file")
        try:
            return _read(file, os.fstat(descriptor).st_size)
        except (struct.error, EOFError, UnicodeDecodeError, OverflowError) as error:
            raise BadGguf("is cut off, or its header is damaged") from error


def _read(file: BinaryIO, length: int) -> GgufHeader:
    if _exactly(file, 4) != b"GGUF":
        raise BadGguf("is not a GGUF file")
    version, tensors, entries = struct.unpack("<IQQ", _exactly(file, 20))
    if version not in (2, 3) or tensors > _MAX_COUNT or entries > _MAX_COUNT:
        raise BadGguf(f"has a header of version {version} that cannot be read")
    architecture = ""
    for _ in range(entries):
        key = _text(file)
        value = _value(file, _number(file))
        if key == "general.architecture" and value is not None:
            architecture = value
    kinds = dict[str, int]()
    for _ in range(tensors):
        _text(file)
        dimensions = _number(file)
        if dimensions > 8:
            raise BadGguf("has a tensor of more than 8 dimensions")
        size = math.prod(struct.unpack(f"<{dimensions}Q", _exactly(file, 8 * dimensions)))
        kind = _number(file)
        _exactly(file, 8)
        name = _KINDS.get(kind, f"type {kind}")
        kinds[name] = kinds.get(name, 0) + size
    return GgufHeader(architecture, length, sum(kinds.values()), kinds)


def _value(file: BinaryIO, kind: int) -> str | None:
    """Pass over one value; a text is returned."""
    if kind == _STRING:
        return _text(file)
    if kind == _ARRAY:
        inner, count = struct.unpack("<IQ", _exactly(file, 12))
        if count > _MAX_COUNT:
            raise BadGguf("has an array that no real one is")
        if inner == _STRING:
            for _ in range(count):
                _text(file)
        else:
            file.seek(count * _width(inner), os.SEEK_CUR)
        return None
    _exactly(file, _width(kind))
    return None


def _width(kind: int) -> int:
    if kind not in _WIDTHS:
        raise BadGguf(f"has metadata of the unknown type {kind}")
    return _WIDTHS[kind]


def _text(file: BinaryIO) -> str:
    (length,) = struct.unpack("<Q", _exactly(file, 8))
    if length > _MAX_TEXT:
        raise BadGguf("has a text that no real one is")
    return _exactly(file, length).decode("utf-8", errors="replace")


def _number(file: BinaryIO) -> int:
    (number,) = struct.unpack("<I", _exactly(file, 4))
    return int(number)


def _exactly(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) < count:
        raise EOFError
    return data
