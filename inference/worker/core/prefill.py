"""Bringing prompts into caches in chunks whose size follows from measured time.

All of a prompt but its last token is prefilled; the last token is the row's first input in the decode batch. So a new
row's first step is an ordinary step of the batch it joins.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from inference.worker.core import caches as kv
from inference.worker.core.decode import DecodeBatch
from inference.worker.core.prefix_cache import PrefixCache
from inference.worker.core.rows import Running
from inference.worker.core.scoring import BLOCK

_SMALLEST_CHUNK = 32
_LARGEST_CHUNK = 2048
_FIRST_CHUNK = 512
_IDLE_BUDGET_S = 0.5
_REMEMBERED = 48
_STEPS = 12
_WORTH = 2
"""How many times what a chunk costs for itself its tokens should take, where a budget allows only tiny chunks."""
_PATIENCE = 4
"""How many budgets such a chunk may take."""
_LEAST_SHARE = 0.1
"""The least of an average token's time that a token is believed to take."""


class ChunkSizer:
    """How many prompt tokens to prefill at once.

    Beside running streams, as many as take ``budget_s`` or, where a decode step alone is longer, as long as one step:
    then a stream's gap is at most doubled and prefill still has half of the device. With nothing decoding, as many as
    take half a second, so that a cancellation or a new request never waits for long. Sizes are powers of two, so that
    the device sees few shapes.

    A chunk costs something for itself (the weights are read, the device is set up) and something per token. Where the
    first is much, smaller chunks would do little but pay it again and again: then a chunk is so large that its tokens
    take most of its time, or half of it where that is more than a few budgets.

    Of the last measurements of a size the fastest counts: what makes one slower (kernels compiled for a new shape,
    which takes seconds on CUDA; another program's turn) says nothing of the next, and would leave tiny chunks behind.
    """

    def __init__(self, budget_s: float, largest: int = _LARGEST_CHUNK) -> None:
        self._budget_s = budget_s
        self._largest = largest
        self._seen: deque[tuple[int, float]] = deque(maxlen=_REMEMBERED)
        self._step_s: deque[float] = deque(maxlen=_STEPS)
        self._chunks = deque([0, 0, 0], maxlen=3)
        self._last_step_end = 0.0

    def size(self, decoding: bool) -> int:
        """Tokens of the next chunk."""
        if not self._seen:
            return min(_FIRST_CHUNK, self._largest)
        seconds = max(self._budget_s, self._step()) if decoding else max(self._budget_s, _IDLE_BUDGET_S)
        own, token = self._cost()
        within = (seconds - own) / token
        worth = min(_WORTH * own, max(_PATIENCE * seconds - own, own)) / token
        size = _SMALLEST_CHUNK
        while size * 2 <= max(within, worth) and size * 2 <= self._largest:
            size *= 2
        return min(size, self._largest)

    def token_s(self) -> float:
        """Seconds a prompt token takes in the largest chunks measured, 0 while unknown."""
        if not self._seen:
            return 0.0
        size = max(size for size, _ in self._seen)
        return min(seconds for own, seconds in self._seen if own == size) / size

    def _cost(self) -> tuple[float, float]:
        """Seconds of a chunk for itself, and of each of its tokens, from the smallest and the largest measured.

        A chunk is not believed to take longer than a larger one, nor than smaller ones in its place.
        """
        best: dict[int, float] = {}
        for size, seconds in self._seen:
            best[size] = min(seconds, best.get(size, seconds))
        few, many = min(best), max(best)
        quick = min(best.values())
        slow = min(seconds * many / size for size, seconds in best.items())
        evenly = slow / many
        token = max((slow - quick) / (many - few), _LEAST_SHARE * evenly) if many > few else evenly
        return max(0.0, slow - token * many), max(token, 1e-9)

    def pause(self) -> None:
        """Nothing is stepped for a while."""
        self._last_step_end = 0.0

    def queued(self, tokens: int) -> None:
        """A chunk was queued beside the decode step under way."""
        self._chunks[-1] = tokens

    def stepped(self, decoding: bool) -> None:
        """A step is over. A chunk lies on the device between two decode steps, and the read two steps later is the
        first to wait for it.
        """
        now = time.perf_counter()
        if self._last_step_end and decoding:
            if self._chunks[0]:
                self.saw_chunk(self._chunks[0], now - self._last_step_end, beside_step=True)
            else:
                self.saw_step(now - self._last_step_end)
        self._last_step_end = now
        self._chunks.append(0)

    def saw_step(self, seconds: float) -> None:
        """A step without a chunk beside it took this long."""
        self._step_s.append(seconds)

    def saw_chunk(self, tokens: int, seconds: float, *, beside_step: bool) -> None:
        """A chunk of ``tokens`` took this long, together with a decode step or alone."""
        if beside_step:
            seconds -= min(self._step(), 0.9 * seconds)
        if tokens >= _SMALLEST_CHUNK:
            size = 1 << (tokens.bit_length() - 1)
            self._seen.append((size, seconds * size / tokens))

    def _step(self) -> float:
        """Seconds of a decode step alone, 0 while unknown."""
        return min(self._step_s, default=0.0)


class PrefillJob:
    """One prompt that goes through in chunks, or several that fit into one chunk together.

    ``alone``: it must not be put together with others, because that failed before or because it is scored. ``cached``
    tokens were found in the prefix cache; ``expected`` is how many should be, before it is begun. At the ``places`` a
    chunk ends and what is there is kept for others. ``behind`` is a job, and how far it must have come, that computes
    the beginning of this one too.
    """

    def __init__(self, model: Any, running: Sequence[Running], batching: bool, prefixes: PrefixCache | None) -> None:
        self._model = model
        self._batching = batching
        self._prefixes = prefixes
        self.running = list(running)
        self.total = max(int(one.prompt.size) - 1 for one in running)
        self.done = 0
        self.cached = 0
        self.expected = 0
        self.begun = False
        self.alone = any(one.scores is not None for one in running)
        self.places: set[int] = set()
        self.behind: tuple[PrefillJob, int] | None = None
        self.caches: kv.Caches = []

    @property
    def finished(self) -> bool:
        return self.begun and self.done >= self.total

    @property
    def remaining(self) -> int:
        return self.total - (self.done if self.begun else self.expected)

    @property
    def prompt(self) -> NDArray[np.int32]:
        """Of a job with one prompt, what it prefills."""
        return self.running[0].prompt[:-1]

    def advance(self, tokens: int) -> int:
        """Queue the next chunk of at most ``tokens``; returns the prompt tokens it holds, over all prompts."""
        if len(self.running) > 1:
            return self._advance_together()
        if not self.begun:
            self._begin()
        scores = self.running[0].scores
        ahead = min((place for place in self.places if place > self.done), default=self.total)
        count = min(tokens if scores is None else min(tokens, BLOCK), ahead - self.done)
        if count:
            logits = self._model(mx.array(self.prompt[self.done : self.done + count])[None], cache=self.caches)
            if scores is not None:
                scores.queue(logits)
            self.done += count
            mx.async_eval(kv.arrays_of(self.caches))
        if self.done in self.places:
            self.keep()
        return count

    def _advance_together(self) -> int:
        prompts = [one.prompt[:-1].tolist() for one in self.running]
        self.begun = True
        self.caches = kv.prefill_together(self._model, prompts)
        self.done = self.total
        mx.async_eval(kv.arrays_of(self.caches))
        return sum(map(len, prompts))

    def _begin(self) -> None:
        """Take the beginning of the prompt from the prefix cache; one that is scored is computed whole."""
        self.begun = True
        caches = None
        if self._prefixes is not None:
            if self.running[0].scores is None:
                caches, self.cached = self._prefixes.take(self.running[0].prompt)
            self.places.update(self._prefixes.places(self.running[0].prompt, self.cached))
        self.caches = kv.new_caches(self._model) if caches is None else caches
        self.done = self.cached

    def start_over(self) -> None:
        """Compute all of the prompt: what was found of it could not be gone on from."""
        self._prefixes = None
        self.begun, self.done, self.cached, self.expected, self.caches = False, 0, 0, 0, []

    def keep(self) -> None:
        """Keep what is in the caches for others to begin with."""
        if self._prefixes is None or not self.begun or any(one.failed for one in self.running):
            return
        if len(self.running) == 1:
            self._prefixes.keep(self.prompt[: self.done], self.caches)
            return
        for row, one in enumerate(self.running):
            self._prefixes.keep(one.prompt[:-1], self.caches, row)

    def wait(self) -> None:
        """Until the device has done all chunks queued so far."""
        if self.total:
            mx.eval(kv.arrays_of(self.caches))

    def batches(self) -> list[DecodeBatch]:
        """The prefilled rows of the requests still open, ready to decode; the choices of a request share its cache."""
        rows = [row for one in self.running for row in one.rows if row.alive]
        if not rows:
            return []
        self.keep()
        if not self._batching:
            return [self._alone(at) for at in range(len(rows))]
        caches = kv.merged([self.caches]) if len(self.running) == 1 else self.caches
        source = [at for at, one in enumerate(self.running) for row in one.rows if row.alive]
        if source != list(range(len(self.running))):
            kv.select(caches, source)
        tokens = [int(row.owner.prompt[-1]) for row in rows]
        length = max(int(row.owner.prompt.size) - 1 for row in rows)
        return [DecodeBatch(self._model, rows, caches, tokens, length)]

    def _alone(self, at: int) -> DecodeBatch:
        """A batch of one choice on caches of its own, for models whose rows cannot share a batch."""
        rows = [row for row in self.running[0].rows if row.alive]
        caches = self.caches if at == len(rows) - 1 else kv.copied(self.caches)
        prompt = self.running[0].prompt
        return DecodeBatch(self._model, [rows[at]], caches, [int(prompt[-1])], int(prompt.size) - 1, shared=False)


def together(waiting: Sequence[Running], chunk: int, largest_waste: float = 0.25) -> int:
    """How many requests from the head of the queue to prefill at once: as many as fit into one chunk of ``chunk``
    tokens, the padding of the shorter ones included, without wasting more than a share on padding.
    """
    longest = total = count = 0
    for one in waiting:
        length = int(one.prompt.size) - 1
        longest, total = max(longest, length), total + length
        padded = longest * (count + 1)
        small = padded <= 8 * _SMALLEST_CHUNK
        if count and (padded > chunk or (padded - total > largest_waste * padded and not small)):
            break
        count += 1
    return max(count, 1)
