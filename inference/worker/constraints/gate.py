"""Lets a model think first, for so many tokens at most: the grammar begins where the answer begins."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from inference.worker.core.types import Bitmask, Constraint

_ALL = np.uint32(0xFFFFFFFF)


class RawTokens(Protocol):
    def raw_of(self, token: int) -> bytes: ...


@dataclass(frozen=True)
class Reasoning:
    """How this model's answers separate reasoning: the texts of the two markers.

    ``open`` says the prompt opened the reasoning already; ``start_token`` is the start marker where that is one token,
    by which a model may open its reasoning although a grammar waits. ``within`` says that the grammar describes the
    reasoning too, so that it sees every token.
    """

    start: str
    end: str
    open: bool = True
    start_token: int | None = None
    within: bool = False


@dataclass(frozen=True)
class Budget:
    """At most ``tokens`` tokens of reasoning; ``endings`` has the tokens of the end marker and of its endings."""

    tokens: int
    endings: Mapping[str, list[int]]


class ReasoningGate:
    """A ``Constraint`` that allows everything until the reasoning has ended, and then what ``inner`` allows.

    ``forbidden`` are tokens that must not come while the model thinks and an ``inner`` waits: those that end the
    answer or begin a call, which would both be lost there. Between the markers ``budget`` counts every token; when it
    is used up the tokens of the end marker, or what is missing of it, are the only ones allowed.
    """

    def __init__(
        self,
        inner: Constraint | None,
        reasoning: Reasoning,
        tokens: RawTokens,
        *,
        budget: Budget | None = None,
        forbidden: Collection[int] = (),
    ) -> None:
        self._inner = inner
        self._reasoning = reasoning
        self._tokens = tokens
        self._budget = budget
        self._left = budget.tokens if budget is not None else 0
        self._forbidden = tuple(forbidden) if inner is not None else ()
        self._start, self._end = reasoning.start.encode(), reasoning.end.encode()
        self._thinking = reasoning.open
        self._may_start = not reasoning.open and reasoning.start_token is not None
        self._tail = b""
        self._forced: deque[int] = deque()
        self._spend(0)

    def mask(self, out: Bitmask) -> bool:
        if self._forced:
            _allow(out, self._forced[0])
            return True
        if self._thinking and not self._reasoning.within:
            return self._free(out)
        limited = self._inner is not None and self._inner.mask(out)
        if limited and self._may_start and self._reasoning.start_token is not None:
            _allow(out, self._reasoning.start_token)
        return limited

    def advance(self, token: int) -> None:
        if self._forced:
            self._forced.popleft()
        if self._reasoning.within:
            self._follow(token)
            self._feed_inner(token)
        elif self._thinking:
            self._follow(token)
        elif self._may_start and token == self._reasoning.start_token:
            self._may_start = False
            self._think()
        else:
            self._may_start = False
            if self._inner is None:
                self._follow(token)
            self._feed_inner(token)

    @property
    def finished(self) -> bool:
        return not self._thinking and self._inner is not None and self._inner.finished

    def _feed_inner(self, token: int) -> None:
        if self._inner is not None:
            self._inner.advance(token)

    def _free(self, out: Bitmask) -> bool:
        """Everything but what is forbidden."""
        if not self._forbidden:
            return False
        out[:] = _ALL
        for token in self._forbidden:
            if token // 32 < out.size:
                out[token // 32] &= ~out.dtype.type(1 << (token % 32))
        return True

    def _follow(self, token: int) -> None:
        """Look for the marker that changes the state; a token of the reasoning itself costs one of the budget."""
        marker = self._end if self._thinking else self._start
        self._tail += self._tokens.raw_of(token)
        if marker in self._tail:
            if self._thinking:
                self._thinking, self._tail = False, b""
                self._forced.clear()
            else:
                self._think()
            return
        self._tail = self._tail[-len(marker) :]
        if self._thinking:
            self._spend(1)

    def _think(self) -> None:
        self._thinking, self._tail = True, b""
        self._spend(0)

    def _spend(self, tokens: int) -> None:
        if self._budget is None or not self._thinking or self._forced:
            return
        self._left -= tokens
        if self._left <= 0:
            self._forced.extend(self._budget.endings[self._missing()])

    def _missing(self) -> str:
        """What of the end marker the model has not written yet."""
        marker = self._reasoning.end
        for size in range(len(marker) - 1, 0, -1):
            if self._tail.endswith(marker[:size].encode()):
                return marker[size:]
        return marker


def _allow(out: Bitmask, token: int) -> None:
    out[token // 32] |= out.dtype.type(1 << (token % 32))
