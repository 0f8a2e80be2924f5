"""Tool calls of every family, cut at every place: name and arguments the same, markers never, nothing lost."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from inference.worker.text.tools import JSON_LINES, SYNTAXES
from inference.worker.vllm_compat.parsers import CANONICAL, parse_calls, tool_parser_names
from tests.worker.text.hearing import SCHEMAS, TOOLS, Heard, cuts, gate, hear, in_two
from tests.worker.text.spelling import SPELLINGS, Calls, Spelling, name_of

OSLO: Calls = [("weather", {"city": "Oslo"})]
MANY: dict[str, Calls] = {
    "one": OSLO,
    "two": [("weather", {"city": "Oslo", "days": 3}), ("weather", {"city": "Bergen", "exact": True})],
    "nested": [("weather", {"where": {"lat": [59.9, -1e3], "of": {"deep": [None, {}]}}, "tags": ["a", "b"]})],
    "empty": [("clock", {})],
    "letters": [("weather", {"city": "Trømsø \U0001f600\u2028 你好"})],
    "lines": [("weather", {"city": "def f(x):\n    return {x: [1]}\n\n# \"quoted\" 'too' \\ and \t tab"})],
    "braces": [("weather", {"city": '}]}", {"name": "x", "arguments": {'})],
}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
every = pytest.mark.parametrize("spelling", SPELLINGS, ids=name_of)


def run(parser: str, pieces: Iterable[str], known: Iterable[str] = SCHEMAS) -> tuple[str, list[tuple[str, Any]]]:
    heard = hear(parser, pieces, known)
    return heard.said, [(name, json.loads(arguments)) for name, arguments in heard.calls]


@every
@pytest.mark.parametrize("calls", MANY.values(), ids=MANY)
def test_calls_come_out_and_nothing_else(spelling: Spelling, calls: Calls) -> None:
    text = spelling.write(calls)
    assert run(spelling.parser, [text]) == ("", calls)
    assert run(spelling.parser, list(text)) == ("", calls)


@every
@pytest.mark.parametrize("calls", MANY.values(), ids=MANY)
def test_vllm_mlx_reads_the_same(spelling: Spelling, calls: Calls) -> None:
    """Its parser is asked about each block by itself, as it is when it stands in for a machine."""
    if not spelling.oracle or _differs(spelling, calls):
        pytest.skip("vllm-mlx reads this spelling otherwise or not at all")
    blocks = [spelling.write([call]) for call in calls]
    read = [call for block in blocks for call in parse_calls(spelling.parser, block, TOOLS)]
    assert [(call.name, json.loads(call.arguments)) for call in read] == run(spelling.parser, [spelling.write(calls)])[
        1
    ]


def _differs(spelling: Spelling, calls: Calls) -> bool:
    """Calls without parameters, which MiniMax's and Nemotron's parsers drop."""
    return (
        spelling.form in ("invoke", "function")
        and spelling.parser in ("minimax", "nemotron")
        and calls == MANY["empty"]
    )


@every
def test_every_cut_of_one_call_gives_the_same(spelling: Spelling) -> None:
    text = f"Wait.\n{spelling.write(MANY['two'])}\nDone."
    whole = hear(spelling.parser, [text]).answer()
    assert hear(spelling.parser, list(text)).answer() == whole
    for pieces in in_two(text):
        assert hear(spelling.parser, pieces).answer() == whole


@every
def test_text_around_calls_is_text(spelling: Spelling) -> None:
    if spelling.form == "bare":
        pytest.skip("a call without marker stands at the beginning")
    said, calls = run(spelling.parser, list(f"I look it up.\n{spelling.write(OSLO)} There."))
    assert said.split() == ["I", "look", "it", "up.", "There."]
    assert calls == OSLO


@every
def test_a_call_cut_off_keeps_what_was_decoded(spelling: Spelling) -> None:
    text = spelling.write(OSLO)
    full = hear(spelling.parser, [text]).calls[0][1]
    syntax = SYNTAXES[spelling.parser]
    never = "|".join(map(re.escape, syntax.markers)) if syntax.special else "$^"
    for end in range(len(text)):
        whole = hear(spelling.parser, [text[:end]])
        assert hear(spelling.parser, list(text[:end])).answer() == whole.answer()
        if whole.calls:
            assert whole.said == ""
            assert full.startswith(whole.calls[0][1])
        else:
            assert whole.said == re.sub(never, "", text[:end])


@every
def test_name_and_arguments_come_while_they_are_decoded(spelling: Spelling) -> None:
    text = spelling.write([("weather", {"city": "Oslo and its surroundings"})])
    heard = Heard()
    made = gate(spelling.parser, heard)
    seen = []
    for character in text:
        made.feed(character)
        if heard.calls and heard.calls[0][1] not in seen:
            seen.append(heard.calls[0][1])
    assert len(seen) > 20
    assert heard.said == ""


TOKENS = [
    *["<tool_call>", "</tool_call>", "<function=", "weather", ">", "</function>", "<parameter=city>", "</parameter>"],
    *["<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>", "[TOOL_CALLS]", "[ARGS]", "[Calling tool:", ")]"],
    *['{"name": "weather", "arguments": ', '{"city": "', "{", "}", "[", "]", '"', "\\", ",", " ", "\n", "a", "```json"],
    *["<|tool_calls_section_begin|>", "<|tool_calls_section_end|>", "<|tool_call_begin|>", "functions.weather:0"],
    *["<|tool_call_argument_begin|>", "<|tool_call_end|>", "<minimax:tool_call>", "</minimax:tool_call>", "</invoke>"],
    *[
        '<invoke name="',
        '">',
        '<parameter name="city">',
        "<｜tool▁call▁begin｜>",
        "<｜tool▁sep｜>",
        "<｜tool▁call▁end｜>",
    ],
    *["<|python_tag|>", "; ", "<think>", "</think>", "<|tool_call>", "call:weather{", "<tool_call|>", "clock", "null"],
]


@pytest.mark.parametrize("parser", [*SYNTAXES, "JSON_LINES"])
@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_rubbish_cut_anyhow_gives_the_same(parser: str, data: st.DataObject) -> None:
    text = "".join(data.draw(st.lists(st.sampled_from(TOKENS), max_size=14)))
    syntax = SYNTAXES.get(parser, JSON_LINES)
    options: dict[str, Any] = {"tags": ("<think>", "</think>"), "thinking": data.draw(st.booleans())}
    whole = hear(syntax, [text], **options).answer()
    assert hear(syntax, list(text), **options).answer() == whole
    assert hear(syntax, data.draw(cuts(text)), **options).answer() == whole


arguments: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"city": st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)},
    optional={"days": st.integers(-5, 10**9), "tags": st.lists(st.text("ab{}\"'\\", max_size=5), max_size=3)},
)


@every
@given(data=st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_arguments_cut_anyhow_come_out(spelling: Spelling, data: st.DataObject) -> None:
    calls: Calls = [("weather", value) for value in data.draw(st.lists(arguments, min_size=1, max_size=2))]
    if not spelling.json_inside:
        calls = [(name, value | {"city": value["city"].strip()}) for name, value in calls]
    text = spelling.write(calls)
    assert run(spelling.parser, data.draw(cuts(text))) == ("", calls)


def test_every_parser_of_vllm_mlx_has_its_syntax() -> None:
    assert {CANONICAL.get(name, name) for name in tool_parser_names()} == set(SYNTAXES)


def test_gemma_s_calls_are_read_as_a_whole() -> None:
    text = 'So <|tool_call>call:weather{city:<|"|>Oslo<|"|>}<tool_call|>'
    for pieces in ([text], list(text)):
        assert run("gemma4", pieces) == ("So", OSLO)


@pytest.mark.parametrize(
    "broken",
    [
        "so <tool_call>weather in Oslo</tool_call> ok",
        'x <tool_call>{"name": "weather", "argu',
        "<tool_call></tool_call>",
        "<tool_call>[]</tool_call>",
        '<tool_call>{"name": 7, "arguments": {}}</tool_call>',
        "a <tool_c",
        '{"name": "Ada", "arguments": {"city": "Oslo"}}',
        '{"name": "weather", "wind": 3}',
        '{"name": "weather"}',
    ],
)
def test_what_is_no_call_is_text(broken: str) -> None:
    for pieces in in_two(broken):
        assert run("hermes", pieces) == (broken, [])


@pytest.mark.parametrize(
    ("text", "arguments_", "said"),
    [
        (CALL.replace('"}}', '", oops}}'), '{"city": "Oslo", ', "oops}}"),
        (CALL.replace('"}}', '"}} and more'), '{"city": "Oslo"}', " and more"),
        (CALL.replace('"}}', '"}'), '{"city": "Oslo"}', ""),
        (CALL.replace('"}}', '"}, "id": [1]}'), '{"city": "Oslo"}', ""),
        (CALL.replace("Oslo", "a\nb\\d\\'"), '{"city": "a\\nb\\\\d\'"}', ""),
        (CALL.replace("Oslo", 'a</tool_call>b \\" </think> c'), '{"city": "a</tool_call>b \\" </think> c"}', ""),
        ('<tool_call>{"name": "weather", "arguments": null}</tool_call>', "{}", ""),
        ('<tool_call>{"name": "weather"}</tool_call>', "{}", ""),
        ('<tool_call>{"id": 1, "parameters": {"a": 1}, "name": "f"}</tool_call>', '{"a": 1}', None),
        ('<tool_call>{"name": "weather", "arguments": "{\\"a\\": 1}"}</tool_call>', '{"a": 1}', ""),
        ('<tool_call>{"arguments": {"a": 1}, "name": "weather"}</tool_call>', '{"a": 1}', ""),
    ],
)
def test_lapses(text: str, arguments_: str, said: str | None) -> None:
    for pieces in in_two(text):
        heard = hear("hermes", pieces, tags=("<think>", "</think>"))
        if said is None:
            assert heard.answer() == hear("hermes", [text]).answer()
            continue
        assert heard.said == said
        assert [arguments for _, arguments in heard.calls] == [arguments_]


def test_json_that_is_no_call_is_not_held_back() -> None:
    heard = Heard()
    made = gate("hermes", heard)
    made.feed('{"na')
    assert heard.said == ""
    made.feed('tion": 1')
    assert heard.said == '{"nation": 1'


def test_a_marked_call_of_an_unknown_tool_is_passed_on() -> None:
    assert run("hermes", [CALL], known=())[1] == OSLO


def test_a_marker_that_is_only_mentioned_while_thinking_holds_nothing_back() -> None:
    heard = Heard()
    made = gate("hermes", heard, tags=("<think>", "</think>"), thinking=True)
    made.feed("I write <tool_call> first")
    assert heard.said == "I write <tool_call> first"
    made.feed(f".</think>{CALL}")
    made.finish()
    assert heard.said.endswith("first.</think>")
    assert [name for name, _ in heard.calls] == ["weather"]


def test_a_call_without_marker_may_follow_the_reasoning() -> None:
    text = '<think>hm</think>\n\n{"name": "weather", "arguments": {"city": "Oslo"}}'
    for pieces in in_two(text):
        heard = hear("hermes", pieces, tags=("<think>", "</think>"))
        assert heard.answer() == ("<think>hm</think>", [("weather", '{"city": "Oslo"}')])


def test_calls_made_by_a_grammar_stand_a_line_each() -> None:
    text = '{"name": "weather", "arguments": {"city": "<tool_call>"}}\n{"name": "clock", "arguments": {}}\n'
    expected = ("", [("weather", '{"city": "<tool_call>"}'), ("clock", "{}")])
    for pieces in in_two(text):
        assert hear(JSON_LINES, pieces).answer() == expected


def test_mistral_s_ids_have_nine_characters() -> None:
    names: list[str] = []

    class Ids(Heard):
        def call_start(self, identity: str, name: str) -> None:
            names.append(identity)
            super().call_start(identity, name)

    gate("mistral", Ids()).feed('[TOOL_CALLS]weather{"city": "Oslo"}')
    gate("hermes", Ids()).feed(CALL)
    assert len(names[0]) == 9
    assert names[0].isalnum()
    assert names[1].startswith("call_")


def test_types_come_from_the_schema() -> None:
    block = "<tool_call>\n<function=weather>\n{}</function>\n</tool_call>"
    values = {"city": "42", "days": "3", "exact": "True", "where": "{'a': None}", "tags": "[1,", "other": "2.5"}
    text = block.format("".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in values.items()))
    expected = {"city": "42", "days": 3, "exact": True, "where": {"a": None}, "tags": "[1,", "other": 2.5}
    for pieces in ([text], list(text)):
        assert run("qwen3_xml", pieces) == ("", [("weather", expected)])


def test_a_parser_that_fails_gives_text() -> None:
    assert parse_calls("no-such-parser", "text", []) == []


@given(pieces=st.lists(st.sampled_from(["<tool_call>", "</tool_call>", "<tool", "_call>", "{", '"', "a", " ", "\n"])))
@example(pieces=["<tool_call>", "<tool_call>"])
@settings(max_examples=200, deadline=None)
def test_without_any_call_the_text_comes_out_as_it_is(pieces: list[str]) -> None:
    text = "".join(pieces)
    assert hear("hermes", pieces).answer() == hear("hermes", list(text)).answer() == (text, [])


@pytest.mark.parametrize("parser", ["glm47", "poolside_v1", "auto"])
@pytest.mark.parametrize("key", ["city", "where", "other"])
@pytest.mark.parametrize(
    "value", ["a</arg_value>", "</arg_value>b", "a</arg_value></arg_value> </arg_valu", "<arg_key>"]
)
def test_the_end_marker_of_a_value_may_stand_within_it(parser: str, key: str, value: str) -> None:
    one = f"<tool_call>weather\n<arg_key>{key}</arg_key>\n<arg_value>{value}</arg_value>\n"
    text = f"{one}<arg_key>days</arg_key>\n<arg_value>2</arg_value>\n</tool_call>{one}</tool_call>"
    for pieces in (*in_two(text), list(text)):
        assert run(parser, pieces) == ("", [("weather", {key: value, "days": 2}), ("weather", {key: value})])


def test_a_value_that_the_answer_ends_behind_is_whole() -> None:
    text = "<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Oslo</arg_value>\n"
    for pieces in in_two(text):
        assert hear("glm47", pieces).answer() == ("", [("weather", '{"city":"Oslo"')])


KIMI = '<|tool_call_begin|>functions.weather:0<|tool_call_argument_begin|>{"city": "Oslo"}<|tool_call_end|>'
MINIMAX = '<invoke name="weather">\n<parameter name="city">Oslo</parameter>\n</invoke>'
DSML = MINIMAX.replace('city"', 'city" string="true"').replace("</", "</｜DSML｜").replace("<i", "<｜DSML｜i")
DSML = DSML.replace("<p", "<｜DSML｜p")
DEEPSEEK = '<｜tool▁call▁begin｜>weather<｜tool▁sep｜>{"city": "Oslo"}<｜tool▁call▁end｜>'
WITHOUT_OUTER = [
    ("kimi", KIMI, "<|tool_calls_section_end|>"),
    ("minimax", MINIMAX, "</minimax:tool_call>"),
    ("deepseek_v4", DSML, "</｜DSML｜tool_calls>"),
    ("deepseek", DEEPSEEK, "<｜tool▁calls▁end｜>"),
]


@pytest.mark.parametrize(("parser", "call", "end"), WITHOUT_OUTER, ids=[parser for parser, *_ in WITHOUT_OUTER])
def test_calls_without_the_markers_around_them_are_calls(parser: str, call: str, end: str) -> None:
    for text, said in [
        (call, ""),
        (f"So: {call}\n{call}\n{end}", "So:"),
        (f"{call} and {call}{end} ok", " and ok"),
        (f"{call} and {end} ok", " and ok"),
    ]:
        for pieces in in_two(text):
            assert run(parser, pieces) == (said, OSLO * text.count(call))


@pytest.mark.parametrize(
    ("parser", "text", "said"),
    [
        ("kimi", "<|tool_call_begin|>weather in Oslo<|tool_call_end|> ok", "weather in Oslo ok"),
        ("kimi", "<|tool_calls_section_begin|>weather<|tool_calls_section_end|> ok", "weather ok"),
        ("kimi", "a <|tool_call_end|> b <|tool_call_argument_begin|>{}", "a b{}"),
        ("kimi", "<|tool_call_begin|>functions.weather:0<|tool_call_arg", "functions.weather:0<|tool_call_arg"),
        ("kimi", "1 <| 2 <", "1 <| 2 <"),
        ("deepseek", "a<｜tool▁sep｜>b <｜tool▁call▁begin｜>c<｜tool▁call▁end｜>", "ab c"),
        ("minimax", 'Write <invoke name="f"> and </invoke>.', 'Write <invoke name="f"> and </invoke>.'),
    ],
)
def test_a_special_token_is_no_text_where_there_is_no_call(parser: str, text: str, said: str) -> None:
    for pieces in (*in_two(text), list(text)):
        assert run(parser, pieces) == (said, [])


def test_a_marker_within_a_string_that_a_grammar_made_stays() -> None:
    text = '{"about": "a <|tool_call_end|> b"}'
    for pieces in in_two(text):
        assert hear("kimi", pieces, either=True).answer() == (text, [])
