"""Lets a model think first: the grammar begins where the answer begins."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

from inference.worker.core.types import Bitmask, Constraint

_TAIL = 256


class RawTokens(Protocol):
    def raw_of(self, token: int) -> bytes: ...


@dataclass(frozen=True)
class Reasoning:
    """How this model's answers separate reasoning. ``end`` matches where the answer begins, in the decoded text.

    ``open`` says the prompt opened the reasoning already, ``start_token`` is the token by which the model may open it.
    """

    end: re.Pattern[str]
    open: bool = True
    start_token: int | None = None


class ReasoningGate:
    """A ``Constraint`` that allows everything until the reasoning has ended, and then what ``inner`` allows."""

    def __init__(self, inner: Constraint, reasoning: Reasoning, tokens: RawTokens) -> None:
        self._inner = inner
        self._reasoning = reasoning
        self._tokens = tokens
        self._thinking = reasoning.open
        self._may_start = not reasoning.open and reasoning.start_token is not None
        self._tail = b""

    def mask(self, out: Bitmask) -> bool:
        if self._thinking:
            return False
        limited = self._inner.mask(out)
        start = self._reasoning.start_token
        if limited and self._may_start and start is not None:
            out[start // 32] |= out.dtype.type(1 << (start % 32))
        return limited

    def advance(self, token: int) -> None:
        if self._thinking:
            self._tail = (self._tail + self._tokens.raw_of(token))[-_TAIL:]
            if self._reasoning.end.search(self._tail.decode("utf-8", "replace")):
                self._thinking = False
        elif self._may_start and token == self._reasoning.start_token:
            self._thinking, self._may_start = True, False
        else:
            self._may_start = False
            self._inner.advance(token)

    @property
    def finished(self) -> bool:
        return not self._thinking and self._inner.finished
