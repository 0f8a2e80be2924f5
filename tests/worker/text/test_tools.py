"""Tool calls of every family, cut at every place: the call whole, its markers never."""

from __future__ import annotations

import json
import random
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.worker.text.split import Call
from inference.worker.text.tools import SYNTAXES, ToolGate, may_be_bare_call
from inference.worker.vllm_compat.parsers import CANONICAL, parse_calls, tool_parser_names

TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
        },
    }
]
XML = "<tool_call>\n<function=weather>\n<parameter=city>\nOslo\n</parameter>\n</function>\n</tool_call>"
ARG_KEYS = "<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Oslo</arg_value>\n</tool_call>"
JSON_TAG = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
DSML = (
    '<｜DSML｜tool_calls><｜DSML｜invoke name="weather"><｜DSML｜parameter name="city" string="true">'
    "Oslo</｜DSML｜parameter></｜DSML｜invoke></｜DSML｜tool_calls>"
)
SAMPLES = [
    ("hermes", JSON_TAG),
    ("hermes", '{"name": "weather", "arguments": {"city": "Oslo"}}'),
    ("qwen", JSON_TAG),
    ("qwen3_xml", XML),
    ("nemotron", XML),
    ("step3p5", XML),
    ("glm47", ARG_KEYS),
    ("poolside_v1", ARG_KEYS),
    ("mistral", '[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Oslo"}}]'),
    ("mistral", '[TOOL_CALLS]weather[ARGS]{"city": "Oslo"}'),
    ("llama", '<|python_tag|>{"name": "weather", "parameters": {"city": "Oslo"}}'),
    ("llama", '{"name": "weather", "parameters": {"city": "Oslo"}}'),
    ("llama", '<function=weather>{"city": "Oslo"}</function>'),
    (
        "deepseek",
        (
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n"
            '```json\n{"city": "Oslo"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>'
        ),
    ),
    ("deepseek_v4", DSML),
    (
        "kimi",
        (
            "<|tool_calls_section_begin|><|tool_call_begin|>functions.weather:0<|tool_call_argument_begin|>"
            '{"city": "Oslo"}<|tool_call_end|><|tool_calls_section_end|>'
        ),
    ),
    ("granite", '<|tool_call|>[{"name": "weather", "arguments": {"city": "Oslo"}}]'),
    ("gemma4", '<|tool_call>call:weather{city:<|"|>Oslo<|"|>}<tool_call|>'),
    (
        "minimax",
        (
            '<minimax:tool_call>\n<invoke name="weather">\n<parameter name="city">Oslo</parameter>\n</invoke>\n'
            "</minimax:tool_call>"
        ),
    ),
    ("functionary", '<|from|>assistant\n<|recipient|>weather\n<|content|>{"city": "Oslo"}'),
    ("functionary", '<function=weather>{"city": "Oslo"}</function>'),
    ("xlam", '[{"name": "weather", "arguments": {"city": "Oslo"}}]'),
    ("auto", JSON_TAG),
    ("auto", '[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Oslo"}}]'),
]


def run(parser: str, pieces: list[str], known: set[str] | None = None) -> tuple[str, list[tuple[str, Any]]]:
    gate = ToolGate(
        SYNTAXES[parser], lambda text: parse_calls(parser, text, TOOLS), {"weather"} if known is None else known
    )
    parts = [part for piece in pieces for part in gate.feed(piece)] + gate.finish()
    text = "".join(part for part in parts if isinstance(part, str))
    return text, [(part.name, json.loads(part.arguments)) for part in parts if isinstance(part, Call)]


def cut(text: str, seed: int) -> list[str]:
    chooser = random.Random(seed)
    places = sorted(chooser.sample(range(len(text) + 1), min(len(text), 12)))
    return [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]


@pytest.mark.parametrize(("parser", "sample"), SAMPLES)
def test_a_call_comes_whole_and_nothing_else(parser: str, sample: str) -> None:
    expected = ("", [("weather", {"city": "Oslo"})])
    assert run(parser, [sample]) == expected
    assert run(parser, list(sample)) == expected
    for seed in range(3):
        assert run(parser, cut(sample, seed)) == expected


@pytest.mark.parametrize(("parser", "sample"), [item for item in SAMPLES if item[1][0] not in "{["])
def test_text_before_a_call_comes_out_at_once(parser: str, sample: str) -> None:
    text, calls = run(parser, list("I look it up.\n" + sample))
    assert text == "I look it up."
    assert len(calls) == 1


def test_every_parser_of_vllm_mlx_has_its_syntax() -> None:
    assert {CANONICAL.get(name, name) for name in tool_parser_names()} == set(SYNTAXES)


def test_two_calls_with_text_around() -> None:
    text, calls = run("hermes", list(f"a {JSON_TAG}\n{JSON_TAG}\nb"))
    assert text == "a\nb"
    assert len(calls) == 2


def test_a_call_that_cannot_be_read_is_text() -> None:
    broken = "so <tool_call>weather in Oslo</tool_call> ok"
    assert run("hermes", list(broken)) == (broken, [])


def test_a_call_that_never_ends_is_text() -> None:
    broken = 'x <tool_call>{"name": "weather", "argu'
    assert run("hermes", list(broken)) == (broken, [])


def test_an_end_marker_within_an_argument_ends_nothing() -> None:
    sample = '<tool_call>{"name": "weather", "arguments": {"city": "a</tool_call>b \\" </think> c"}}</tool_call>'
    assert run("hermes", list(sample)) == ("", [("weather", {"city": 'a</tool_call>b " </think> c'})])


def test_json_that_names_no_tool_is_an_answer() -> None:
    answer = '{"name": "Ada", "arguments": {"city": "Oslo"}}'
    assert run("hermes", list(answer)) == (answer, [])


def test_json_that_is_no_call_is_not_held_back() -> None:
    gate = ToolGate(SYNTAXES["hermes"], lambda text: [], set())
    assert gate.feed('{"na') == []
    assert gate.feed('tion": 1') == ['{"nation": 1']
    assert may_be_bare_call('\n [ { "name" :')
    assert not may_be_bare_call("[1, 2]")


def test_a_marked_call_of_an_unknown_tool_is_passed_on() -> None:
    assert run("hermes", [JSON_TAG], known=set())[1] == [("weather", {"city": "Oslo"})]


def test_a_parser_that_fails_gives_text() -> None:
    assert parse_calls("no-such-parser", "text", []) == []


@given(pieces=st.lists(st.sampled_from(["<tool_call>", "</tool_call>", "<tool", "_call>", "{", '"', "a", " ", "\n"])))
@settings(max_examples=200, deadline=None)
def test_every_way_of_cutting_gives_the_same(pieces: list[str]) -> None:
    text = "".join(pieces)
    assert run("hermes", pieces) == run("hermes", list(text)) == run("hermes", [text])
    said = run("hermes", [text])[0]
    assert said == text


def test_no_mlx_is_needed() -> None:
    assert "torch" not in sys.modules
