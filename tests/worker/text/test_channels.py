"""Harmony's channels: arguments while they are decoded, no marker in any text, and every cut the same."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inference.worker.text.harmony import MARKERS, Channels
from inference.worker.text.split import CallArguments, CallEnd, CallStart
from tests.worker.text.hearing import cuts, in_two, run_splitter

THOUGHT = "<|channel|>analysis<|message|>Hm.<|end|>"
CALL = '<|start|>assistant<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{"city": "Oslo"}'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (THOUGHT + CALL + "<|call|>" + CALL, ("", "Hm.", [("weather", '{"city": "Oslo"}')] * 2)),
        (CALL.replace('"}', '"}\n'), ("", "", [("weather", '{"city": "Oslo"}')])),
        (CALL.replace('"}', '"} so'), (" so", "", [("weather", '{"city": "Oslo"}')])),
        (CALL.replace('"}', "\\q\n"), ("", "", [("weather", '{"city": "Oslo\\\\q\\n')])),
        (CALL.replace('{"city": "Oslo"}', "weather in Oslo"), ("weather in Oslo", "", [])),
        (CALL.replace('{"city": "Oslo"}', ""), ("", "", [("weather", "{}")])),
        (CALL.replace('"Oslo"}', "oh}") + "<|call|>", ("oh}", "", [("weather", '{"city": ')])),
        (
            '<|start|>assistant to=functions.f<|channel|>commentary json<|message|>{"a": 1}<|call|>',
            ("", "", [("f", '{"a": 1}')]),
        ),
        (' to=functions.f<|channel|>commentary<|message|>{"a": 1}<|call|>', ("", "", [("f", '{"a": 1}')])),
        (" to be or not", (" to be or not", "", [])),
        (" to=", (" to=", "", [])),
        ("<|channel|>final<|message|>to=me<|return|>", ("to=me", "", [])),
    ],
)
def test_messages(text: str, expected: tuple[str, str, list[tuple[str, str]]]) -> None:
    for pieces in [*in_two(text), list(text)]:
        assert run_splitter(Channels(tools=True), pieces) == expected


def test_name_and_arguments_come_while_they_are_decoded() -> None:
    channels = Channels(tools=True)
    assert channels.feed(CALL.removesuffix('slo"}')) == [CallStart("weather"), CallArguments('{"city": "O')]
    assert channels.feed("sl") == [CallArguments("sl")]
    assert channels.feed('o"}') == [CallArguments('o"}'), CallEnd()]
    assert channels.finish() == []


PIECES = [
    *MARKERS,
    "analysis",
    "final",
    "commentary",
    " to=functions.f",
    '{"a": ',
    '"x',
    '"',
    "}",
    "<|",
    " ",
    "\n",
    "1",
]


@given(data=st.data(), tools=st.booleans())
@settings(max_examples=300, deadline=None)
def test_any_rubbish_cut_anyhow_gives_the_same_and_no_marker(data: st.DataObject, tools: bool) -> None:
    text = "".join(data.draw(st.lists(st.sampled_from(PIECES), max_size=16)))
    whole = run_splitter(Channels(tools=tools), [text])
    assert run_splitter(Channels(tools=tools), list(text)) == whole
    assert run_splitter(Channels(tools=tools), data.draw(cuts(text))) == whole
    assert not any(marker in whole[0] + whole[1] for marker in MARKERS)


@given(
    value=st.dictionaries(st.text("ab", max_size=3), st.text(max_size=10) | st.integers(), max_size=3), data=st.data()
)
@settings(suppress_health_check=[HealthCheck.too_slow])  # in a new checkout the first text makes a table
def test_any_arguments_cut_anyhow_come_out(value: dict[str, object], data: st.DataObject) -> None:
    text = THOUGHT + CALL.replace('{"city": "Oslo"}', json.dumps(value)) + "<|call|>"
    content, reasoning, [(name, arguments)] = run_splitter(Channels(tools=True), data.draw(cuts(text)))
    assert (content, reasoning, name, json.loads(arguments)) == ("", "Hm.", "weather", value)
