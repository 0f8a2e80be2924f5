"""The grammar waits for the end of the reasoning, which may have a bound."""

from __future__ import annotations

import numpy as np
import pytest

from inference.worker.constraints.gate import Budget, Reasoning, ReasoningGate
from inference.worker.core.types import Bitmask

TOKENS = [b"<think>", b"</thi", b"nk>", b"a", b"{", b"}", b"</think>"]
OPEN, END_1, END_2, WORD, BRACE, CLOSE, END = range(7)
OPENED = Reasoning("<think>", "</think>")
MAY_OPEN = Reasoning("<think>", "</think>", open=False, start_token=OPEN)
ENDINGS = {"</think>": [END], "nk>": [END_2], "hink>": [WORD, END_2]}


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


class Anything(Braces):
    """A grammar that describes the reasoning too."""

    def mask(self, out: Bitmask) -> bool:
        out[0] |= np.uint32(0x7F)
        return True


def mask(gate: ReasoningGate) -> set[int] | None:
    out: Bitmask = np.zeros(1, np.uint32)
    if not gate.mask(out):
        return None
    return {token for token in range(len(TOKENS)) if out[0] >> token & 1}


def budget(tokens: int) -> Budget:
    return Budget(tokens, ENDINGS)


def test_everything_is_allowed_until_the_reasoning_ends() -> None:
    gate = ReasoningGate(Braces(), OPENED, Vocabulary())
    for token in (WORD, END_1, END_2):
        assert mask(gate) is None
        gate.advance(token)
    assert mask(gate) == {BRACE}
    gate.advance(BRACE)
    assert not gate.finished
    gate.advance(CLOSE)
    assert gate.finished


def test_a_model_may_open_its_reasoning_itself_but_only_first() -> None:
    gate = ReasoningGate(Braces(), MAY_OPEN, Vocabulary())
    assert mask(gate) == {OPEN, BRACE}
    gate.advance(OPEN)
    assert mask(gate) is None
    gate.advance(END_1)
    gate.advance(END_2)
    assert mask(gate) == {BRACE}


def test_a_model_that_does_not_think_is_held_at_once() -> None:
    gate = ReasoningGate(Braces(), MAY_OPEN, Vocabulary())
    gate.advance(BRACE)
    assert mask(gate) == {CLOSE}


def test_neither_the_end_of_the_answer_nor_a_call_can_be_lost_in_the_reasoning() -> None:
    gate = ReasoningGate(Braces(), OPENED, Vocabulary(), forbidden={CLOSE, BRACE, 4096})
    assert mask(gate) == {OPEN, END_1, END_2, WORD, END}
    gate.advance(END)
    assert mask(gate) == {BRACE}
    assert mask(ReasoningGate(None, OPENED, Vocabulary(), forbidden={CLOSE})) is None


@pytest.mark.parametrize("tokens", [0, 1, 2, 7])
@pytest.mark.parametrize("grammar", [True, False])
def test_after_so_many_tokens_of_reasoning_its_end_is_the_only_one_allowed(tokens: int, grammar: bool) -> None:
    gate = ReasoningGate(Braces() if grammar else None, OPENED, Vocabulary(), budget=budget(tokens))
    for _ in range(tokens):
        assert mask(gate) is None
        gate.advance(WORD)
    assert mask(gate) == {END}
    gate.advance(END)
    assert mask(gate) == ({BRACE} if grammar else None)


def test_an_end_that_the_model_has_begun_is_completed() -> None:
    gate = ReasoningGate(None, OPENED, Vocabulary(), budget=budget(2))
    gate.advance(WORD)
    gate.advance(END_1)
    assert mask(gate) == {END_2}
    gate.advance(END_2)
    assert mask(gate) is None


def test_an_end_of_its_own_leaves_the_rest_for_a_second_thought() -> None:
    gate = ReasoningGate(None, OPENED, Vocabulary(), budget=budget(3))
    for token in (WORD, WORD, END, WORD, WORD, WORD, WORD, OPEN):
        assert mask(gate) is None
        gate.advance(token)
    assert mask(gate) is None
    gate.advance(WORD)
    assert mask(gate) == {END}


def test_without_any_budget_left_a_thought_ends_where_it_begins() -> None:
    gate = ReasoningGate(Braces(), MAY_OPEN, Vocabulary(), budget=budget(0))
    assert mask(gate) == {OPEN, BRACE}
    gate.advance(OPEN)
    assert mask(gate) == {END}
    gate.advance(END)
    assert mask(gate) == {BRACE}


def test_reasoning_that_the_grammar_describes_is_counted_and_fed_to_it() -> None:
    inner = Anything()
    reasoning = Reasoning("<think>", "</think>", open=False, within=True)
    gate = ReasoningGate(inner, reasoning, Vocabulary(), budget=budget(1))
    for token in (WORD, OPEN, WORD):
        assert mask(gate) == set(range(7))
        gate.advance(token)
    assert mask(gate) == {END}
    gate.advance(END)
    assert mask(gate) == set(range(7))
    assert inner.taken == [WORD, OPEN, WORD, END]
