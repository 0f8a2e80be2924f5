"""The key-value caches of a batch, made from mlx-lm's own cache classes, and what a model's caches can do.

mlx-lm gives each layer a cache object: plain, rotating (sliding window), arrays (state space), or a list of those. Some
can be merged into a batch whose rows join (``extend``) and leave (``filter``) at any time. Whether a model computes
the same in such a batch as alone is not read from a list of names but tried: see ``probe``.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.models.cache import CacheList, KVCache, make_prompt_cache

from inference.worker.core.kvcache import Padding, RowsKVCache, join_rows, keep_rows

Caches = list[Any]
"""One cache object per layer."""

_EXACT_TOLERANCE = 1e-3
_ROUNDED_TOLERANCE = 0.25


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """``batching``: rows can share a decode batch. ``joint_prefill``: prompts of different length can share a prefill.

    ``why_not`` says what stood against batching. ``vocab_size`` is the width of the logits.
    """

    batching: bool
    joint_prefill: bool
    why_not: str
    vocab_size: int
    kv_bytes_per_token: int


def new_caches(model: Any) -> Caches:
    """Empty caches for one row."""
    return list(make_prompt_cache(model))


def merged(rows: Sequence[Caches]) -> Caches:
    """One batch out of several single-row caches; copies their contents."""
    lengths = [max((one.offset for one in _plain(caches)), default=0) for caches in rows]
    padding = Padding([max(lengths) - length for length in lengths])
    return [_merged_layer(list(layer), padding) for layer in zip(*rows, strict=True)]


def _merged_layer(layer: list[Any], padding: Padding) -> Any:
    if type(layer[0]) is KVCache:
        return RowsKVCache.of(layer, padding)
    if isinstance(layer[0], CacheList):
        inner = zip(*(one.caches for one in layer), strict=True)
        return CacheList(*(_merged_layer(list(caches), padding) for caches in inner))
    return layer[0].merge(layer)


def flat(caches: Iterable[Any]) -> Iterator[Any]:
    """The caches with lists of caches opened."""
    for cache in caches:
        if isinstance(cache, CacheList):
            yield from flat(cache.caches)
        else:
            yield cache


def _plain(caches: Caches) -> list[KVCache]:
    return [cache for cache in flat(caches) if type(cache) is KVCache]


def _ours(caches: Caches) -> list[RowsKVCache]:
    return [cache for cache in flat(caches) if isinstance(cache, RowsKVCache)]


def _others(caches: Caches) -> list[Any]:
    return [cache for cache in flat(caches) if not isinstance(cache, RowsKVCache)]


def empty_batch(model: Any, rows: int) -> Caches:
    """Empty batch caches for ``rows`` rows."""
    return merged([new_caches(model) for _ in range(rows)])


def select(caches: Caches, rows: Sequence[int]) -> None:
    """Keep, in this order, these rows of a batch; a row named twice is copied."""
    keep_rows(_ours(caches), rows)
    index = mx.array(list(rows), dtype=mx.int32)
    for cache in _others(caches):
        cache.filter(index)


def extend(caches: Caches, joining: Caches) -> None:
    """Append the rows of another batch; the shorter ones are padded on the left."""
    join_rows(_ours(caches), _ours(joining))
    for cache, other in zip(_others(caches), _others(joining), strict=True):
        cache.extend(other)


def copied(caches: Caches) -> Caches:
    """An independent copy of single-row caches."""
    return copy.deepcopy(caches)


def bytes_of(caches: Caches) -> int:
    """What the caches hold, allocated but unused room included."""
    return sum(int(cache.nbytes) for cache in caches)


def weights_of(model: Any) -> int:
    """Bytes of a model's parameters, 0 where it does not tell."""
    if not hasattr(model, "parameters"):
        return 0
    return sum(int(leaf.nbytes) for _, leaf in tree_flatten(model.parameters()))


def arrays_of(caches: Caches) -> list[Any]:
    """The state to evaluate after a prefill chunk."""
    return [cache.state for cache in caches]


def _mergeable(caches: Caches) -> bool:
    return all(hasattr(cache, "merge") for cache in flat(caches))


def _can_join_and_leave(batch: Caches) -> bool:
    wanted = ("filter", "extend", "prepare", "finalize")
    return all(hasattr(cache, name) for cache in _others(batch) for name in wanted)


def prefill_together(model: Any, prompts: Sequence[Sequence[int]]) -> Caches:
    """Batch caches holding all of ``prompts``, padded on the right while they run; queued, not evaluated."""
    caches = empty_batch(model, len(prompts))
    lengths = [len(prompt) for prompt in prompts]
    longest = max(lengths)
    padding = [longest - length for length in lengths]
    if longest == 0:
        return caches
    if any(padding):
        for cache in flat(caches):
            cache.prepare(lengths=lengths, right_padding=padding)
    model(mx.array([list(prompt) + [0] * (longest - len(prompt)) for prompt in prompts]), cache=caches)
    if any(padding):
        own = Padding(padding)
        for cache in flat(caches):
            cache.finalize()
            if isinstance(cache, RowsKVCache):
                cache.pad(own)
    return caches


def _bytes_per_token(caches: Caches) -> int:
    """Keys and values of one token over all layers, from caches that hold a few."""
    total = 0
    for cache in flat(caches):
        keys, values = getattr(cache, "keys", None), getattr(cache, "values", None)
        if isinstance(keys, mx.array) and isinstance(values, mx.array) and keys.ndim == 4:
            total += (keys.nbytes + values.nbytes) // max(keys.shape[0] * keys.shape[2], 1)
    return total


class _Trial:
    """Feeds two short made-up prompts alone and together and compares the logits that follow."""

    prompts = ([1, 2, 3, 4, 5, 6, 7], [3, 1])
    following = ([2, 5, 1], [4, 4, 6])

    def __init__(self, model: Any) -> None:
        self._model = model
        self.kv_bytes_per_token = 0
        self._alone = [self._run_alone(row) for row in range(2)]
        self.vocab_size = int(self._alone[0].shape[-1])

    def _run_alone(self, row: int) -> mx.array:
        """Logits (3, V) after each following token."""
        caches = new_caches(self._model)
        self._model(mx.array([self.prompts[row]]), cache=caches)
        steps = [self._step([[token]], caches)[0] for token in self.following[row]]
        self.kv_bytes_per_token = _bytes_per_token(caches)
        return mx.stack(steps)

    def _step(self, tokens: list[list[int]], caches: Caches) -> mx.array:
        logits: mx.array = self._model(mx.array(tokens), cache=caches)[:, -1]
        mx.eval(logits)
        return logits

    def merged_apart(self) -> Caches:
        """Both prompts prefilled alone, then joined: one as a batch of its own, the other by ``extend``."""
        singles = [new_caches(self._model) for _ in self.prompts]
        for prompt, caches in zip(self.prompts, singles, strict=True):
            self._model(mx.array([prompt]), cache=caches)
        batch = merged([singles[0]])
        if not _can_join_and_leave(batch):
            raise TypeError("its caches cannot join and leave a batch")
        extend(batch, merged([singles[1]]))
        return batch

    def prefilled_together(self) -> Caches:
        return prefill_together(self._model, self.prompts)

    def agrees(self, batch: Caches) -> bool:
        """Two steps of both rows, then one leaves and the other goes on: the same as alone?"""
        same = True
        for step in range(2):
            logits = self._step([[tokens[step]] for tokens in self.following], batch)
            same = same and all(near(logits[row], self._alone[row][step], batch) for row in range(2))
        select(batch, [1])
        last = self._step([[self.following[1][2]]], batch)
        return same and near(last[0], self._alone[1][2], batch)


def near(found: mx.array, wanted: mx.array, caches: Caches) -> bool:
    """Whether logits (V,) are the same but for rounding, in the precision of what ``caches`` hold."""
    found, wanted = found.astype(mx.float32), wanted.astype(mx.float32)
    in_float32 = all(leaf.dtype in (mx.float32, mx.int32, mx.uint32) for leaf in _leaves(caches))
    tolerance = _EXACT_TOLERANCE if in_float32 else _ROUNDED_TOLERANCE
    sound = mx.isfinite(wanted)
    spread = mx.maximum(mx.std(mx.where(sound, wanted, 0.0)), 1e-6)
    difference = mx.max(mx.where(sound, mx.abs(found - wanted), 0.0))
    return bool((difference <= tolerance * spread).item())


def _leaves(caches: Caches) -> list[mx.array]:
    """The arrays that caches hold."""
    held = [
        leaf
        for cache in flat(caches)
        for leaf in (getattr(cache, "keys", None), getattr(cache, "values", None), *getattr(cache, "cache", []))
    ]
    return [leaf for leaf in held if isinstance(leaf, mx.array)]


def _tried(trial: _Trial, caches: Any) -> str:
    """Empty when the rows of a batch agree with the rows alone, else what went wrong."""
    try:
        return "" if trial.agrees(caches()) else "its rows do not compute the same in a batch as alone"
    except Exception as error:
        return f"its rows cannot share a batch: {error}"


def probe(model: Any) -> ModelFacts:
    """Find out by a few tiny forward passes what the core may do with this model. Raises what the model raises."""
    trial = _Trial(model)
    if not _mergeable(new_caches(model)):
        why_not = "its caches cannot be merged into a batch"
    else:
        why_not = _tried(trial, trial.merged_apart)
    joint = not why_not and not _tried(trial, trial.prefilled_together)
    return ModelFacts(not why_not, joint, why_not, trial.vocab_size, trial.kv_bytes_per_token)
