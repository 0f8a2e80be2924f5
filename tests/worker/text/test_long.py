"""Long and hostile answers: every character is looked at a bounded number of times, so that none holds up others.

A defect shows as a test that takes minutes; no time is asserted.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.worker.text.harmony import Channels
from inference.worker.text.split import Sections, Splitter, Tags
from tests.worker.text.hearing import hear, run_splitter
from tests.worker.text.nano import encode
from tests.worker.text.test_streams import CALL, Told, plan

MANY = 200_000
ADDRESSED = "<|channel|>commentary to=functions.weather<|message|>"


@pytest.mark.parametrize(
    ("parser", "start", "end"),
    [("hermes", "<tool_call>x", "</tool_call>"), ("gemma4", "<|tool_call>call:x", "<tool_call|>")],
)
def test_end_markers_in_a_string_that_never_ends(parser: str, start: str, end: str) -> None:
    text = start + '{"a": "' + end * (MANY // 4)
    pieces = (text[at : at + 64] for at in range(0, len(text), 64))
    assert hear(parser, pieces).answer() == (text, [])


def test_an_end_marker_counts_after_any_number_of_them_within_strings() -> None:
    block = '<tool_call>x{"a": "' + "</tool_call>" * 3 + r' \" \\", "b": "</tool_call>"}</tool_call>'
    for pieces in ([block, " after"], [*block, " after"]):
        assert hear("hermes", pieces).answer() == (block + " after", [])
    gemma = '<|tool_call>call:clock{a:"<tool_call|>"}<tool_call|>'
    assert hear("gemma4", [*gemma, "b"]).answer() == hear("gemma4", [gemma, "b"]).answer()


@pytest.mark.parametrize("options", [{}, {"either": True}, {"tags": ("<think>", "</think>")}])
def test_white_space_without_end(options: dict[str, Any]) -> None:
    text = "a" + " " * MANY + "b"
    assert hear("hermes", iter(text), **options).said == text


@pytest.mark.parametrize("parser", ["hermes", "qwen3_xml"])
def test_white_space_in_a_parameter(parser: str) -> None:
    value = "a" + "\n" * MANY + "b"
    text = f"<tool_call><function=weather><parameter=city>{value} \n</parameter></function></tool_call>"
    [(name, arguments)] = hear(parser, iter(text)).calls
    assert (name, json.loads(arguments)["city"]) == ("weather", value if parser == "hermes" else value + " ")


@pytest.mark.parametrize(
    ("splitter", "text", "content"),
    [
        (Channels(tools=True), " to=" + "a" * MANY, " to=" + "a" * MANY),
        (Channels(tools=True), ADDRESSED + " " * MANY + "{}", ""),
        (Channels(tools=True), ADDRESSED + "{}" + " " * MANY, ""),
        (Tags("<think>", "</think>"), "a" + " " * MANY + "b", "a" + " " * MANY + "b"),
    ],
    ids=["recipient", "before arguments", "after arguments", "between words"],
)
def test_splitters_hold_without_looking_back(splitter: Splitter, text: str, content: str) -> None:
    said, reasoning, calls = run_splitter(splitter, iter(text))
    assert (said, reasoning) == (content, "")
    assert calls == ([("weather", "{}")] if text.startswith(ADDRESSED) else [])


def test_a_recipient_that_is_too_long_is_text_however_it_is_cut() -> None:
    text = " to=" + "a" * 600 + "<|channel|>commentary<|message|>{}"
    assert run_splitter(Channels(tools=True), iter(text)) == run_splitter(Channels(tools=True), [text])


def test_logprobs_of_an_answer_with_thousands_of_calls() -> None:
    text = f"yes {CALL}\n" * 1500
    told = Told(plan(), encode(text))
    assert len(told.calls) == 1500
    assert told.logprobs.split() == told.content.split() == ["yes"] * 1500


@given(
    places=st.lists(st.integers(0, 60), unique=True, max_size=12).map(sorted),
    ask=st.tuples(st.integers(0, 70), st.integers(0, 20)),
)
def test_within_counts_the_characters(places: list[int], ask: tuple[int, int]) -> None:
    """Counted anew, one character at a time; an odd number of places leaves the last section open."""
    sections, inside = Sections(), set[int]()
    for begin, stop in zip(places[::2], [*places[1::2], None][: len(places[::2])], strict=True):
        sections.begin(begin)
        inside.update(range(begin, stop if stop is not None else 200))
        if stop is not None:
            sections.end(stop)
    start, end = ask[0], ask[0] + ask[1]
    assert sections.within(start, end) == sum(at in inside for at in range(start, end))
