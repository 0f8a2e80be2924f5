"""Logits to tokens for a whole batch in one array operation, each row with its own parameters.

The order is: logit bias, repetition, presence and frequency penalty, mask of a constraint, temperature, top_k, top_p
(of what top_k left), min_p. Filters act on the tempered distribution, as OpenAI's API and vLLM define them. Log
probabilities are those of the model's raw distribution.

Sampling is inversion: one uniform number per row picks the token at which the cumulative weight passes it. A greedy
row of a mixed batch is a row whose filter keeps only the maximum, so it costs nothing extra. What no row of the batch
uses is not computed: an all-greedy batch is a single argmax.

Shapes: B rows, V logits. Nothing here waits for the device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from inference.ipc import Sampling

_GREEDY_INVERSE_TEMPERATURE = 1e6
_MIN_TEMPERATURE = 1e-6
_BLOCK = 256
_MIN_BLOCKED_VOCAB = 8192


class Sampled(NamedTuple):
    """Tokens (B, 1) and a number per row (B, 1) that is not finite when its logits were NaN or infinite.

    ``logprobs`` (L,), ``top_ids`` and ``top_logprobs`` (L, N), unsorted, are for the L rows that asked, or None.
    """

    tokens: mx.array
    health: mx.array
    logprobs: mx.array | None = None
    top_ids: mx.array | None = None
    top_logprobs: mx.array | None = None


def _column(values: Sequence[float]) -> mx.array:
    return mx.array(np.array(values, dtype=np.float32)[:, None])


def _rows_where(flags: Sequence[bool]) -> list[int]:
    return [index for index, flag in enumerate(flags) if flag]


class TopFilter:
    """top_k and top_p of the rows that use them: a threshold on the weights of a row."""

    def __init__(self, samplings: Sequence[Sampling], rows: list[int]) -> None:
        self.index = None if len(rows) == len(samplings) else mx.array(rows, dtype=mx.int32)
        self._batch = len(samplings)
        self._k = mx.array([[samplings[row].top_k] for row in rows], dtype=mx.int32)
        self._tail = _column([1.0 - samplings[row].top_p for row in rows])
        self._k_only = all(samplings[row].top_p >= 1 for row in rows)

    def __call__(self, weights: mx.array) -> mx.array:
        """``weights`` (B, V), none negative, with 0 where a row's filter drops the token. Ties are kept."""
        own = weights if self.index is None else weights[self.index]
        vocab = weights.shape[-1]
        ascending = mx.sort(own, axis=-1)
        first_kept = mx.where((self._k > 0) & (self._k < vocab), vocab - self._k, 0)
        threshold = mx.take_along_axis(ascending, first_kept, axis=-1)
        if not self._k_only:
            cumulative = mx.cumsum(ascending * (ascending >= threshold), axis=-1)
            inside = cumulative > self._tail * cumulative[:, -1:]
            nucleus = mx.take_along_axis(ascending, mx.argmax(inside, axis=-1, keepdims=True), axis=-1)
            threshold = mx.maximum(threshold, nucleus)
        if self.index is not None:
            threshold = mx.zeros((self._batch, 1), dtype=threshold.dtype).at[self.index].add(threshold)
        return weights * (weights >= threshold)


class Bias:
    """logit_bias of all rows as coordinates and values."""

    def __init__(self, samplings: Sequence[Sampling]) -> None:
        entries = [
            (row, token, bias) for row, sampling in enumerate(samplings) for token, bias in sampling.logit_bias.items()
        ]
        self._rows = mx.array([row for row, _, _ in entries], dtype=mx.int32)
        self._tokens = mx.array([token for _, token, _ in entries], dtype=mx.int32)
        self._values = mx.array([bias for _, _, bias in entries], dtype=mx.float32)

    def __call__(self, logits: mx.array) -> mx.array:
        return logits.at[self._rows, self._tokens].add(self._values)


class PenaltyParameters:
    """The three penalties of every row, neutral where a row does not use them."""

    def __init__(self, samplings: Sequence[Sampling]) -> None:
        self._presence = _column([sampling.presence_penalty for sampling in samplings])
        self._frequency = _column([sampling.frequency_penalty for sampling in samplings])
        self._repetition = _column([sampling.repetition_penalty for sampling in samplings])
        self._uses_repetition = any(sampling.repetition_penalty != 1 for sampling in samplings)

    def __call__(self, logits: mx.array, counts: mx.array, in_prompt: mx.array) -> mx.array:
        """``counts`` (B, V) float32 of each token in the answer so far; ``in_prompt`` (B, V) bool."""
        present = counts > 0
        if self._uses_repetition:
            factor = mx.where(logits > 0, 1.0 / self._repetition, self._repetition)
            logits = mx.where(present | in_prompt, logits * factor, logits)
        return logits - self._presence * present - self._frequency * counts


def uses_penalties(sampling: Sampling) -> bool:
    return sampling.presence_penalty != 0 or sampling.frequency_penalty != 0 or sampling.repetition_penalty != 1


def _scale_and_floor(sampling: Sampling) -> tuple[float, float]:
    """Factor on the logits and the smallest weight kept, relative to the largest: together they also say greedy."""
    if sampling.temperature == 0:
        return _GREEDY_INVERSE_TEMPERATURE, 1.0
    return 1.0 / max(sampling.temperature, _MIN_TEMPERATURE), sampling.min_p


@dataclass(slots=True)
class SamplingPlan:
    """The parameters of a batch's rows as arrays, made anew only when rows join or leave.

    ``spread`` (B,) is 0 for greedy rows and 1 for others, to multiply the uniform numbers with: of several equal
    maxima a greedy row takes the first.
    """

    greedy: bool
    spread: NDArray[np.float32]
    scale: mx.array
    floor: mx.array | None
    top: TopFilter | None
    bias: Bias | None
    penalties: PenaltyParameters | None
    logprob_rows: list[int]
    logprob_index: mx.array | None
    top_logprobs: int

    @classmethod
    def of(cls, samplings: Sequence[Sampling]) -> SamplingPlan:
        """The plan of a batch whose row ``i`` has ``samplings[i]``."""
        pairs = [_scale_and_floor(sampling) for sampling in samplings]
        filtered = _rows_where([s.temperature > 0 and (s.top_k > 0 or s.top_p < 1) for s in samplings])
        asked = _rows_where([sampling.top_logprobs is not None for sampling in samplings])
        every_row = len(asked) == len(samplings)
        return cls(
            greedy=all(sampling.temperature == 0 for sampling in samplings),
            spread=np.array([sampling.temperature > 0 for sampling in samplings], dtype=np.float32),
            scale=_column([scale for scale, _ in pairs]),
            floor=_column([floor for _, floor in pairs]) if any(floor > 0 for _, floor in pairs) else None,
            top=TopFilter(samplings, filtered) if filtered else None,
            bias=Bias(samplings) if any(sampling.logit_bias for sampling in samplings) else None,
            penalties=PenaltyParameters(samplings) if any(map(uses_penalties, samplings)) else None,
            logprob_rows=asked,
            logprob_index=None if every_row or not asked else mx.array(asked, dtype=mx.int32),
            top_logprobs=max((samplings[row].top_logprobs or 0 for row in asked), default=0),
        )


def expand_bits(bits: mx.array, width: int) -> mx.array:
    """Packed bitmasks (B, W) uint32 as booleans (B, width); see ``types.Bitmask`` for the layout."""
    spread = (bits[:, :, None] >> mx.arange(32, dtype=mx.uint32)) & 1
    return spread.reshape(bits.shape[0], -1)[:, :width].astype(mx.bool_)


def draw(weights: mx.array, uniform: mx.array) -> tuple[mx.array, mx.array]:
    """Token (B, 1) at which the cumulative sum of ``weights`` (B, V) passes ``uniform`` (B, 1) of the total, and the
    total (B, 1). A token of weight 0 is never drawn. Long rows go in two levels: which block, then where in it.
    """
    batch, vocab = weights.shape
    if vocab < _MIN_BLOCKED_VOCAB:
        cumulative = mx.cumsum(weights, axis=-1)
        total = cumulative[:, -1:]
        return mx.argmax(cumulative > uniform * total, axis=-1, keepdims=True), total
    if vocab % _BLOCK:
        weights = mx.pad(weights, [(0, 0), (0, -vocab % _BLOCK)])
    blocks = weights.reshape(batch, -1, _BLOCK)
    sums = mx.sum(blocks, axis=-1)
    cumulative = mx.cumsum(sums, axis=-1)
    total = cumulative[:, -1:]
    target = uniform * total
    block = mx.argmax(cumulative > target, axis=-1, keepdims=True)
    rest = target - mx.take_along_axis(cumulative - sums, block, axis=-1)
    inner = mx.cumsum(mx.take_along_axis(blocks, block[:, :, None], axis=1)[:, 0], axis=-1)
    # The two levels round differently: keep the rest inside the block, or a token of weight 0 could be met.
    rest = mx.clip(rest, 0.0, inner[:, -1:] * (1.0 - 2.0**-22))
    within = mx.argmax(inner > rest, axis=-1, keepdims=True)
    return block * _BLOCK + within, total


def sample(
    plan: SamplingPlan,
    logits: mx.array,
    uniform: mx.array | None,
    counts: mx.array | None = None,
    in_prompt: mx.array | None = None,
    allowed: mx.array | None = None,
) -> Sampled:
    """Draw one token per row from raw ``logits`` (B, V).

    ``uniform`` (B, 1) in [0, 1) may be None for an all-greedy plan. ``counts`` and ``in_prompt`` are needed when the
    plan has penalties. ``allowed`` (B, V) bool is the constraints' mask.
    """
    raw = logits if logits.dtype == mx.float32 else logits.astype(mx.float32)
    shaped = raw
    if plan.bias is not None:
        shaped = plan.bias(shaped)
    if plan.penalties is not None and counts is not None and in_prompt is not None:
        shaped = plan.penalties(shaped, counts, in_prompt)
    if allowed is not None:
        shaped = mx.where(allowed, shaped, -mx.inf)
    if plan.greedy or uniform is None:
        tokens = mx.argmax(shaped, axis=-1, keepdims=True)
        health = mx.take_along_axis(raw, tokens, axis=-1)
    else:
        weights = mx.exp((shaped - mx.max(shaped, axis=-1, keepdims=True)) * plan.scale)
        if plan.top is not None:
            weights = plan.top(weights)
        if plan.floor is not None:
            weights = weights * (weights >= plan.floor)
        tokens, health = draw(weights, uniform)
    if not plan.logprob_rows:
        return Sampled(tokens, health)
    return _with_logprobs(plan, raw, tokens, health)


def _with_logprobs(plan: SamplingPlan, raw: mx.array, tokens: mx.array, health: mx.array) -> Sampled:
    """Add the log probabilities of the rows that asked, from the raw logits."""
    own = raw if plan.logprob_index is None else raw[plan.logprob_index]
    chosen = tokens if plan.logprob_index is None else tokens[plan.logprob_index]
    normaliser = mx.logsumexp(own, axis=-1, keepdims=True)
    logprobs = (mx.take_along_axis(own, chosen, axis=-1) - normaliser)[:, 0]
    if not plan.top_logprobs:
        return Sampled(tokens, health, logprobs)
    count = min(plan.top_logprobs, own.shape[-1])
    top_ids = mx.argpartition(-own, count - 1, axis=-1)[:, :count]
    top = mx.take_along_axis(own, top_ids, axis=-1) - normaliser
    return Sampled(tokens, health, logprobs, top_ids, top)
