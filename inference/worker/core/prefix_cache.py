"""What a core keeps of the prompts and answers it has gone through, and finds again for the next.

Kept are a prompt when it is in the caches, what an abandoned prompt had come to, and an answer when it ends. Found is
the longest beginning that a new prompt has in common with any of them; only what follows is computed. Where a model
has layers that cannot be cut (see ``prefix_kv``), the position must have been kept: so such prompts are also kept a
little before their end, where the next turn of a conversation departs from what was templated for the answer, and at
the place where a second prompt departs from the first.
"""

from __future__ import annotations

import logging
from typing import Any

import mlx.core as mx
import numpy as np

from inference.worker.core import caches as kv
from inference.worker.core.decode import DecodeBatch, clock_length
from inference.worker.core.prefix_kv import Layout, Live, Source
from inference.worker.core.prefix_store import Tokens
from inference.worker.core.prefix_tree import Found, PrefixTree
from inference.worker.logs import one_line

log = logging.getLogger(__name__)

SHORTEST = 32
"""Tokens below which it is quicker to compute than to look: short prompts are prefilled several at a time."""

_ANSWER = 16
_BEFORE_END = 16
_LONG = 256
_DEPARTS = 64


class PrefixCache:
    """At most ``limit`` bytes; 0 switches it off. ``match``, ``limit`` and the counts are for any thread."""

    def __init__(self, layout: Layout, limit: int, token_bytes: int) -> None:
        self.layout = layout
        self.limit = limit
        self.token_bytes = token_bytes
        self.tree = PrefixTree(layout.cuttable, token_bytes)
        self.asked = 0
        self.found = 0
        self.defects = 0
        self._reserved = 0

    @classmethod
    def of(cls, model: Any, limit: int) -> PrefixCache | None:
        """A cache for ``model``; None when in a few tiny forward passes what was kept does not go on as it was."""
        try:
            layout = Layout(model)
            token_bytes = _agrees(model, layout)
            if token_bytes:
                return cls(layout, limit, token_bytes)
            reason = "a prompt that was kept does not go on as it was"
        except Exception as error:
            reason = one_line(error)
        log.warning("no prefix cache for this model: %s", reason)
        return None

    @property
    def enabled(self) -> bool:
        return self.limit > 0

    def match(self, prompt: Tokens) -> int:
        """How many tokens of a prompt would not be computed. Its last one always is: it makes the first logits."""
        if not self.enabled:
            return 0
        return self._worth(self.tree.match(prompt[:-1]))

    @property
    def nbytes(self) -> int:
        """What it holds, and what is being read from disk for it."""
        return self.tree.nbytes + self._reserved

    def worth_waiting(self, tokens: int) -> bool:
        """Whether so many tokens would be there for others when one request has computed them."""
        return self.enabled and tokens * self.token_bytes <= self.limit // 2

    @staticmethod
    def _worth(length: int) -> int:
        return length if length >= SHORTEST else 0

    # ------------------------------------------------------------------------------------------- stepping thread

    def take(self, prompt: Tokens) -> tuple[kv.Caches | None, int]:
        """Single-row caches with the beginning of a prompt, and its length; None when there is nothing."""
        if not self.enabled:
            return None, 0
        if prompt.size > SHORTEST:
            self.asked += int(prompt.size)
        found = self.tree.find(prompt[:-1])
        if found is None or not self._worth(found.length):
            return None, 0
        try:
            caches = self._restored(found, int(prompt.size))
        except Exception as error:
            self._defect("used", error)
            return None, 0
        self.found += found.length
        return caches, found.length

    def _restored(self, found: Found, prompt: int) -> kv.Caches:
        room = prompt - found.length + 1
        return self.layout.restored(found.pieces, found.whole, found.length, room)

    def places(self, prompt: Tokens, taken: int) -> list[int]:
        """Where prefill should pause so that the prompt can be kept there too, after ``taken`` tokens."""
        end = int(prompt.size) - 1
        if self.layout.cuttable or not self.enabled or end - taken < _LONG:
            return []
        common = self.tree.common(prompt[:-1])
        departure = [common] if common >= taken + _DEPARTS else []
        return sorted({*departure, end - _BEFORE_END} - {end})

    def keep(self, tokens: Tokens, caches: kv.Caches, row: int | None = None) -> None:
        """Keep what ``caches``, or a row of them, hold, which is ``tokens``."""
        if self.enabled and tokens.size >= SHORTEST:
            try:
                self.insert(tokens, Live(self.layout, caches, int(tokens.size), row))
            except Exception as error:
                self._defect("kept", error)

    def keep_answer(self, batch: DecodeBatch, at: int) -> None:
        """Keep the prompt and the answer of a row that leaves its batch."""
        row = batch.rows[at]
        length = clock_length(row, batch.clock)
        prompt = row.owner.prompt
        if not self.enabled or row.owner.failed or length - prompt.size < _ANSWER:
            return
        tokens = np.concatenate([prompt, np.array(row.drawn, dtype=np.int32)])[:length]
        if tokens.size == length:
            self.keep(tokens, batch.caches, at if batch.shared else None)

    def insert(self, tokens: Tokens, source: Source) -> None:
        """Keep ``tokens`` of ``source``; raises what MLX or the source raises."""
        mx.async_eval(self.tree.insert(tokens, source, self.limit - self._reserved))

    def reserve(self, nbytes: int) -> bool:
        """Make room for what is about to be read from disk, and hold it until it is reserved anew; 0 gives it back."""
        self._reserved = 0
        if nbytes > self.limit:
            return False
        self.tree.trim(self.limit - nbytes)
        self._reserved = nbytes
        return True

    def trim(self) -> None:
        """Come back within ``limit``, at once."""
        if self.nbytes > self.limit:
            self.tree.trim(max(0, self.limit - self._reserved))
            mx.clear_cache()

    def clear(self) -> None:
        """Forget everything: what was kept may be wrong."""
        self.defects += 1
        self.tree.clear()

    def _defect(self, what: str, error: Exception) -> None:
        """A request never fails for the cache's sake."""
        log.warning("a cached prefix could not be %s, all were dropped: %s", what, one_line(error))
        self.clear()


def _agrees(model: Any, layout: Layout) -> int:
    """Bytes of a token's keys and values (at least 1); 0 when what was kept does not go on as it was."""
    prompt, following = np.array([1, 2, 3, 4, 5, 6, 7], dtype=np.int32), [[2]]
    caches = kv.new_caches(model)
    model(mx.array(prompt)[None], cache=caches)
    token_bytes = layout.learn(caches, prompt.size)
    tree = PrefixTree(layout.cuttable, token_bytes)
    mx.eval(tree.insert(prompt, Live(layout, caches, prompt.size), 1 << 62))
    wanted = model(mx.array(following), cache=caches)[0, -1]
    length = 4 if layout.cuttable else int(prompt.size)
    found = tree.find(prompt[:length])
    if found is None or found.length != length:
        return 0
    restored = layout.restored(found.pieces, found.whole, length, int(prompt.size) - length + 1)
    if length < prompt.size:
        model(mx.array(prompt[length:])[None], cache=restored)
    same = kv.near(model(mx.array(following), cache=restored)[0, -1], wanted, caches)
    return max(token_bytes, 1) if same else 0
