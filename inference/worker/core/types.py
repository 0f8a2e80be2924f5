"""What goes into the stepping core and what comes out of it. Imports neither MLX nor the model libraries.

A *request* has a key and ``n`` *choices*; each choice is one *row* of the decode batch. A request's events come in the
order ``Started``, ``PrefillProgress``..., ``PromptLogprobs`` (where asked for), ``Tokens`` (shared by all rows of a
step), then one ``ChoiceFinished`` per choice, or one ``RequestFailed`` for the whole request, which ends all its
choices at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from inference.ipc import Sampling

FinishReason = Literal["stop", "length", "cancelled"]
Bitmask: TypeAlias = NDArray[np.uint32]
"""One bit per token id, 32 to a word, lowest bit first: token ``t`` is bit ``t % 32`` of word ``t // 32``."""


class Constraint(Protocol):
    """Which tokens one row may produce next, by what it has produced so far.

    Called on the stepping thread only, so both calls must be quick. An exception ends this row's request and no other.
    """

    def mask(self, out: Bitmask) -> bool:
        """Set the bit of every allowed token in ``out`` (all zero on entry, wide enough for the model's logits).

        True means ``out`` holds the answer, False that every token is allowed. Tokens that end the answer (EOS) are
        allowed like any other, when the text may end here. No bit set at all fails the request.
        """
        ...

    def advance(self, token: int) -> None:
        """Take the token that was chosen. Not called for a token that ended the answer."""
        ...

    @property
    def finished(self) -> bool:
        """True when nothing may follow: the choice ends with ``stop`` at once, without an EOS token."""
        ...


@dataclass(slots=True)
class CoreRequest:
    """One generation in token ids.

    ``eos`` are the token ids that end an answer; leave it empty to ignore EOS. ``constraints`` is empty, or has one
    entry per choice (a constraint has state, so choices never share one). ``max_tokens`` is at least 1. Choice ``i``
    of a request with a seed draws from the seed and ``i``; without a seed from fresh randomness. ``prompt_logprobs``
    asks for the prompt's own log probabilities with that many alternatives (``PromptLogprobs``); such a prompt is
    computed whole, nothing of it is taken from the prefix cache.
    """

    key: str
    prompt: Sequence[int] | NDArray[np.integer]
    max_tokens: int
    eos: frozenset[int] = frozenset()
    sampling: Sampling = field(default_factory=Sampling)
    n: int = 1
    constraints: Sequence[Constraint | None] = ()
    prompt_logprobs: int | None = None


class RowRef(NamedTuple):
    """Names one choice of one request; hashable, and the same object for the whole life of the row."""

    key: str
    choice: int


class TokenLogprobs(NamedTuple):
    """Natural logarithms under the model's raw distribution. ``top_*`` are sorted from the most likely down."""

    logprob: float
    top_ids: list[int]
    top_logprobs: list[float]


@dataclass(slots=True)
class Started:
    """The request has a slot and its prefill began."""

    key: str


@dataclass(slots=True)
class PrefillProgress:
    """``done`` of ``total`` prompt tokens are in the cache, ``cached`` of them from an earlier request, not computed.

    Every request has at least one before its first token; ``cached`` is the same in all of one request.
    """

    key: str
    done: int
    total: int
    cached: int = 0


@dataclass(slots=True)
class PromptLogprobs:
    """One entry per prompt token, None for the first, which nothing precedes. Before the request's first token."""

    key: str
    token_ids: list[int]
    logprobs: list[TokenLogprobs | None]


@dataclass(slots=True)
class Tokens:
    """One token for each row of a step: parallel lists, which the receiver must not change.

    A token that ends the answer (EOS) is delivered too, before its ``ChoiceFinished``. ``logprobs`` is None when no
    row asked for them, else has an entry per row, None for those that did not ask.
    """

    rows: list[RowRef]
    token_ids: list[int]
    logprobs: list[TokenLogprobs | None] | None = None


@dataclass(slots=True)
class ChoiceFinished:
    """The last event of one choice. ``completion_tokens`` counts every token delivered, an EOS included."""

    key: str
    choice: int
    reason: FinishReason
    prompt_tokens: int
    completion_tokens: int


class ConstraintError(Exception):
    """What the request asked for cannot be kept, e.g. a schema that takes too much work: an invalid request.

    Anything else that a constraint raises is a defect of ours.
    """


@dataclass(slots=True)
class RequestFailed:
    """The last event of a whole request. ``code`` is one of ``inference.errors``' codes."""

    key: str
    code: str
    message: str
    param: str | None = None


CoreEvent: TypeAlias = Started | PrefillProgress | PromptLogprobs | Tokens | ChoiceFinished | RequestFailed


@dataclass(slots=True)
class CoreStats:
    """A snapshot. ``running`` and ``queued`` count requests, ``rows`` the choices being decoded, ``step`` never falls.

    ``tokens`` and ``prefilled`` are totals since the start, for rates. ``kv_bytes`` is what the caches hold now.
    """

    running: int = 0
    queued: int = 0
    rows: int = 0
    kv_bytes: int = 0
    step: int = 0
    tokens: int = 0
    prefilled: int = 0
