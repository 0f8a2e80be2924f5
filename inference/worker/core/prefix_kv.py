"""Copies of what caches hold of a prompt, and caches made of such copies again.

A plain layer's keys and values (``KVCache``) can be cut at any token. What other caches hold (a sliding window, the
state of a recurrent layer) belongs to the one position they have come to, and is kept whole or not at all.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol, TypeAlias

import mlx.core as mx
from mlx_lm.models.cache import KVCache, RotatingKVCache

from inference.worker.core import caches as kv
from inference.worker.core.kvcache import RowsKVCache
from inference.worker.core.prefix_file import Layer

Pair: TypeAlias = tuple[mx.array, mx.array] | None
"""Keys and values of one plain layer, (1, heads, tokens, dimension); None for a layer that holds nothing."""

_GROW = 256


@dataclass(frozen=True, slots=True)
class Whole:
    """The states of the caches that cannot be cut, at one position; one for each of ``Layout.whole``."""

    states: list[Any]

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in _arrays(self.states))

    def arrays(self) -> list[mx.array]:
        return list(_arrays(self.states))


class Source(Protocol):
    """Something that holds ``length`` tokens' worth of every layer."""

    length: int

    def cut(self, start: int, end: int) -> list[Pair]:
        """Copies of a span of the plain layers, not computed yet."""
        ...

    def whole(self) -> Whole:
        """Copies of the other layers at ``length``."""
        ...


class Layout:
    """Which of a model's caches, lists of caches opened, are plain, and of which kind the others are."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._shapes: list[Any] = []
        found = list(kv.flat(kv.new_caches(model)))
        self.classes = [type(cache) for cache in found]
        self.plain = [at for at, cache in enumerate(found) if type(cache) is KVCache]
        self.whole = [at for at, cache in enumerate(found) if type(cache) is not KVCache]

    @property
    def cuttable(self) -> bool:
        """Whether any beginning of what is kept can be used."""
        return not self.whole

    def __str__(self) -> str:
        return " ".join(cls.__name__ for cls in self.classes)

    def learn(self, caches: kv.Caches, length: int) -> int:
        """Remember what single-row caches that hold ``length`` tokens look like; returns a token's bytes."""
        source = Live(self, caches, length)
        pairs = source.cut(0, length)
        self._shapes = [[_shape(pair) for pair in pairs], _shape(source.whole().states)]
        return sum(array.nbytes for array in arrays_of(pairs)) // length

    def restored(self, pieces: Sequence[list[Pair]], whole: Whole | None, length: int, room: int) -> kv.Caches:
        """Single-row caches that hold ``length`` tokens and have room for ``room`` more before they grow."""
        caches = kv.new_caches(self._model)
        found = list(kv.flat(caches))
        for number, at in enumerate(self.plain):
            pairs = [pair for piece in pieces if (pair := piece[number]) is not None]
            if pairs:
                found[at].keys = _joined([keys for keys, _ in pairs], length, room)
                found[at].values = _joined([values for _, values in pairs], length, room)
                found[at].offset = length
        for number, at in enumerate(self.whole):
            if whole is None:
                raise ValueError("these caches cannot be restored without their whole states")
            found[at].state = _copied(whole.states[number])
        return caches

    # ------------------------------------------------------------------------------------------------- on disk

    def layers(self, pieces: Sequence[list[Pair]], whole: Whole | None) -> list[Layer]:
        """What a file holds of a prefix: each cache's state, in order; of a plain one its keys and values in pieces."""
        states: dict[int, Any] = {}
        for number, at in enumerate(self.plain):
            pairs = [pair for piece in pieces if (pair := piece[number]) is not None]
            states[at] = [[keys for keys, _ in pairs], [values for _, values in pairs]]
        if self.whole and whole is None:
            raise ValueError("the states of layers that cannot be cut are gone")
        for number, at in enumerate(self.whole):
            states[at] = whole.states[number] if whole is not None else None
        return [Layer(cls.__name__, states[at]) for at, cls in enumerate(self.classes)]

    def stored(self, layers: Sequence[Layer], length: int) -> Stored:
        """The other way round. ``ValueError`` when the layers are not those of this model."""
        if [layer.name for layer in layers] != [cls.__name__ for cls in self.classes]:
            raise ValueError("the layers are of another kind")
        plain = [(list(keys), list(values)) for keys, values in (layers[at].state for at in self.plain)]
        spans = {tuple(one.shape[2] for one in pieces) for pair in plain for pieces in pair if pieces}
        if len(spans) > 1 or any(sum(span) != length for span in spans):
            raise ValueError("the keys and values are of another length")
        stored = Stored(length, plain, Whole([layers[at].state for at in self.whole]))
        found = [[_shape(pair) for pair in stored.cut(0, 1)], _shape(stored.whole().states)]
        if found != self._shapes:
            raise ValueError("the arrays are of another shape or type")
        return stored


class Live:
    """One row of caches that are in use: single-row caches, or a row of a batch."""

    def __init__(self, layout: Layout, caches: kv.Caches, length: int, row: int | None = None) -> None:
        """``length`` is how many tokens of the row the caches hold. ``row`` None: the caches have only the one."""
        found = list(kv.flat(caches))
        self._plain = [found[at] for at in layout.plain]
        self._whole = [found[at] for at in layout.whole]
        self._row = row
        self.length = length

    def cut(self, start: int, end: int) -> list[Pair]:
        return [self._pair(cache, start, end) for cache in self._plain]

    def _pair(self, cache: Any, start: int, end: int) -> Pair:
        row = self._row or 0
        if isinstance(cache, RowsKVCache):
            left, held = cache.padding.left[row], cache.size() - cache.padding.left[row]
        else:
            left, held = 0, int(cache.offset)
        if cache.keys is None:
            return None
        if held != self.length:
            raise ValueError(f"the caches hold {held} tokens, not {self.length}")
        span = (slice(row, row + 1), slice(None), slice(left + start, left + end))
        return mx.contiguous(cache.keys[span]), mx.contiguous(cache.values[span])

    def whole(self) -> Whole:
        ones = self._whole if self._row is None else [cache.extract(self._row) for cache in self._whole]
        return Whole([_copied(_trimmed(one)) for one in ones])


class Stored:
    """What was read from disk. ``plain`` has each plain layer's keys and values, in pieces."""

    def __init__(self, length: int, plain: list[tuple[list[mx.array], list[mx.array]]], whole: Whole) -> None:
        self.length = length
        self._plain = plain
        self._states = whole
        spans = next(([one.shape[2] for one in keys] for keys, _ in plain if keys), [])
        self._starts = [0, *accumulate(spans)]

    def cut(self, start: int, end: int) -> list[Pair]:
        first, last = bisect_right(self._starts, start) - 1, bisect_left(self._starts, end)
        low = start - self._starts[first]

        def span(pieces: list[mx.array]) -> mx.array:
            found = pieces[first:last]
            if (low, end) == (0, self._starts[last]):
                return mx.concatenate(found, axis=2) if len(found) > 1 else found[0]
            joined = mx.concatenate(found, axis=2) if len(found) > 1 else found[0]
            return mx.contiguous(joined[..., low : low + end - start, :])

        return [(span(keys), span(values)) if keys else None for keys, values in self._plain]

    def whole(self) -> Whole:
        return self._states


def part(piece: list[Pair], start: int, end: int) -> list[Pair]:
    """Copies of a span of some pairs, not computed yet."""
    return [
        None if pair is None else (mx.contiguous(pair[0][..., start:end, :]), mx.contiguous(pair[1][..., start:end, :]))
        for pair in piece
    ]


def all_numbers(piece: list[Pair]) -> mx.array | None:
    """One truth, not computed yet: the last layer's keys and values are numbers, so what they came from was too."""
    last = next((pair for pair in reversed(piece) if pair is not None), None)
    if last is None or not mx.issubdtype(last[0].dtype, mx.floating):
        return None
    return mx.isfinite(last[0]).all() & mx.isfinite(last[1]).all()


def and_numbers(truth: mx.array | None, whole: Whole) -> mx.array:
    """``truth``, and that the states of the last layer are numbers."""
    truth = mx.array(True) if truth is None else truth
    for array in _arrays(whole.states[-1:]):
        if mx.issubdtype(array.dtype, mx.floating):
            truth = truth & mx.isfinite(array).all()
    return truth


def _shape(value: Any) -> Any:
    """What a state looks like: of arrays type, rank and what does not grow with the tokens, of the rest the type."""
    if isinstance(value, mx.array):
        return (str(value.dtype), value.ndim, *((value.shape[1], value.shape[3]) if value.ndim == 4 else ()))
    if isinstance(value, list | tuple):
        return [_shape(one) for one in value]
    return type(value).__name__


def arrays_of(piece: list[Pair]) -> list[mx.array]:
    return [array for pair in piece if pair is not None for array in pair]


def _joined(parts: list[mx.array], length: int, room: int) -> mx.array:
    """One array of ``length`` tokens, longer parts cut off, and zeros behind it."""
    have = sum(one.shape[2] for one in parts)
    if have > length:
        parts = [*parts[:-1], parts[-1][..., : parts[-1].shape[2] - (have - length), :]]
    if room:
        like = parts[0]
        size = -(-(length + room) // _GROW) * _GROW
        parts = [*parts, mx.zeros((*like.shape[:2], size - length, like.shape[3]), dtype=like.dtype)]
    return mx.concatenate(parts, axis=2) if len(parts) > 1 else mx.contiguous(parts[0])


def _trimmed(cache: Any) -> Any:
    """The state of a cache; of a sliding window without what has already left it."""
    if type(cache) is RotatingKVCache and cache.keys is not None and not cache.keep:
        over = cache.keys.shape[2] - cache.max_size
        if over > 0 and cache._idx == cache.keys.shape[2]:
            keys, values = cache.keys[..., over:, :], cache.values[..., over:, :]
            return keys, values, cache.offset, cache.keep, cache.max_size, cache.max_size
    return cache.state


def _copied(state: Any) -> Any:
    """A state that no later step changes; the arrays' contents are shared until one of them is written to."""
    return _mapped(state, mx.contiguous)


def _mapped(value: Any, change: Callable[[mx.array], mx.array]) -> Any:
    if isinstance(value, mx.array):
        return change(value)
    if isinstance(value, list | tuple):
        return type(value)(_mapped(one, change) for one in value)
    return value


def _arrays(value: Any) -> Iterable[mx.array]:
    if isinstance(value, mx.array):
        yield value
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _arrays(one)
