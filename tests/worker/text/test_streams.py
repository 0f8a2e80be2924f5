"""Answers token by token through ``ChoiceOutput``, with a real tokenizer: the same as the whole text, usage exact."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference import ipc
from inference.worker.core.types import TokenLogprobs
from inference.worker.text.harmony import Channels
from inference.worker.text.output import ChoiceOutput, OutputPlan
from inference.worker.text.split import Splitter, Tags
from inference.worker.text.stops import StopStrings
from inference.worker.text.tools import SYNTAXES
from inference.worker.vllm_compat.parsers import parse_calls
from tests.material import EOS_TOKEN_ID
from tests.worker.text.hearing import SCHEMAS, TOOLS
from tests.worker.text.nano import encode, table
from tests.worker.text.spelling import SPELLINGS, Calls, Spelling, name_of

CALLS: Calls = [("weather", {"city": 'Tromsø \U0001f600 "x" <b>', "days": 2}), ("clock", {})]
CALL = '<tool_call>{"name": "weather", "arguments": {"city": "Oslo"}}</tool_call>'


def think(*, opened: bool = False) -> Callable[[], Splitter]:
    return lambda: Tags("<think>", "</think>", opened=opened)


def plan(parser: str = "hermes", **options: Any) -> OutputPlan:
    made: dict[str, Any] = {
        "eos": frozenset({EOS_TOKEN_ID}),
        "syntax": SYNTAXES[parser],
        "parse": lambda text: parse_calls(parser, text, TOOLS),
        "known_tools": frozenset(SCHEMAS),
        "schemas": SCHEMAS,
    }
    return OutputPlan("r", table(), **(made | options))


class Told:
    """What a client gathers from the deltas of one answer."""

    def __init__(self, made: OutputPlan, tokens: list[int], reason: ipc.FinishReason = "stop") -> None:
        self.output = ChoiceOutput(made, 0)
        self.deltas: list[ipc.Delta] = []
        for token in tokens:
            self.output.feed(token, TokenLogprobs(-1.0, [], []))
            self._take()
            if self.output.over:
                break
        self.reason = self.output.finish(reason)
        self._take()
        self.content = "".join(delta.content for delta in self.deltas)
        self.reasoning = "".join(delta.reasoning for delta in self.deltas)
        self.logprobs = b"".join(entry.raw for delta in self.deltas for entry in delta.logprobs).decode(
            "utf-8", "replace"
        )
        self.calls: list[tuple[str, str]] = []
        for fragment in [fragment for delta in self.deltas for fragment in delta.tools]:
            if fragment.index == len(self.calls):
                assert fragment.id
                assert fragment.name
                self.calls.append((fragment.name, fragment.arguments))
            else:
                assert (fragment.index, fragment.id, fragment.name) == (len(self.calls) - 1, None, None)
                self.calls[-1] = self.calls[-1][0], self.calls[-1][1] + fragment.arguments

    def _take(self) -> None:
        delta = self.output.take()
        if delta is not None:
            self.deltas.append(delta)

    @property
    def parsed(self) -> Calls:
        return [(name, json.loads(arguments)) for name, arguments in self.calls]


@pytest.mark.parametrize("spelling", SPELLINGS, ids=name_of)
def test_calls_of_every_family_after_reasoning(spelling: Spelling) -> None:
    tokens = encode(f"<think>\nI look.\n</think>\n\n{spelling.write(CALLS)}")
    told = Told(plan(spelling.parser, splitter=think()), [*tokens, EOS_TOKEN_ID])
    assert (told.content.strip(), told.reasoning, told.parsed, told.reason) == ("", "I look.", CALLS, "tool_calls")
    assert told.output.completion_tokens == len(tokens) + 1
    first = next(delta for delta in told.deltas if delta.tools)
    assert first.tools[0].name == "weather"
    assert len([delta for delta in told.deltas if delta.tools]) > 10


@pytest.mark.parametrize("spelling", SPELLINGS, ids=name_of)
def test_calls_of_every_family_within_reasoning_that_never_ends(spelling: Spelling) -> None:
    if spelling.form == "bare":
        pytest.skip("a call without marker stands at the beginning")
    told = Told(plan(spelling.parser, splitter=think(opened=True)), encode(f"I look.\n{spelling.write(CALLS)}"))
    assert (told.content, told.reasoning, told.parsed, told.reason) == ("", "I look.", CALLS, "tool_calls")
    assert told.output.reasoning_tokens == len(encode("I look."))


def test_reasoning_markers_within_arguments_are_arguments() -> None:
    call = CALL.replace("Oslo", "a</think>b<think>c")
    told = Told(plan(splitter=think()), encode(f"<think>x</think>{call}"))
    assert told.parsed == [("weather", {"city": "a</think>b<think>c"})]
    assert told.reasoning == "x"


@pytest.mark.parametrize("limit", range(1, 90, 4))
def test_an_answer_cut_off_says_so_and_keeps_what_was_decoded(limit: int) -> None:
    text = f"<think>Hm.</think>{CALL}{CALL}"
    told = Told(plan(splitter=think()), encode(text)[:limit], "length")
    assert told.reason == "length"
    for _, arguments in told.calls:
        assert '{"city": "Oslo"}'.startswith(arguments)


@pytest.mark.parametrize("limit", range(1, 90, 2))
def test_where_nothing_but_calls_can_come_half_a_call_is_no_text(limit: int) -> None:
    told = Told(plan(forced="native"), encode(f"{CALL}\n{CALL}")[:limit], "length")
    assert (told.content, told.reason) == ("", "length")
    line = '{"name": "weather", "arguments": {"city": "Oslo"}}'
    told = Told(plan("qwen", forced="json"), encode(f"{line}\n{line}")[:limit], "length")
    assert (told.content, told.reason) == ("", "length")


def test_after_a_call_half_a_call_is_no_text() -> None:
    for limit in range(len("<tool_call>"), len(CALL)):
        told = Told(plan(), encode(CALL) + encode("\n" + CALL[:limit]), "length")
        assert (told.content.strip(), len(told.calls)) in {("", 1), ("", 2)}


def test_one_call_only_ends_the_answer() -> None:
    tokens = encode(f"So: {CALL} and {CALL}")
    told = Told(plan(parallel_calls=False), tokens)
    assert (told.content, told.parsed, told.reason) == ("So:", [("weather", {"city": "Oslo"})], "tool_calls")
    assert told.output.completion_tokens == len(encode("So: " + CALL.removesuffix("</tool_call>")))


def test_forced_calls_end_as_openai_has_it() -> None:
    text = '{"name": "weather", "arguments": {"city": "<tool_call>"}}'
    two = encode(text + '\n{"name": "clock", "arguments": {}}')
    told = Told(plan("qwen", forced="json"), two)
    assert (told.content, told.reason) == ("", "tool_calls")
    assert told.parsed == [("weather", {"city": "<tool_call>"}), ("clock", {})]
    assert Told(plan("qwen", forced="json", named=True), encode(text)).reason == "stop"
    assert Told(plan(forced="native", named=True), encode(CALL)).reason == "stop"
    assert Told(plan(forced="native"), encode(CALL)).reason == "tool_calls"
    assert Told(plan(forced="json", splitter=think()), encode(f"<think>x</think>\n{text}")).parsed == told.parsed[:1]


def test_a_format_may_hold_what_looks_like_a_marker() -> None:
    answer = '{"html": "<tool_call><function=clock></function></tool_call></think>"}'
    once = lambda: Tags("<think>", "</think>", once=True)  # noqa: E731
    told = Told(plan(either=True, known_tools=frozenset(), splitter=once), encode(f"<think>x</think>{answer}"))
    assert (told.content, told.reasoning, told.calls, told.reason) == (answer, "x", [], "stop")
    assert Told(plan(either=True, splitter=once), encode(CALL)).parsed == [("weather", {"city": "Oslo"})]


def test_an_answer_that_somebody_ended_is_cancelled_whatever_was_held_back() -> None:
    half_a_call = encode('<tool_call>{"na')
    made = plan(stops=StopStrings(["na"]))
    assert Told(made, half_a_call, "length").reason == "stop"
    assert Told(made, half_a_call, "cancelled").reason == "cancelled"


def test_stop_strings_hold_for_text_and_not_for_arguments() -> None:
    stops = StopStrings(["Oslo", "END"])
    told = Told(plan(stops=stops), encode(f"now E{CALL}ND yes END no"))
    assert (told.content, told.parsed, told.reason) == ("now END yes ", [("weather", {"city": "Oslo"})], "tool_calls")
    assert told.output.stopped == "END"


SECTIONS = ["<think>", "</think>", " hm ", "\n", "yes", "\U0001f600", CALL, "<tool", "<", "é"]


@given(pieces=st.lists(st.sampled_from(SECTIONS), max_size=8), opened=st.booleans())
@settings(max_examples=150, deadline=None)
def test_reasoning_tokens_are_those_that_touch_the_reasoning(pieces: list[str], opened: bool) -> None:
    """Counted anew, character by character, from the text as it was put together."""
    text = "".join(pieces)
    told = Told(plan(splitter=think(opened=opened)), encode(text))
    inside = _inside("".join(piece if piece != CALL else "\0" * len(CALL) for piece in pieces), opened)
    at, count = 0, 0
    for token in encode(text):
        length = len(table().raw_of(token))
        count += any(inside[at : at + length])
        at += length
    assert told.output.reasoning_tokens == count


def _inside(text: str, opened: bool) -> list[bool]:
    """For each byte, whether it is of the reasoning. White space before a call, or at the end after one, is its."""
    marks: list[bool] = []
    thinking, called = opened, "\0" in text
    while text:
        marker = next((tag for tag in ("<think>", "</think>") if text.startswith(tag)), "")
        unit = marker or text[0]
        rest = text.lstrip(" \n")
        gap = unit.isspace() and (rest.startswith("\0") or (called and not rest))
        marks += [unit != "\0" and not gap and (thinking or marker == "<think>")] * len(unit.encode())
        thinking = marker == "<think>" if marker else thinking
        text = text[len(unit) :]
    return marks


@given(pieces=st.lists(st.sampled_from([*SECTIONS, "STOP", "ST", "a"]), max_size=8), opened=st.booleans())
@settings(max_examples=150, deadline=None)
def test_deltas_do_not_depend_on_the_tokens(pieces: list[str], opened: bool) -> None:
    text = "".join(pieces)
    made = plan(splitter=think(opened=opened), stops=StopStrings(["STOP"]))
    told = Told(made, encode(text))
    bytewise = [table().raw.index(bytes([byte])) for byte in text.encode()]
    other = Told(made, bytewise)
    assert (told.content, told.reasoning, told.calls, told.reason) == (
        other.content,
        other.reasoning,
        other.calls,
        other.reason,
    )
    assert other.logprobs == told.content
    assert told.logprobs == told.content or told.output.stopped or "\n" in text or " " in text


def test_logprobs_have_the_content_alone() -> None:
    told = Told(plan(splitter=think()), encode(f"<think>hm hm</think>One two {CALL} three"))
    assert told.content == "One two three"
    assert told.logprobs.replace(" ", "") == "Onetwothree"


def test_channels_count_the_analysis_with_its_markers() -> None:
    thought, answer = (
        "<|channel|>analysis<|message|>Easy.<|end|>",
        "<|start|>assistant<|channel|>final<|message|>It is 4.",
    )
    made = plan(splitter=lambda: Channels(tools=True), syntax=None)
    told = Told(made, encode(thought) + encode(answer))
    assert (told.content, told.reasoning) == ("It is 4.", "Easy.")
    assert told.output.reasoning_tokens == len(encode(thought))
    call = '<|start|>assistant<|channel|>commentary to=functions.weather<|message|>{"city": "Oslo"}'
    told = Told(made, encode(thought) + encode(call))
    assert (told.parsed, told.reason) == ([("weather", {"city": "Oslo"})], "tool_calls")
