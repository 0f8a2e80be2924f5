"""Keys and values of a batch of rows in plain (unbounded) attention layers.

It takes the place of mlx-lm's ``BatchKVCache`` and has its interface, but the host knows the padding of every row.
So rows join and leave without waiting for the device; rows of equal length need neither a mask nor an array of
offsets; and where they differ, the layers of a batch share one array of offsets per step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.models.base import create_causal_mask
from mlx_lm.models.cache import dynamic_roll

_GROW = 256


class Padding:
    """How many unused positions each row of a batch has on its left; shared by the layers of the batch."""

    def __init__(self, left: Sequence[int]) -> None:
        self.left = list(left)
        self.any = any(self.left)
        self._array: mx.array | None = None
        self._offsets: tuple[int, mx.array] | None = None

    @property
    def array(self) -> mx.array:
        """(B,) int32."""
        if self._array is None:
            self._array = mx.array(np.array(self.left, dtype=np.int32))
        return self._array

    def offsets(self, end: int) -> mx.array:
        """(B,) int32: the position of the next token of each row when ``end`` positions are in use."""
        if self._offsets is None or self._offsets[0] != end:
            self._offsets = (end, mx.array(np.array([end - left for left in self.left], dtype=np.int32)))
        return self._offsets[1]


class RowsKVCache:
    """One layer's keys and values, (B, heads, length, dimension), right-justified, grown 256 positions at a time."""

    def __init__(self, padding: Padding) -> None:
        self.padding = padding
        self.keys: mx.array | None = None
        self.values: mx.array | None = None
        self._end = 0
        self._right: list[int] = []

    @classmethod
    def of(cls, rows: Sequence[Any], padding: Padding) -> RowsKVCache:
        """A batch out of single-row caches (``KVCache``), whose contents are copied."""
        cache = cls(padding)
        filled = [row for row in rows if row.keys is not None and row.offset]
        if not filled:
            return cache
        cache._end = max(row.offset for row in filled)
        cache.keys = _stacked([row.keys for row in rows], [row.offset for row in rows], cache._end)
        cache.values = _stacked([row.values for row in rows], [row.offset for row in rows], cache._end)
        return cache

    # ---------------------------------------------------------------------------------------- what models call

    @property
    def offset(self) -> int | mx.array:
        """Position of the next token: one number while all rows have the same, else (B,)."""
        return self.padding.offsets(self._end) if self.padding.any else self._end

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Append (B, heads, new, dimension); returns all that is in use."""
        before, self._end = self._end, self._end + keys.shape[2]
        if self.keys is None or self.values is None:
            room = -(-self._end // _GROW) * _GROW
            self.keys, self.values = _room(keys, room), _room(values, room)
        elif self._end > self.keys.shape[2]:
            more = -(-keys.shape[2] // _GROW) * _GROW
            self.keys = mx.concatenate([self.keys[..., :before, :], _room(keys, more)], axis=2)
            self.values = mx.concatenate([self.values[..., :before, :], _room(values, more)], axis=2)
        self.keys[..., before : self._end, :] = keys
        self.values[..., before : self._end, :] = values
        return self.keys[..., : self._end, :], self.values[..., : self._end, :]

    def make_mask(self, N: int, return_array: bool = False, window_size: int | None = None) -> Any:
        """What ``N`` new tokens of each row may see; None or "causal" where no array is needed."""
        if not self.padding.any:
            return _unpadded_mask(N, self._end, return_array, window_size)
        return create_causal_mask(N, offset=self._end, window_size=window_size, left_padding=self.padding.array)

    def size(self) -> int:
        return self._end

    def empty(self) -> bool:
        return self.keys is None

    @property
    def state(self) -> tuple[mx.array | None, mx.array | None]:
        return self.keys, self.values

    @property
    def nbytes(self) -> int:
        if self.keys is None or self.values is None:
            return 0
        return int(self.keys.nbytes + self.values.nbytes)

    # ------------------------------------------------------------------------------------- rows come and leave

    def prepare(self, *, lengths: Sequence[int], right_padding: Sequence[int]) -> None:
        """The next tokens of row ``i`` end with ``right_padding[i]`` meaningless ones."""
        self._right = list(right_padding)

    def finalize(self) -> None:
        """Move the meaningless positions of ``prepare`` from the right end to the left."""
        right, self._right = self._right, []
        if any(right) and self.keys is not None and self.values is not None:
            shifts = mx.array(right)[:, None]
            self.keys = dynamic_roll(self.keys[..., : self._end, :], shifts, axis=2)
            self.values = dynamic_roll(self.values[..., : self._end, :], shifts, axis=2)

    def pad(self, padding: Padding) -> None:
        """Say which positions are meaningless, after ``finalize``."""
        self.padding = padding

    def keep(self, rows: mx.array, padding: Padding, shift: int) -> None:
        """Keep these rows, whose padding is ``padding`` after ``shift`` positions on the left were cut off."""
        self.padding = padding
        self._end -= shift
        if self.keys is not None and self.values is not None:
            self.keys = self.keys[rows][..., shift:, :]
            self.values = self.values[rows][..., shift:, :]

    def join(self, other: RowsKVCache, padding: Padding) -> None:
        """Append the rows of ``other``; ``padding`` is that of all rows together."""
        self.padding = padding
        end = max(self._end, other._end)
        like = self if self.keys is not None else other
        if like.keys is not None and like.values is not None:
            length = -(-(end + 1) // _GROW) * _GROW
            theirs = len(other.padding.left)
            ours = len(padding.left) - theirs
            self.keys = mx.concatenate(
                [
                    _moved(self.keys, self._end, end, length, ours, like.keys),
                    _moved(other.keys, other._end, end, length, theirs, like.keys),
                ]
            )
            self.values = mx.concatenate(
                [
                    _moved(self.values, self._end, end, length, ours, like.values),
                    _moved(other.values, other._end, end, length, theirs, like.values),
                ]
            )
        self._end = end


def _unpadded_mask(new: int, offset: int, return_array: bool, window_size: int | None) -> Any:
    """The mask of rows without padding, as mlx-lm's plain cache makes it."""
    if window_size is not None:
        return create_causal_mask(new, offset, window_size=window_size)
    if new == 1:
        return None
    return create_causal_mask(new, offset) if return_array else "causal"


def _room(like: mx.array, positions: int) -> mx.array:
    return mx.zeros((*like.shape[:2], positions, like.shape[3]), dtype=like.dtype)


def _moved(held: mx.array | None, end: int, new_end: int, length: int, rows: int, like: mx.array) -> mx.array:
    """``held``, whose content ends at ``end``, padded so that it ends at ``new_end`` of ``length`` positions."""
    if held is None or not end:
        return mx.zeros((rows, like.shape[1], length, like.shape[3]), dtype=like.dtype)
    left = new_end - end
    return mx.pad(held[..., :end, :], [(0, 0), (0, 0), (left, length - new_end), (0, 0)])


def _stacked(held: Sequence[mx.array | None], lengths: Sequence[int], end: int) -> mx.array:
    """Rows of their own lengths, right-justified at ``end``, with room for what is decoded next."""
    like = next(one for one in held if one is not None)
    length = -(-(end + 1) // _GROW) * _GROW
    return mx.concatenate([_moved(one, own, end, length, 1, like) for one, own in zip(held, lengths, strict=True)])


def keep_rows(layers: Sequence[RowsKVCache], rows: Sequence[int]) -> None:
    """Keep, in this order, these rows in every layer of a batch, and cut off padding that no row needs any more."""
    if not layers:
        return
    left = [layers[0].padding.left[row] for row in rows]
    shift = min(left)
    padding = Padding([one - shift for one in left])
    index = mx.array(np.array(rows, dtype=np.int32))
    for layer in layers:
        layer.keep(index, padding, shift)


def join_rows(layers: Sequence[RowsKVCache], others: Sequence[RowsKVCache]) -> None:
    """Append the rows of another batch in every layer."""
    if not layers:
        return
    end = max(layers[0]._end, others[0]._end)
    padding = Padding(
        [end - one._end + left for one in (layers[0], others[0]) for left in one.padding.left],
    )
    for layer, other in zip(layers, others, strict=True):
        layer.join(other, padding)
