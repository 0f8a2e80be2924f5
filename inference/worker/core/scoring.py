"""The log probabilities of a prompt's own tokens: what the model thought of each before it was told.

The logits of every prefill chunk are made into numbers on the device: one for the prompt token that follows each
position, and the most likely alternatives. Only these come to the host, and only when the device is done with them
anyway: those of a chunk when a later one is queued, the last ones with the request's first token. So no stream waits
for them.

Shapes: T positions of a chunk, V logits, N alternatives.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from inference.worker.core.types import PromptLogprobs, TokenLogprobs

if TYPE_CHECKING:
    from inference.worker.core.lifecycle import Lifecycle
    from inference.worker.core.rows import Row, Running

BLOCK = 256
"""Positions of a chunk at most. Their logits in float32 are the largest array that a worker makes beside the model."""

_UNREAD_CHUNKS = 2
_PART = 128


class _Scored(NamedTuple):
    """Of one chunk, on the device: (T,) log probabilities, (T, 1) bool, and (T, N) unsorted alternatives or None."""

    logprobs: mx.array
    sound: mx.array
    top_ids: mx.array | None = None
    top_logprobs: mx.array | None = None


class PromptScores:
    """The scores of one prompt while it is prefilled. ``top`` is how many alternatives each token gets."""

    def __init__(self, prompt: NDArray[np.int32], top: int) -> None:
        self._prompt = prompt
        self._top = top
        self._queued = 0
        self._unread: deque[_Scored] = deque()
        self._read: list[TokenLogprobs | None] = [None]
        self._sound = True

    def queue(self, logits: mx.array) -> None:
        """Take the logits (1, T, V) that the next chunk of the prompt gave, T at most ``BLOCK``; does not wait for
        them, nor for those of the chunk before.
        """
        own = logits.squeeze(0).astype(mx.float32)
        begin = self._queued + 1
        self._queued += own.shape[0]
        scored = _scored(own, mx.array(self._prompt[begin : begin + own.shape[0]]), self._top)
        mx.async_eval(*[part for part in scored if part is not None])
        self._unread.append(scored)
        while len(self._unread) > _UNREAD_CHUNKS:
            self._take(self._unread.popleft())

    def all(self) -> list[TokenLogprobs | None]:
        """One entry per prompt token, waiting for the device. ``ArithmeticError`` when logits were not numbers."""
        while self._unread:
            self._take(self._unread.popleft())
        if not self._sound:
            raise ArithmeticError("the model computed logits that are not numbers")
        if len(self._read) != self._prompt.size:
            raise ArithmeticError("the model gave no logits for a part of it")
        return self._read

    def _take(self, scored: _Scored) -> None:
        self._sound = self._sound and bool(np.array(scored.sound).all())
        logprobs = np.array(scored.logprobs).tolist()
        if scored.top_ids is None or scored.top_logprobs is None:
            self._read += [TokenLogprobs(logprob, [], []) for logprob in logprobs]
            return
        ids, values = np.array(scored.top_ids), np.array(scored.top_logprobs)
        order = np.lexsort((ids, -values), axis=-1)
        ids, values = np.take_along_axis(ids, order, axis=-1), np.take_along_axis(values, order, axis=-1)
        self._read += map(TokenLogprobs, logprobs, ids.tolist(), values.tolist())


def _scored(logits: mx.array, following: mx.array, top: int) -> _Scored:
    """``logits`` (T, V) float32, ``following`` (T,) the prompt token after each position."""
    normaliser = mx.logsumexp(logits, axis=-1, keepdims=True)
    logprobs = (mx.take_along_axis(logits, following[:, None], axis=-1) - normaliser)[:, 0]
    sound = mx.isfinite(normaliser)
    if not top:
        return _Scored(logprobs, sound)
    ids, values = _largest(logits, min(top, logits.shape[-1]))
    return _Scored(logprobs, sound, ids, values - normaliser)


def _largest(logits: mx.array, count: int) -> tuple[mx.array, mx.array]:
    """Ids and values (T, count) of the largest logits, in no order.

    The largest lie in those parts of a row whose maxima are the largest. Only these parts are partitioned: a partition
    of the whole row would take several arrays of its size.
    """
    vocab = logits.shape[-1]
    if vocab % _PART or count * 2 >= vocab // _PART:
        ids = mx.argpartition(-logits, count - 1, axis=-1)[:, :count]
        return ids, mx.take_along_axis(logits, ids, axis=-1)
    parts = logits.reshape(logits.shape[0], -1, _PART)
    chosen = mx.argpartition(-mx.max(parts, axis=-1), count - 1, axis=-1)[:, :count]
    inner = mx.take_along_axis(parts, chosen[:, :, None], axis=1).reshape(logits.shape[0], -1)
    at = mx.argpartition(-inner, count - 1, axis=-1)[:, :count]
    ids = mx.take_along_axis(chosen, at // _PART, axis=-1) * _PART + at % _PART
    return ids, mx.take_along_axis(inner, at, axis=-1)


class Scoring:
    """The scored prompts that are in the cache and whose first token is awaited."""

    def __init__(self, life: Lifecycle) -> None:
        self._life = life
        self._awaited: list[Running] = []

    def prefilled(self, requests: Iterable[Running]) -> None:
        """These decode from now on."""
        self._await([*self._awaited, *requests])

    def deliver(self, rows: Iterable[Row]) -> bool:
        """Report the scores of the requests among these, before the tokens that were just read for their rows.

        False when some were not sound, and their requests failed.
        """
        if not self._awaited:
            return True
        owners = {row.owner for row in rows if row.alive}
        due = [one for one in self._awaited if one in owners]
        unsound = [one for one in due if not self._report(one)]
        self._await(self._awaited)
        return not unsound

    def _await(self, requests: list[Running]) -> None:
        self._awaited = [one for one in requests if one.scores is not None and one.open_rows]

    def _report(self, running: Running) -> bool:
        scores, running.scores = running.scores, None
        if scores is None:
            return True
        try:
            event = PromptLogprobs(running.request.key, running.prompt.tolist(), scores.all())
        except Exception as error:
            self._life.fail(running, "internal_error", f"the prompt's log probabilities failed: {error}")
            return False
        self._life.events.append(event)
        if running.prompt.size > BLOCK:
            mx.clear_cache()
        return True
