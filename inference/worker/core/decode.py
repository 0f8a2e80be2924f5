"""A batch of rows that take one step together.

A step has two halves, so that the device is never waited for while it could be working: ``forward`` and ``draw``
queue the next step on tokens that the device has drawn but the host has not read, and ``Unread.read`` later fetches
what the step before drew. Only a batch with a constrained row must read before it can draw, because the mask depends on
the token before; its forward pass is queued all the same and runs while the host makes the masks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import mlx.core as mx
import numpy as np

from inference.worker.core import caches as kv
from inference.worker.core.rng import uniforms
from inference.worker.core.rows import Row
from inference.worker.core.sampling import Sampled, SamplingPlan, expand_bits, sample
from inference.worker.core.types import Bitmask, RowRef, TokenLogprobs, Tokens

_UNIFORMS_AHEAD = 64

MaskFailure = Callable[[Row, BaseException], None]
"""Told that a row's constraint raised or left no token to choose."""

Leaving: TypeAlias = "Callable[[DecodeBatch, int], None]"
"""Told that a row is about to leave its batch."""


@dataclass(slots=True)
class Unread:
    """One drawn token per row that the host has not seen. ``ending`` are the positions whose ``max_tokens`` is met."""

    rows: list[Row]
    refs: list[RowRef]
    sampled: Sampled
    clock: int
    starts: list[int]
    ending: list[int]
    eos: frozenset[int]
    constrained: bool
    logprob_rows: list[int]
    generation: int

    def read(self) -> tuple[list[int], bool]:
        """The token ids, waiting for the device, and whether every row's logits were sound."""
        tokens = [token for (token,) in cast("list[list[int]]", self.sampled.tokens.tolist())]
        health = [number for (number,) in cast("list[list[float]]", self.sampled.health.tolist())]
        return tokens, math.isfinite(sum(health))

    def remember(self, tokens: list[int]) -> None:
        """Note the tokens with their rows."""
        for row, token in zip(self.rows, tokens, strict=True):
            row.drawn.append(token)

    def drawn_by(self, at: int) -> int:
        """Tokens the row at a position has drawn, this one included."""
        return self.clock - self.starts[at]

    def unsound(self) -> list[int]:
        """Positions whose logits were not finite."""
        return [int(row) for row in np.flatnonzero(~np.isfinite(np.array(self.sampled.health)[:, 0]))]

    def event(self, tokens: list[int], logprobs: list[TokenLogprobs | None] | None, generation: int) -> Tokens:
        """The tokens of the rows that are still alive at this ``generation``."""
        if generation == self.generation or all(row.alive for row in self.rows):
            return Tokens(self.refs, tokens, logprobs)
        alive = [at for at, row in enumerate(self.rows) if row.alive]
        return Tokens(
            [self.refs[at] for at in alive],
            [tokens[at] for at in alive],
            None if logprobs is None else [logprobs[at] for at in alive],
        )

    def logprobs(self) -> list[TokenLogprobs | None] | None:
        """One entry per row, None for those that did not ask; None when nobody did."""
        if self.sampled.logprobs is None:
            return None
        answers: list[TokenLogprobs | None] = [None] * len(self.rows)
        chosen = np.array(self.sampled.logprobs)
        ids, values = self.sampled.top_ids, self.sampled.top_logprobs
        order = top_ids = top_values = None
        if ids is not None and values is not None:
            top_ids, top_values = np.array(ids), np.array(values)
            order = np.lexsort((top_ids, -top_values), axis=-1)
        for at, row in enumerate(self.logprob_rows):
            wanted = self.rows[row].owner.request.sampling.top_logprobs or 0
            if order is None or top_ids is None or top_values is None or not wanted:
                answers[row] = TokenLogprobs(float(chosen[at]), [], [])
                continue
            best = order[at, :wanted]
            answers[row] = TokenLogprobs(float(chosen[at]), top_ids[at, best].tolist(), top_values[at, best].tolist())
        return answers


class DecodeBatch:
    """Rows with their caches, the token each will be fed next, and everything that sampling needs.

    ``clock`` counts steps; a row that joined at ``start`` has drawn ``clock - start`` tokens. ``shared``: its caches
    are those of a batch, else of a single row.
    """

    def __init__(
        self,
        model: Any,
        rows: list[Row],
        caches: kv.Caches,
        tokens: Sequence[int],
        length: int,
        *,
        shared: bool = True,
    ) -> None:
        self._model = model
        self.rows = rows
        self.caches = caches
        self.length = length
        self.shared = shared
        self.clock = 0
        self._generation = -1
        self._tokens = mx.array(list(tokens), dtype=mx.int32)[:, None]
        self._logits: mx.array | None = None
        self._counts: mx.array | None = None
        self._in_prompt: mx.array | None = None
        for row in rows:
            row.start = 0
        self._renew()

    # ------------------------------------------------------------------------------------------------ membership

    def _renew(self) -> None:
        """Make anew what depends on which rows there are."""
        requests = [row.owner.request for row in self.rows]
        self.plan = SamplingPlan.of([request.sampling for request in requests])
        self._refs = [row.ref for row in self.rows]
        self._starts = [row.start for row in self.rows]
        self._eos = frozenset().union(*(request.eos for request in requests))
        self.constrained = [at for at, row in enumerate(self.rows) if row.constraint is not None]
        self._next_end = min((row.start + row.owner.request.max_tokens for row in self.rows), default=0)
        self._uniforms: mx.array | None = None
        self._uniforms_from = 0

    def drop_finished(self, generation: int, leaving: Leaving) -> bool:
        """Take out rows that are dead or have drawn their last token, after telling ``leaving``; True when any was.

        ``generation`` is a number that changes whenever a row dies.
        """
        clock = self.clock
        if generation == self._generation and clock < self._next_end:
            return False
        self._generation = generation
        keep = [
            at for at, row in enumerate(self.rows) if row.alive and clock - row.start < row.owner.request.max_tokens
        ]
        if len(keep) == len(self.rows):
            return False
        for at in sorted({*range(len(self.rows))}.difference(keep)):
            leaving(self, at)
        self.rows = [self.rows[at] for at in keep]
        if keep:
            self._keep(keep)
        return True

    def _keep(self, keep: list[int]) -> None:
        index = mx.array(keep, dtype=mx.int32)
        kv.select(self.caches, keep)
        self._tokens = self._tokens[index]
        if self._counts is not None and self._in_prompt is not None:
            self._counts, self._in_prompt = self._counts[index], self._in_prompt[index]
        self.length = max(clock_length(row, self.clock) for row in self.rows)
        self._renew()

    def extend(self, other: DecodeBatch) -> None:
        """Take over the rows of ``other``, which is of no use afterwards."""
        for row in other.rows:
            row.start += self.clock - other.clock
        kv.extend(self.caches, other.caches)
        self._join_counts(other)
        self.rows = self.rows + other.rows
        self._tokens = mx.concatenate([self._tokens, other._tokens])
        self.length = max(self.length, other.length)
        self._generation = -1
        self._renew()

    def _join_counts(self, other: DecodeBatch) -> None:
        if self._counts is None and other._counts is None:
            return
        known = self._counts if self._counts is not None else other._counts
        vocab = int(known.shape[1]) if known is not None else 0
        ours, theirs = self._count_arrays(vocab), other._count_arrays(vocab)
        self._counts = mx.concatenate([ours[0], theirs[0]])
        self._in_prompt = mx.concatenate([ours[1], theirs[1]])

    def _count_arrays(self, vocab: int) -> tuple[mx.array, mx.array]:
        """Our token counts, begun now where no row of ours has used penalties yet."""
        if self._counts is not None and self._in_prompt is not None:
            return self._counts, self._in_prompt
        return self._begin_counts(vocab)

    def _begin_counts(self, vocab: int) -> tuple[mx.array, mx.array]:
        """Token counts before the first penalised draw. Rows that have drawn already use no penalty, so 0 will do."""
        held = np.zeros((len(self.rows), vocab), dtype=np.bool_)
        for at, row in enumerate(self.rows):
            held[at, row.owner.prompt] = True
        self._counts, self._in_prompt = mx.zeros(held.shape, dtype=mx.float32), mx.array(held)
        return self._counts, self._in_prompt

    # ------------------------------------------------------------------------------------------------ stepping

    def forward(self) -> None:
        """Queue the forward pass of one step on the tokens drawn last."""
        self._logits = self._model(self._tokens, cache=self.caches)[:, -1]
        self.length += 1

    def start_forward(self) -> None:
        """Let the device begin, for a batch whose sampling has to wait for the host."""
        mx.async_eval(self._logits)

    def draw(self, generation: int, allowed: mx.array | None = None) -> Unread:
        """Queue the sampling of one token per row on the logits of ``forward``."""
        logits = self._logits
        if logits is None:
            raise RuntimeError("draw() without forward()")
        self._logits = None
        if self.plan.penalties is not None and self._counts is None:
            self._begin_counts(int(logits.shape[-1]))
        uniform = None if self.plan.greedy else self._uniform()
        drawn = sample(self.plan, logits, uniform, self._counts, self._in_prompt, allowed)
        if self._counts is not None:
            self._counts = self._counts.at[mx.arange(len(self.rows)), drawn.tokens[:, 0]].add(1.0)
        self._tokens = drawn.tokens
        self.clock += 1
        mx.async_eval(*[part for part in drawn if part is not None])
        return Unread(
            self.rows,
            self._refs,
            drawn,
            self.clock,
            self._starts,
            self._ending(),
            self._eos,
            bool(self.constrained),
            self.plan.logprob_rows,
            generation,
        )

    def _ending(self) -> list[int]:
        """Positions of the rows that have drawn their last token."""
        if self.clock < self._next_end:
            return []
        clock = self.clock
        return [at for at, row in enumerate(self.rows) if clock - row.start >= row.owner.request.max_tokens]

    def _uniform(self) -> mx.array:
        """This step's column of random numbers, made for many steps at a time."""
        at = self.clock - self._uniforms_from
        if self._uniforms is None or at >= _UNIFORMS_AHEAD:
            positions = [self.clock - row.start for row in self.rows]
            numbers = uniforms([row.seed for row in self.rows], positions, _UNIFORMS_AHEAD) * self.plan.spread
            self._uniforms = mx.array(numbers[:, :, None])
            self._uniforms_from = self.clock
            at = 0
        return self._uniforms[at]

    # ------------------------------------------------------------------------------------------------ constraints

    def allowed(self, vocab: int, failed: MaskFailure) -> mx.array | None:
        """The tokens each row may choose, (B, vocab) bool; None when no constraint has anything against any."""
        words = -(-vocab // 32)
        masks: list[Bitmask] = [np.full(words, 0xFFFFFFFF, dtype=np.uint32)]
        which = [0] * len(self.rows)
        for at in self.constrained:
            row = self.rows[at]
            mask = _mask_of(row, words, vocab, failed) if row.alive else None
            if mask is not None:
                which[at] = len(masks)
                masks.append(mask)
        if len(masks) == 1:
            return None
        return expand_bits(mx.array(np.stack(masks))[mx.array(which, dtype=mx.int32)], vocab)


def _mask_of(row: Row, words: int, vocab: int, failed: MaskFailure) -> Bitmask | None:
    """What a row's constraint allows, or None for everything, also after reporting that it failed."""
    mask: Bitmask = np.zeros(words, dtype=np.uint32)
    try:
        if row.constraint is None or not row.constraint.mask(mask):
            return None
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic in a native matcher is no Exception
        failed(row, error)
        return None
    if vocab % 32:
        mask[-1] &= np.uint32((1 << (vocab % 32)) - 1)
    if mask.any():
        return mask
    failed(row, RuntimeError("it allows no token here"))
    return None


def clock_length(row: Row, clock: int) -> int:
    """Tokens of a row in the cache at a clock of its batch."""
    return int(row.owner.prompt.size) - 1 + clock - row.start
