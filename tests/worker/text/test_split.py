"""Reasoning in tags and in channels: no marker comes out, however the text is cut."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.worker.text.harmony import Channels
from inference.worker.text.split import Piece, Plain, Tags, held_length
from tests.worker.text.hearing import run_splitter


def think(*, opened: bool = False) -> Tags:
    return Tags("<think>", "</think>", opened=opened)


@pytest.mark.parametrize(
    ("text", "opened", "content", "reasoning"),
    [
        ("<think>\nwell\n</think>\n\nYes.", False, "Yes.", "well"),
        ("well\n</think>\n\nYes. ", True, "Yes. ", "well"),
        ("  just text\n", False, "  just text\n", ""),
        ("never closed", True, "", "never closed"),
        ("<think></think>a", False, "a", ""),
        ("a </think> b", False, "a b", ""),
        ("a < b and <thin air", False, "a < b and <thin air", ""),
        ("x<think>y</think>z", False, "xz", "y"),
    ],
)
def test_tags(text: str, opened: bool, content: str, reasoning: str) -> None:
    for pieces in ([text], list(text), [text[:5], text[5:]]):
        assert run_splitter(think(opened=opened), pieces)[:2] == (content, reasoning)


@given(
    pieces=st.lists(st.sampled_from(["<think>", "</think>", "<th", "ink>", "</", "a", " ", "\n", "<"]), max_size=14),
    opened=st.booleans(),
)
def test_every_way_of_cutting_gives_the_same_and_no_marker(pieces: list[str], opened: bool) -> None:
    text = "".join(pieces)
    whole = run_splitter(think(opened=opened), [text])
    assert run_splitter(think(opened=opened), pieces) == whole
    assert run_splitter(think(opened=opened), list(text)) == whole


def test_text_is_not_held_longer_than_needed() -> None:
    splitter = think()
    assert splitter.feed("a <th") == [Piece("content", "a")]
    assert splitter.feed("e") == [Piece("content", " <the")]
    assert held_length("ab<|", ["<|end|>", "b<|x"]) == 3
    assert Plain().feed("a") == [Piece("content", "a")]


TALK = (
    "<|channel|>analysis<|message|>Need the weather.<|end|><|start|>assistant"
    '<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{"city": "Oslo"}'
)
ANSWER = "<|channel|>analysis<|message|>Easy.<|end|><|start|>assistant<|channel|>final<|message|>It is 4."


@pytest.mark.parametrize("cut", [lambda text: [text], list, lambda text: [text[:40], text[40:]]])
def test_channels(cut: Callable[[str], list[str]]) -> None:
    assert run_splitter(Channels(tools=True), cut(ANSWER)) == ("It is 4.", "Easy.", [])
    assert run_splitter(Channels(tools=True), cut(TALK)) == ("", "Need the weather.", [("weather", '{"city": "Oslo"}')])
    assert run_splitter(Channels(tools=True), cut(TALK + "<|call|>")) == run_splitter(Channels(tools=True), [TALK])


def test_a_recipient_may_stand_before_the_channel_name_ends_or_in_analysis() -> None:
    text = '<|channel|>analysis to=functions.f code<|message|>{"a": 1}'
    assert run_splitter(Channels(tools=True), [text]) == ("", "", [("f", '{"a": 1}')])


def test_a_preamble_in_commentary_is_content() -> None:
    assert (
        run_splitter(Channels(tools=True), ["<|channel|>commentary<|message|>First I look.<|end|>"])[0]
        == "First I look."
    )


def test_without_tools_a_message_to_one_is_text() -> None:
    assert run_splitter(Channels(tools=False), [TALK]) == ('{"city": "Oslo"}', "Need the weather.", [])


def test_text_without_any_channel_is_content() -> None:
    assert run_splitter(Channels(tools=True), list("plain < text")) == ("plain < text", "", [])


@given(
    pieces=st.lists(
        st.sampled_from(
            ["<|channel|>", "final", "analysis", " to=f", "<|message|>", "<|end|>", "<|", "a", "<|start|>"]
        ),
        max_size=14,
    )
)
def test_channels_do_not_depend_on_the_cuts(pieces: list[str]) -> None:
    text = "".join(pieces)
    assert run_splitter(Channels(tools=True), pieces) == run_splitter(Channels(tools=True), list(text))
