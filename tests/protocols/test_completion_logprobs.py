"""Where each token of a text completion begins, and its alternatives by text."""

from __future__ import annotations

import math

import pytest

from inference.ipc import TokenLogprob, TopLogprob
from inference.protocols.openai.completion_logprobs import CompletionLogprobs


def token(raw: bytes, logprob: float = -1.0, *tops: tuple[bytes, float]) -> TokenLogprob:
    text = raw.decode("utf-8", "replace")
    return TokenLogprob(7, text, raw, logprob, [TopLogprob(8, t.decode("utf-8", "replace"), t, p) for t, p in tops])


def prompt(*raws: bytes) -> list[TokenLogprob]:
    return [token(raw, -1.0 if at else math.nan) for at, raw in enumerate(raws)]


CHARACTERS = [b"caf", b"\xc3", b"\xa9 ", b"\xf0\x9f", b"\x8e", b"\x89", b"!"]


@pytest.mark.parametrize(
    ("raws", "text", "offsets"),
    [
        ([b"On", b"ce", b" a"], "Once a", [0, 2, 4]),
        (CHARACTERS, "caf\u00e9 \U0001f389!", [0, 3, 3, 5, 5, 5, 6]),
        ([b"<s>", b"Once", b" a"], "Once a", [0, 0, 4]),
        ([b"<s>", b" Once", b" a"], "Once a", [0, 0, 4]),
        ([b"<s>", b"Once", b"</s>", b"<s>", b" a"], "Once a", [0, 0, 4, 4, 4]),
        ([b"<s>", b"Once"], "<s>Once", [0, 3]),
        ([b"hello", b"world", b"!"], "hello  world!", [0, 5, 12]),
        ([b"a", b"", b"b"], "ab", [0, 1, 1]),
        ([b"a", b"  ", b"  b"], "a    b", [0, 1, 3]),
    ],
)
def test_a_token_of_a_prompt_begins_where_its_text_does(raws: list[bytes], text: str, offsets: list[int]) -> None:
    found = CompletionLogprobs().object(prompt(*raws), text)
    assert found["text_offset"] == offsets
    assert found["token_logprobs"] == [None, *[-1.0] * (len(raws) - 1)]
    assert found["top_logprobs"][0] is None


def test_offsets_go_on_from_chunk_to_chunk() -> None:
    """Also within a character, and after a prompt with tokens that are no text."""
    choice = CompletionLogprobs()
    assert choice.object(prompt(b"<s>", b"\xc3", b"\xa9"), "\u00e9")["text_offset"] == [0, 0, 0]
    assert choice.object([token(b" a")], " a")["text_offset"] == [1]
    assert choice.object([token(b"\xf0\x9f")], "")["text_offset"] == [3]
    assert choice.object([token(b"\x8e\x89"), token(b"x")], "\U0001f389x")["text_offset"] == [3, 4]


def test_of_alternatives_with_one_text_the_most_likely_is_given() -> None:
    """A score is the best if it equals the highest value there."""
    parts = token(b"\xe2", -0.5, (b"\xe2", -0.5), (b"\xe3", -1.5), (b"x", -2.0))
    assert CompletionLogprobs().object([parts], "")["top_logprobs"] == [{"\ufffd": -0.5, "x": -2.0}]
    other = token(b"\xe4", -9.0, (b"x", -0.5))
    assert CompletionLogprobs().object([other], "")["top_logprobs"] == [{"x": -0.5, "\ufffd": -9.0}]
