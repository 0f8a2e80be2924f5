"""Stop strings: the same result however the text is cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.worker.text.stops import StopStrings

ALPHABET = "ab<"


def run(stops: list[str], pieces: list[str]) -> tuple[str, str | None]:
    matcher = StopStrings(stops).matcher()
    text = "".join(matcher.feed(piece) for piece in pieces)
    return text + matcher.flush(), matcher.matched


def expected(stops: list[str], text: str) -> tuple[str, str | None]:
    for end in range(1, len(text) + 1):
        for stop in sorted(stops, key=len, reverse=True):
            if text[:end].endswith(stop):
                return text[: end - len(stop)], stop
    return text, None


def test_it_works() -> None:
    assert run(["END", "\n\n"], ["one t", "wo E", "N", "D three"]) == ("one two ", "END")


def test_text_that_only_begins_like_a_stop_string_comes_out() -> None:
    matcher = StopStrings(["<|end|>"]).matcher()
    assert matcher.feed("a <|en") == "a "
    assert matcher.feed("ough") == "<|enough"
    assert matcher.feed(" <|") == " "
    assert matcher.flush() == "<|"
    assert matcher.matched is None


def test_nothing_comes_out_after_a_match() -> None:
    matcher = StopStrings(["."]).matcher()
    assert matcher.feed("a.b") == "a"
    assert matcher.feed("c") == ""
    assert matcher.flush() == ""


def test_a_stop_string_inside_another_wins_when_it_is_complete_first() -> None:
    assert run(["abc", "b"], ["xabc"]) == ("xa", "b")


def test_of_two_complete_at_once_the_longer_counts() -> None:
    assert run(["b", "ab"], ["xab"]) == ("x", "ab")


def test_no_stop_strings_let_everything_through() -> None:
    assert run([], ["a", "b"]) == ("ab", None)


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(ValueError, match="must not be empty"):
        StopStrings(["a", ""])


@given(
    stops=st.lists(st.text(ALPHABET, min_size=1, max_size=5), max_size=4),
    pieces=st.lists(st.text(ALPHABET, max_size=6), max_size=12),
)
def test_every_way_of_cutting_a_text_gives_the_same_result(stops: list[str], pieces: list[str]) -> None:
    text = "".join(pieces)
    assert run(stops, pieces) == expected(stops, text)
    assert run(stops, list(text)) == expected(stops, text)


@given(stops=st.lists(st.text(ALPHABET, min_size=1, max_size=5), min_size=1, max_size=4), text=st.text(ALPHABET))
def test_what_is_held_back_is_never_longer_than_needed(stops: list[str], text: str) -> None:
    matcher = StopStrings(stops).matcher()
    out = ""
    for position, character in enumerate(text, 1):
        out += matcher.feed(character)
        if matcher.matched is not None:
            break
        held = text[len(out) : position]
        assert not held or any(stop.startswith(held) for stop in stops)
