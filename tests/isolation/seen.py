"""What a client saw of an answer, and when two of them are the same, or one the beginning of the other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

HELD = 60
"""Characters that may come out at the end of an answer because somebody ended it: what may yet have become part of a
stop string, of a call's marker and name, or of a character, was held back until then.
"""

TOLERANCE = 1e-4
"""How far log probabilities of the same token may lie apart: sums of floats in another order."""

Named = Sequence[tuple[Any, float]]
Entry = tuple[Any, float, Named]
"""A token, its log probability, and the likeliest ones with theirs."""


@dataclass
class Said:
    """One choice. ``tokens`` and ``stopped`` (the stop string) where the way it came by tells them."""

    content: str = ""
    reasoning: str = ""
    calls: list[list[str]] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    logprobs: list[Entry] = field(default_factory=list)
    reason: str | None = None
    stopped: str | None = None
    usage: dict[str, int] = field(default_factory=dict)


@dataclass
class Seen:
    """A whole answer or what came of it. ``over``: it came to its own end, which a refusal is too.

    ``cut`` says who ended it, if somebody did. Usage counts no cached tokens: they depend on what was asked before.
    """

    choices: dict[int, Said] = field(default_factory=dict)
    prompt: list[Entry] = field(default_factory=list)
    usage: dict[str, int] = field(default_factory=dict)
    refused: tuple[Any, ...] | None = None
    over: bool = False
    cut: str | None = None

    def choice(self, index: int) -> Said:
        return self.choices.setdefault(index, Said())


def same(found: Seen, alone: Seen) -> None:
    """Assert that an answer in company is the one that the request gets alone."""
    assert found.refused == alone.refused
    assert found.usage == alone.usage
    assert found.choices.keys() == alone.choices.keys()
    _same_entries(found.prompt, alone.prompt)
    for index, said in found.choices.items():
        _same_choice(said, alone.choices[index])


def beginning(found: Seen, alone: Seen) -> None:
    """Assert that what was told of an answer before somebody ended it is what it begins with alone.

    Of what a choice that was ended as ``cancelled`` said the last few characters are not looked at, see ``HELD``, nor
    its log probabilities. ``cut_short`` is for that.
    """
    assert alone.refused is None or not found.choices
    _same_entries(found.prompt, alone.prompt[: len(found.prompt)])
    for index, said in found.choices.items():
        other = alone.choices[index]
        assert said.tokens == other.tokens[: len(said.tokens)], f"choice {index}"
        if said.reason not in (None, "cancelled"):
            _same_choice(said, other)
            continue
        held = 0 if said.reason is None else HELD
        assert other.content.startswith(said.content[: len(said.content) - held])
        assert other.reasoning.startswith(said.reasoning[: len(said.reasoning) - held])
        if held:
            continue
        assert len(said.calls) <= len(other.calls)
        for call, whole in zip(said.calls, other.calls, strict=False):
            assert call[0] == whole[0]
            assert whole[1].startswith(call[1])
        _same_entries(said.logprobs, other.logprobs[: len(said.logprobs)])


def cut_short(said: Said, alone: Said) -> None:
    """Assert that a cancelled choice said what it says alone when ``max_tokens`` ends it after as many tokens."""
    assert said.tokens == alone.tokens
    assert (said.content, said.reasoning, said.calls) == (alone.content, alone.reasoning, alone.calls)
    assert said.usage == alone.usage
    _same_entries(said.logprobs, alone.logprobs)


def _same_choice(said: Said, other: Said) -> None:
    assert said.tokens == other.tokens
    assert (said.content, said.reasoning, said.calls) == (other.content, other.reasoning, other.calls)
    assert (said.reason, said.stopped, said.usage) == (other.reason, other.stopped, other.usage)
    _same_entries(said.logprobs, other.logprobs)


def _same_entries(found: Sequence[Entry], alone: Sequence[Entry]) -> None:
    assert [entry[0] for entry in found] == [entry[0] for entry in alone]
    for (_, logprob, top), (_, other_logprob, other_top) in zip(found, alone, strict=True):
        assert _near(logprob, other_logprob)
        assert len(top) == len(other_top)
        assert all(_near(one[1], other[1]) for one, other in zip(top, other_top, strict=True))
        _same_names(top, other_top)
        _same_names(other_top, top)


def _same_names(top: Named, other: Named) -> None:
    """Two that are as likely as each other may change places, also across the end of the list.

    There may be several of one name: halves of characters all look the same.
    """
    for name, value in top:
        values = [other_value for other_name, other_value in other if other_name == name]
        assert any(_near(value, other_value) for other_value in [*values, other[-1][1]])


def _near(one: float, other: float) -> bool:
    return one == other or abs(one - other) <= TOLERANCE or (math.isnan(one) and math.isnan(other))
