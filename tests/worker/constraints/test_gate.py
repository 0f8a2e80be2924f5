"""The grammar waits for the end of the reasoning."""

from __future__ import annotations

import re

import numpy as np

from inference.worker.constraints.gate import Reasoning, ReasoningGate
from inference.worker.core.types import Bitmask

TOKENS = [b"<think>", b"</thi", b"nk>", b"a", b"{", b"}"]
OPEN, END_1, END_2, WORD, BRACE, CLOSE = range(6)
END = re.compile(re.escape("</think>"))


class Vocabulary:
    def raw_of(self, token: int) -> bytes:
        return TOKENS[token]


class Braces:
    """Allows "{" and then "}"."""

    def __init__(self) -> None:
        self.taken: list[int] = []

    def mask(self, out: Bitmask) -> bool:
        out[0] |= np.uint32(1 << (BRACE + len(self.taken)))
        return True

    def advance(self, token: int) -> None:
        self.taken.append(token)

    @property
    def finished(self) -> bool:
        return len(self.taken) == 2


def mask(gate: ReasoningGate) -> set[int] | None:
    out: Bitmask = np.zeros(1, np.uint32)
    if not gate.mask(out):
        return None
    return {token for token in range(len(TOKENS)) if out[0] >> token & 1}


def test_everything_is_allowed_until_the_reasoning_ends() -> None:
    gate = ReasoningGate(Braces(), Reasoning(END), Vocabulary())
    for token in (WORD, END_1, END_2):
        assert mask(gate) is None
        gate.advance(token)
    assert mask(gate) == {BRACE}
    gate.advance(BRACE)
    assert not gate.finished
    gate.advance(CLOSE)
    assert gate.finished


def test_a_model_may_open_its_reasoning_itself_but_only_first() -> None:
    gate = ReasoningGate(Braces(), Reasoning(END, open=False, start_token=OPEN), Vocabulary())
    assert mask(gate) == {OPEN, BRACE}
    gate.advance(OPEN)
    assert mask(gate) is None
    gate.advance(END_1)
    gate.advance(END_2)
    assert mask(gate) == {BRACE}


def test_a_model_that_does_not_think_is_held_at_once() -> None:
    gate = ReasoningGate(Braces(), Reasoning(END, open=False, start_token=OPEN), Vocabulary())
    gate.advance(BRACE)
    assert mask(gate) == {CLOSE}
