"""The file format of a cached prefix: prelude, header, arrays. See ``prefix_store`` for what becomes of the files."""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import mlx.core as mx
import msgspec
import numpy as np
from numpy.typing import NDArray

FORMAT = 1
"""Grows with every change to what a file means."""

_MAGIC = b"LMXPREFX"
_PRELUDE = struct.Struct("<8sIQ32s")
_MAX_HEADER = 64 * 1024 * 1024
_MAX_DEPTH = 16
_BLOCK = 4 * 1024 * 1024
_HASHING = 4
_DTYPES: dict[str, mx.Dtype] = {
    name: getattr(mx, name)
    for name in (
        *("bool_", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
        *("float16", "bfloat16", "float32", "complex64"),
    )
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


class BadFile(Exception):
    """The file is damaged, cut off, or was never one of ours."""


class OutOfTime(Exception):
    """There is no more time to write."""


Stop: TypeAlias = Callable[[], bool]
"""Whether to give up."""


@dataclass(slots=True)
class Layer:
    """The state of one cache: ``state`` and ``meta`` are arrays, numbers, texts and None in lists and tuples."""

    name: str
    state: Any
    meta: Any = None


class _Array(msgspec.Struct, array_like=True):
    dtype: str
    shape: list[int]


class _Layer(msgspec.Struct, array_like=True):
    """``state`` and ``meta``: an array as ["a", its number], a list or tuple as ["l" or "t", ...], else ["v", x]."""

    name: str
    state: list[Any]
    meta: list[Any]


class Header(msgspec.Struct):
    """``tokens`` are int32, little-endian; ``digest`` is that of all arrays, which are ``nbytes`` long together."""

    format: int
    fingerprint: str
    cuttable: bool
    tokens: bytes
    layers: list[_Layer]
    arrays: list[_Array]
    digest: bytes
    nbytes: int


@dataclass(slots=True)
class Stored:
    """An entry as it was read, in ordinary memory, which is given back as it is converted to MLX's.

    ``convert`` and ``layers`` are for the thread that uses the arrays.
    """

    header: Header
    buffers: list[NDArray[np.uint8]]
    arrays: list[mx.array] = field(default_factory=list)

    def convert(self, nbytes: float) -> bool:
        """Convert about ``nbytes`` more; True when there is nothing left to convert."""
        while len(self.arrays) < len(self.buffers) and nbytes > 0:
            at = len(self.arrays)
            nbytes -= self.buffers[at].nbytes
            self.arrays.append(_to_mlx(self.buffers[at], self.header.arrays[at]))
            self.buffers[at] = np.zeros(0, np.uint8)
        return len(self.arrays) == len(self.buffers)

    def layers(self) -> list[Layer]:
        """The caches' states."""
        self.convert(math.inf)
        return [
            Layer(layer.name, _unpacked(layer.state, self.arrays), _unpacked(layer.meta, self.arrays))
            for layer in self.header.layers
        ]


@dataclass(slots=True)
class Packed:
    """Layers with their arrays apart, computed and each in one piece; any thread may read them."""

    layers: list[_Layer]
    arrays: list[mx.array]

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.arrays)


def pack(layers: Sequence[Layer]) -> Packed:
    """Make layers ready to be written; call it on the thread that owns their arrays."""
    arrays: list[mx.array] = []
    packed = [_Layer(layer.name, _packed(layer.state, arrays), _packed(layer.meta, arrays)) for layer in layers]
    mx.eval(arrays)
    return Packed(packed, arrays)


def encode(fingerprint: str, tokens: bytes, cuttable: bool, packed: Packed, stop: Stop) -> tuple[bytes, int]:
    """Prelude and header, and the size of the whole file. Reads each array once; ``OutOfTime`` when it is to stop."""
    with ThreadPoolExecutor(_HASHING) as pool:
        parts = [pool.submit(_digest, _bytes_of(array), stop) for array in packed.arrays]
        digest = _together(parts)
    kinds = [_Array(_NAMES[array.dtype], list(array.shape)) for array in packed.arrays]
    nbytes = packed.nbytes
    header = Header(FORMAT, fingerprint, cuttable, tokens, packed.layers, kinds, digest, nbytes)
    encoded = msgspec.msgpack.encode(header)
    if len(encoded) > _MAX_HEADER:
        raise ValueError("the prefix is too long to be stored")
    prelude = _PRELUDE.pack(_MAGIC, len(encoded), nbytes, sha256(encoded).digest())
    return prelude + encoded, len(prelude) + len(encoded) + nbytes


def write_file(path: Path, head: bytes, arrays: Sequence[mx.array], stop: Stop) -> None:
    """Write it all to a new file (mode 0600) and onto the disk. ``OSError`` when the disk refuses, or ``OutOfTime``."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o600), "wb", buffering=0) as file:
        for part in (memoryview(head), *(_bytes_of(array) for array in arrays)):
            _write_all(file, part, stop)
        os.fsync(file.fileno())


def _check_time(stop: Stop) -> None:
    if stop():
        raise OutOfTime


def _write_all(file: Any, part: memoryview, stop: Stop) -> None:
    at = 0
    while at < len(part):
        _check_time(stop)
        at += file.write(part[at : at + _BLOCK])


def read_header(file: BinaryIO, size: int) -> Header:
    """The header of a file of ``size`` bytes, all its numbers checked against that size; ``BadFile`` if they lie."""
    prelude = file.read(_PRELUDE.size)
    if len(prelude) != _PRELUDE.size:
        raise BadFile("the file is cut off")
    magic, length, nbytes, digest = _PRELUDE.unpack(prelude)
    if magic != _MAGIC:
        raise BadFile("it is no cached prefix")
    if length > _MAX_HEADER or _PRELUDE.size + length + nbytes != size:
        raise BadFile("the file is cut off")
    encoded = file.read(length)
    if sha256(encoded).digest() != digest:
        raise BadFile("its header is damaged")
    try:
        header = msgspec.msgpack.decode(encoded, type=Header)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise BadFile("its header cannot be read") from error
    _check(header, nbytes)
    return header


def _check(header: Header, nbytes: int) -> None:
    if header.format != FORMAT:
        raise BadFile(f"it has format {header.format}")
    if not header.tokens or len(header.tokens) % 4:
        raise BadFile("it stands for no tokens")
    if any(kind.dtype not in _DTYPES or min(kind.shape, default=0) < 0 for kind in header.arrays):
        raise BadFile("it has arrays of an unknown kind")
    if header.nbytes != nbytes or sum(map(_size_of, header.arrays)) != nbytes:
        raise BadFile("its arrays are not as long as it says")


def read_arrays(file: BinaryIO, header: Header) -> Stored:
    """What follows the header; ``BadFile`` if it is not what was written."""
    buffers = []
    parts = []
    with ThreadPoolExecutor(_HASHING) as pool:
        for kind in header.arrays:
            buffer = np.empty(_size_of(kind), np.uint8)
            _read_all(file, buffer.data)
            parts.append(pool.submit(_digest, buffer.data))
            buffers.append(buffer)
    if _together(parts) != header.digest:
        raise BadFile("its content is damaged")
    for layer in header.layers:
        _check_packed(layer.state, len(buffers))
        _check_packed(layer.meta, len(buffers))
    return Stored(header, buffers)


def _digest(part: memoryview, stop: Stop = lambda: False) -> bytes:
    _check_time(stop)
    return sha256(part).digest()


def _together(parts: list[Future[bytes]]) -> bytes:
    """One digest of the digests of arrays, which are made side by side: of gigabytes one by one they take seconds."""
    return sha256(b"".join(part.result() for part in parts)).digest()


def _read_all(file: Any, buffer: memoryview) -> None:
    at = 0
    while at < len(buffer):
        count = file.readinto(buffer[at : at + _BLOCK])
        if not count:
            raise BadFile("the file is cut off")
        at += count


def _size_of(kind: _Array) -> int:
    return math.prod(kind.shape) * _DTYPES[kind.dtype].size


def _bytes_of(array: mx.array) -> memoryview:
    """Its memory, row by row; no copy."""
    view: Any = array
    return memoryview(view).cast("B") if array.size else memoryview(b"")


def _to_mlx(buffer: NDArray[np.uint8], kind: _Array) -> mx.array:
    if kind.dtype == "bfloat16":
        return mx.array(buffer.view(np.uint16)).view(mx.bfloat16).reshape(kind.shape)
    return mx.array(buffer.view(np.dtype(kind.dtype.removesuffix("_"))).reshape(kind.shape))


def _packed(value: Any, arrays: list[mx.array]) -> list[Any]:
    if isinstance(value, mx.array):
        arrays.append(mx.contiguous(value))
        return ["a", len(arrays) - 1]
    if isinstance(value, list | tuple):
        return ["t" if isinstance(value, tuple) else "l", *(_packed(one, arrays) for one in value)]
    if value is None or isinstance(value, bool | int | float | str):
        return ["v", value]
    raise TypeError(f"a cache's state holds a {type(value).__name__}")


def _check_packed(packed: Any, arrays: int, depth: int = 0) -> None:
    if not isinstance(packed, list) or not packed or depth > _MAX_DEPTH:
        raise BadFile("its states cannot be read")
    kind, rest = packed[0], packed[1:]
    if kind in ("l", "t"):
        for one in rest:
            _check_packed(one, arrays, depth + 1)
    elif kind == "a":
        if len(rest) != 1 or type(rest[0]) is not int or not 0 <= rest[0] < arrays:
            raise BadFile("its states cannot be read")
    elif kind != "v" or len(rest) != 1 or not (rest[0] is None or isinstance(rest[0], bool | int | float | str)):
        raise BadFile("its states cannot be read")


def _unpacked(packed: list[Any], arrays: Sequence[mx.array]) -> Any:
    if packed[0] == "a":
        return arrays[packed[1]]
    if packed[0] == "v":
        return packed[1]
    items = [_unpacked(one, arrays) for one in packed[1:]]
    return tuple(items) if packed[0] == "t" else items
