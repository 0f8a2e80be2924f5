"""The header of a safetensors file, read without loading a tensor.

A file is: 8 bytes little-endian header length, that many bytes of JSON (name -> dtype, shape, data_offsets), data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

MAX_HEADER_BYTES = 100_000_000
"""The format's own limit."""

_BITS = {"F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16, "U16": 16}
_BITS |= {"I8": 8, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}
_BITS |= {"C64": 64}


class BadSafetensors(Exception):
    """The file is not whole or not safetensors; the message says why, for people, without the file's name."""


class CutOff(BadSafetensors):
    """The file ends before its data does."""


@dataclass(frozen=True, slots=True)
class Header:
    """``data_bytes`` is the size of the tensors; ``bytes_by_dtype`` splits it by the format's dtype names.

    ``tensors`` has the dtype and the number of elements of each tensor by its name.
    """

    data_bytes: int
    bytes_by_dtype: dict[str, int]
    names: frozenset[str]
    tensors: dict[str, tuple[str, int]] = field(default_factory=dict)


def read_header(path: Path) -> Header:
    """Read and check the header against the file's size. Raises ``BadSafetensors`` or ``OSError``."""
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        if len(prefix) < 8:
            raise CutOff(f"is cut off: it has only {size} bytes")
        length = int.from_bytes(prefix, "little")
        if length > MAX_HEADER_BYTES:
            raise BadSafetensors("is not a safetensors file")
        if 8 + length > size:
            raise CutOff(f"is cut off inside its header: {size} of {8 + length} bytes or more")
        raw = file.read(length)
    header = _header(raw)
    expected = 8 + length + header.data_bytes
    if size < expected:
        raise CutOff(f"is cut off: {size} of {expected} bytes")
    if size > expected:
        raise BadSafetensors(f"is longer than its header says: {size} instead of {expected} bytes")
    return header


def _header(raw: bytes) -> Header:
    try:
        entries = msgspec.json.decode(raw, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise BadSafetensors("has a header that is not valid JSON") from error
    entries.pop("__metadata__", None)
    end, by_dtype, tensors = 0, dict[str, int](), dict[str, tuple[str, int]]()
    for name, entry in entries.items():
        dtype, size, tensor_end, elements = _tensor(name, entry)
        tensors[name] = (dtype, elements)
        by_dtype[dtype] = by_dtype.get(dtype, 0) + size
        end = max(end, tensor_end)
    if end != sum(by_dtype.values()):
        raise BadSafetensors("has a header whose tensors overlap or leave gaps")
    return Header(end, by_dtype, frozenset(entries), tensors)


def _tensor(name: str, entry: object) -> tuple[str, int, int, int]:
    """Dtype, bytes, end offset and number of elements of one tensor."""
    match entry:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [int(start), int(end)]}:
            pass
        case _:
            raise BadSafetensors(f"has a malformed header entry for tensor {name[:80]!r}")
    whole = all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 2**48 for n in shape)
    if not whole or len(shape) > 16 or not 0 <= start <= end < 2**60:
        raise BadSafetensors(f"has an impossible shape or place for tensor {name[:80]!r}")
    bits = _BITS.get(dtype)
    if bits is not None and math.prod(shape) * bits != (end - start) * 8:
        raise BadSafetensors(f"gives tensor {name[:80]!r} a size that its shape contradicts")
    return dtype, end - start, end, math.prod(shape)
