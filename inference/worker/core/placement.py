"""Which rows are stepped in one batch.

In one batch every row is as long as the longest: the caches of the shorter ones are padded, which costs memory and, at
every step, the reading of the padding. Rows of very different length are therefore stepped as two batches, which costs
one more reading of the weights per step. The cheaper of the two is chosen, by bytes.
"""

from __future__ import annotations

from inference.worker.core.caches import ModelFacts
from inference.worker.core.decode import DecodeBatch

_ALWAYS_FINE_BYTES = 64 * 1024 * 1024
_SHARE_OF_WEIGHTS = 0.25


class Placement:
    """``weight_bytes`` is what one forward pass reads of the model, 0 where it is not known."""

    def __init__(self, facts: ModelFacts, weight_bytes: int) -> None:
        self._facts = facts
        self._limit = max(_ALWAYS_FINE_BYTES, int(_SHARE_OF_WEIGHTS * weight_bytes))

    def fits(self, one: DecodeBatch, other: DecodeBatch) -> bool:
        """Whether the rows of both are better stepped together."""
        if not self._facts.batching:
            return False
        shorter = one if one.length < other.length else other
        padding = abs(one.length - other.length) * len(shorter.rows)
        return padding * self._facts.kv_bytes_per_token <= self._limit

    def partner(self, batch: DecodeBatch, others: list[DecodeBatch]) -> DecodeBatch | None:
        """The batch that ``batch`` should join, the nearest in length."""
        fitting = [other for other in others if other is not batch and self.fits(batch, other)]
        return min(fitting, key=lambda other: abs(other.length - batch.length), default=None)
