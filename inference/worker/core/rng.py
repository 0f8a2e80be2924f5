"""Random numbers that depend on a row's seed and its position in the answer, and on nothing else.

Every sampled token takes one uniform number, the hash of (seed, position). So an answer does not change with what
else is decoded beside it, with the order of arrivals, or with a restart, and no generator state has to be kept.
"""

from __future__ import annotations

import secrets

import numpy as np
from numpy.typing import NDArray

_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB
_MASK_64 = 0xFFFFFFFFFFFFFFFF
_24_BITS = np.float32(1.0 / (1 << 24))


def mix(value: int) -> int:
    """The splitmix64 finaliser of a 64-bit integer: a bijection whose output bits all depend on all input bits."""
    value &= _MASK_64
    value = ((value ^ (value >> 30)) * _MIX_1) & _MASK_64
    value = ((value ^ (value >> 27)) * _MIX_2) & _MASK_64
    return value ^ (value >> 31)


def row_seed(seed: int | None, choice: int) -> int:
    """The 64-bit seed of one choice of a request. Without a request seed, fresh randomness."""
    if seed is None:
        return secrets.randbits(64)
    return mix(mix(seed & _MASK_64) + (choice + 1) * _GOLDEN)


def uniforms(seeds: list[int], positions: list[int], count: int) -> NDArray[np.float32]:
    """Numbers in [0, 1) with 24 random bits, shape (count, rows): row ``r`` at ``positions[r]`` and the next ones."""
    state = np.array(seeds, dtype=np.uint64)[None, :]
    steps = np.arange(1, count + 1, dtype=np.uint64)[:, None] + np.array(positions, dtype=np.uint64)[None, :]
    with np.errstate(over="ignore"):
        bits = state + steps * np.uint64(_GOLDEN)
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(_MIX_1)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(_MIX_2)
        bits ^= bits >> np.uint64(31)
    numbers: NDArray[np.float32] = (bits >> np.uint64(40)).astype(np.float32) * _24_BITS
    return numbers
