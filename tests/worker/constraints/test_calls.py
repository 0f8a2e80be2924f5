"""Calls that a grammar forces: whatever a model chooses, what the client gets validates."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from inference.errors import InvalidRequest
from inference.ipc import GenerateRequest, OutputFormat
from inference.worker.constraints.calls import SYNTAXES
from inference.worker.text.dialect import Dialect
from tests.worker.constraints.walks import HI, Answer, model, said, takes

MARKERS = (
    "<tool_call>",
    "</tool_call>",
    "<arg_key>",
    "</arg_key>",
    "<arg_value>",
    "</arg_value>",
    "<|tool_call|>",
    "[TOOL_CALLS]",
    "[ARGS]",
    "<|tool_calls_section_begin|>",
    "<|tool_calls_section_end|>",
    "<|tool_call_begin|>",
    "<|tool_call_argument_begin|>",
    "<|tool_call_end|>",
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁sep｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁calls▁end｜>",
    "<|python_tag|>",
)
CHANNELS = ("<|channel|>", "<|message|>", "<|end|>", "<|start|>", "<|constrain|>")
WEATHER = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 4},
        "note": {"anyOf": [{"type": "string", "maxLength": 3}, {"type": "null"}]},
        "mix": {"type": ["string", "integer", "null"], "maxLength": 4, "minimum": 0, "maximum": 99},
        "unit": {"type": "string", "enum": ["C", "F"]},
        "days": {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 9}, "maxItems": 3},
        "where": {"$ref": "#/$defs/place"},
    },
    "required": ["city", "unit"],
    "$defs": {
        "place": {
            "type": "object",
            "properties": {"x": {"type": "number", "minimum": 0, "maximum": 1}},
            "required": ["x"],
        }
    },
}
PLAN = {
    "type": "object",
    "properties": {"sure": {"type": "boolean"}, "step": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["step"],
    "additionalProperties": False,
}
SCHEMAS: dict[str, Any] = {"weather": WEATHER, "plan-b": PLAN, "nothing": {"type": "object", "maxProperties": 0}}
PATTERN = {"type": "object", "properties": {"code": {"type": "string", "pattern": "^[a-z]{2}$"}}, "required": ["code"]}


def tool(name: str, parameters: Any, *, strict: bool | None = None) -> dict[str, Any]:
    function = {"name": name, "parameters": parameters} | ({} if strict is None else {"strict": strict})
    return {"type": "function", "function": function}


TOOLS = [tool("weather", WEATHER), tool("plan-b", PLAN), tool("nothing", None)]
STRICT = [tool("weather", WEATHER, strict=True), tool("plan-b", PLAN, strict=True)]
REQUIRED = GenerateRequest(messages=HI, tools=TOOLS, tool_choice="required")


def dialect(form: str) -> Dialect:
    return Dialect("mistral", None, form) if form.startswith("mistral_") else Dialect(form, None)


def check(answer: Answer) -> None:
    assert answer.reason == "tool_calls", answer
    assert not answer.content.strip(), answer
    assert answer.calls
    for name, arguments in answer.calls:
        jsonschema.validate(json.loads(arguments), SCHEMAS[name])


@pytest.mark.parametrize("special", [(), MARKERS], ids=["text", "tokens"])
@pytest.mark.parametrize("form", [*SYNTAXES, "gemma4"])
def test_forced_calls_validate_in_every_syntax(form: str, special: tuple[str, ...]) -> None:
    ended = 0
    for seed in range(5):
        answer = said(model(dialect(form), special), REQUIRED, seed)
        if answer.reason != "length":
            check(answer)
            ended += 1
    assert ended


@pytest.mark.parametrize("form", [*SYNTAXES])
def test_a_named_call_is_one_call_of_that_function(form: str) -> None:
    body = GenerateRequest(messages=HI, tools=TOOLS, tool_choice="required", tool_names=["plan-b"])
    for seed in range(3):
        answer = said(model(dialect(form)), body, seed)
        assert answer.reason == "stop", "so does OpenAI when one function is named"
        [(name, arguments)] = answer.calls
        assert name == "plan-b"
        jsonschema.validate(json.loads(arguments), PLAN)


def test_one_call_only_where_parallel_ones_are_not_wanted() -> None:
    body = GenerateRequest(messages=HI, tools=TOOLS, tool_choice="required", parallel_tool_calls=False)
    assert {len(said(model(), body, seed).calls) for seed in range(8)} == {1}
    assert max(len(said(model(), REQUIRED, seed).calls) for seed in range(8)) > 1


def test_only_some_tools_may_be_called_and_all_are_shown() -> None:
    body = GenerateRequest(messages=HI, tools=TOOLS, tool_choice="required", tool_names=["plan-b", "nothing"])
    called = {name for seed in range(8) for name, _ in said(model(), body, seed).calls}
    assert called == {"plan-b", "nothing"}
    assert "weather" in model().ready("r", body).prompt.text


def test_arguments_come_in_the_order_of_the_schema_and_a_tool_without_parameters_gets_none() -> None:
    head = '<tool_call>\n{"name": "'
    assert takes(model(), REQUIRED, head + 'nothing", "arguments": {}}\n</tool_call>').endswith("</tool_call>$")
    assert takes(model(), REQUIRED, head + 'nothing", "arguments": {"a').endswith('arguments": {')
    assert takes(model(), REQUIRED, head + 'weather", "arguments": {"unit').endswith('arguments": {"')


@pytest.mark.parametrize("name", ["gemma4", "llama", "kimi"])
def test_plain_objects_stand_in_where_the_syntax_cannot_carry_a_call(name: str) -> None:
    body = GenerateRequest(messages=HI, tools=[tool("a.b", PLAN)], tool_choice="required")
    ready = model(Dialect(name, None)).ready("r", body)
    assert ready.plan.forced == "json"
    answer = said(model(Dialect(name, None)), body, 1)
    assert answer.text.startswith('{"name": "a.b", "arguments": {')
    assert answer.calls[0][0] == "a.b"


def test_any_name_can_be_called() -> None:
    name = 'say "hi"'
    body = GenerateRequest(messages=HI, tools=[tool(name, None)], tool_choice="required", parallel_tool_calls=False)
    answer = said(model(), body, 1)
    assert [(called, json.loads(arguments)) for called, arguments in answer.calls] == [(name, {})]


@pytest.mark.parametrize("name", ["qwen3_xml", "glm47"])
def test_a_text_that_tags_cannot_hold_to_its_pattern_goes_into_json(name: str) -> None:
    body = GenerateRequest(messages=HI, tools=[tool("find", PATTERN, strict=True)], tool_choice="required")
    answer = said(model(Dialect(name, None)), body, 1)
    assert answer.text.startswith('{"name"')
    jsonschema.validate(json.loads(answer.calls[0][1]), PATTERN)


def test_texts_between_tags_may_hold_anything_but_their_end() -> None:
    body = GenerateRequest(
        messages=HI,
        tools=[tool("write", {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]})],
        tool_choice="required",
    )
    value = '<b>\n"a" </param> null'
    text = f"<tool_call>\n<function=write>\n<parameter=text>\n{value}\n</parameter>\n</function>\n</tool_call>"
    assert takes(model(Dialect("qwen3_xml", None)), body, text) == text + "$"
    answer = said(model(Dialect("qwen3_xml", None)), body, 0, begin=text)
    assert json.loads(answer.calls[0][1]) == {"text": value}


def test_what_cannot_be_enforced_of_a_strict_tool_is_named_with_its_place() -> None:
    parameters = {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}}
    body = GenerateRequest(messages=HI, tools=[tool("x", PLAN), tool("f", parameters, strict=True)])
    with pytest.raises(
        InvalidRequest, match=r"'uniqueItems' cannot be enforced \(at /properties/a/uniqueItems\)"
    ) as no:
        model().ready("r", body)
    assert no.value.param == "tools[1].function.parameters"


@pytest.mark.parametrize(
    "parameters",
    [
        {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}, "required": ["a"]},
        {"type": "object", "properties": {"a": {"not": {"type": "string"}}}},
        {"type": "object", "properties": {"a": {"type": "string", "pattern": "(?=x)"}}, "required": ["a"]},
        {"type": "object", "properties": {"a": {"type": "string", "format": "banana"}}},
        {"type": "object", "properties": {"a": {"oneOf": [{"type": "integer"}, {"minimum": 3}]}}},
        {"type": "object", "properties": {"a": {"type": "banana"}}},
    ],
)
def test_a_tool_that_is_not_strict_is_held_to_what_can_be_kept(parameters: dict[str, Any]) -> None:
    body = GenerateRequest(messages=HI, tools=[tool("f", parameters)], tool_choice="required")
    answers = [said(model(), body, seed) for seed in range(4)]
    assert all(isinstance(json.loads(answer.calls[0][1]), dict) for answer in answers if answer.reason != "length")


# ------------------------------------------------------------------------------------------------- in a free answer


AUTO = GenerateRequest(messages=HI, tools=STRICT)


@pytest.mark.parametrize("form", [*SYNTAXES])
@pytest.mark.parametrize("special", [(), MARKERS], ids=["text", "tokens"])
def test_a_free_answer_is_held_from_where_it_begins_a_call(form: str, special: tuple[str, ...]) -> None:
    chosen = model(dialect(form), special)
    assert takes(chosen, AUTO, "Well, <b> no {call}.") == "Well, <b> no {call}.$"
    assert chosen.dialect.syntax is not None
    start = next(start for start in chosen.dialect.syntax.blocks if SYNTAXES[form][0].start.startswith(start))
    held = takes(chosen, AUTO, f"Well. {start}nonsense")
    assert held.startswith("Well. ")
    assert "nonsense" not in held
    assert not held.endswith("$")
    for seed in range(3):
        answer = said(chosen, AUTO, seed, begin=f"Well. {start}")
        if answer.reason != "length":
            assert answer.content.startswith("Well.")
            assert answer.calls
            for name, arguments in answer.calls:
                jsonschema.validate(json.loads(arguments), SCHEMAS[name])


def test_a_bare_object_of_llama_is_a_held_call_and_other_objects_are_text() -> None:
    chosen = model(Dialect("llama", None))
    assert takes(chosen, AUTO, '{"name": "weather", "parameters": {"x').endswith('"parameters": {"')
    assert takes(chosen, AUTO, '{"a": 1}') == '{"a": 1}$'
    assert takes(chosen, AUTO, 'See {"name": "weather", "parameters"').endswith('See {"name$')
    answer = said(chosen, AUTO, 1, begin='{"name": "plan-b"')
    assert answer.calls[0][0] == "plan-b"
    jsonschema.validate(json.loads(answer.calls[0][1]), PLAN)


def test_after_a_call_there_may_be_text_or_another_where_the_syntax_tells_them_apart() -> None:
    call = '<tool_call>\n{"name": "plan-b", "arguments": {"step": 1}}\n</tool_call>'
    assert takes(model(), AUTO, f"a {call} b {call}") == f"a {call} b {call}$"
    single = GenerateRequest(messages=HI, tools=STRICT, parallel_tool_calls=False)
    assert takes(model(), single, f"a {call} b") == f"a {call}$"
    listed = model(Dialect("mistral", None, "mistral_list"))
    many = '[TOOL_CALLS] [{"name": "plan-b", "arguments": {"step": 1}}, {"name": "plan-b", "arguments": {"step": 2}}]'
    assert takes(listed, AUTO, f"{many} and") == f"{many}$"


def test_a_bare_object_is_no_call_while_calls_are_held() -> None:
    text = '{"name": "plan-b", "arguments": {"step": "many"}}'
    answer = said(model(), AUTO, 1, begin=text, limit=len(model().tokenizer.encode(text)))
    assert answer.calls == []
    assert answer.content.startswith(text[:20])


def test_free_answers_without_any_strict_tool_are_free() -> None:
    body = GenerateRequest(messages=HI, tools=TOOLS)
    assert model().ready("r", body).core.constraints == []
    assert model().ready("r", body).plan.known_tools == {"weather", "plan-b", "nothing"}


def test_in_a_free_answer_too_only_the_allowed_tools_can_be_called() -> None:
    body = GenerateRequest(messages=HI, tools=TOOLS, tool_names=["plan-b"])
    assert takes(model(), body, '<tool_call>\n{"name": "weather').endswith('"name": "')
    assert takes(model(), body, "no") == "no$"


def test_strict_tools_of_a_model_whose_syntax_has_no_grammar_are_refused_in_a_free_answer() -> None:
    with pytest.raises(InvalidRequest, match="this model's own syntax") as refused:
        model(Dialect("gemma4", None)).ready("r", AUTO)
    assert refused.value.param == "tools"


def test_what_the_model_is_shown_does_not_tell_strict() -> None:
    assert "strict" not in model().ready("r", AUTO).prompt.text


# -------------------------------------------------------------------------------------------------- beside a format


NUMBER = OutputFormat(
    "json_schema", schema={"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
)


@pytest.mark.parametrize("special", [(), MARKERS], ids=["text", "tokens"])
def test_an_answer_is_a_call_or_a_text_under_the_format(special: tuple[str, ...]) -> None:
    chosen = model(None, special)
    body = GenerateRequest(messages=HI, tools=TOOLS, output_format=NUMBER)
    assert takes(chosen, body, '{"n": 12}') == '{"n": 12}$'
    assert takes(chosen, body, "Well") == ""
    call = '<tool_call>\n{"name": "plan-b", "arguments": {"step": 1}}\n</tool_call>'
    assert takes(chosen, body, call + "no") == call + "$"
    assert said(chosen, body, 3, begin='{"n": 1').calls == []
    none = GenerateRequest(messages=HI, tools=TOOLS, tool_choice="none", output_format=NUMBER)
    assert takes(chosen, none, "<tool") == ""


@pytest.mark.parametrize(
    ("output_format", "text"),
    [
        (OutputFormat("json_object"), '{"a": [1]}'),
        (OutputFormat("regex", text="[0-9]+/[0-9]+"), "12/3"),
        (OutputFormat("choice", choices=["yes", "no"]), "yes"),
        (OutputFormat("grammar", text='start: "a" | start2\nstart2: "b" "c"'), "bc"),
    ],
)
def test_every_format_can_stand_beside_calls(output_format: OutputFormat, text: str) -> None:
    body = GenerateRequest(messages=HI, tools=TOOLS, output_format=output_format)
    assert takes(model(), body, text) == text + "$"
    assert takes(model(), body, '<tool_call>\n{"name": "nothing"').endswith('"nothing"')


def test_a_required_call_leaves_no_room_for_the_format_but_the_format_must_be_sound() -> None:
    body = GenerateRequest(messages=HI, tools=TOOLS, tool_choice="required", output_format=NUMBER)
    assert takes(model(), body, '{"n"') == ""
    broken = OutputFormat("json_schema", schema={"type": "banana"})
    with pytest.raises(InvalidRequest) as refused:
        model().ready("r", GenerateRequest(messages=HI, tools=TOOLS, tool_choice="required", output_format=broken))
    assert refused.value.param == "response_format"


# ------------------------------------------------------------------------------------------------------- harmony


def harmony() -> Any:
    return model(Dialect("harmony", "gpt_oss"), CHANNELS)


THOUGHT = "<|channel|>analysis<|message|>so<|end|><|start|>assistant"
FINAL = "<|channel|>final<|message|>"


def test_channels_think_and_then_call() -> None:
    body = GenerateRequest(messages=HI, tools=TOOLS, tool_choice="required")
    assert takes(harmony(), body, FINAL) == "<|channel|>"
    for seed in range(6):
        answer = said(harmony(), body, seed, begin=THOUGHT if seed % 2 else "")
        if answer.reason == "length":
            continue
        assert answer.reason == "tool_calls"
        [(name, arguments)] = answer.calls
        jsonschema.validate(json.loads(arguments), SCHEMAS[name])


def test_channels_hold_the_final_message_to_the_format() -> None:
    body = GenerateRequest(messages=HI, output_format=NUMBER)
    assert takes(harmony(), body, THOUGHT + FINAL + '{"n": 1}') == THOUGHT + FINAL + '{"n": 1}$'
    assert takes(harmony(), body, "<|channel|>commentary") == "<|channel|>"
    answer = said(harmony(), body, 2, begin=THOUGHT + FINAL + '{"n": 1}')
    assert (answer.reasoning, answer.calls) == ("so", [])
    assert json.loads(answer.content)["n"] >= 1


def test_channels_hold_a_strict_call_and_leave_the_rest_free() -> None:
    assert takes(harmony(), AUTO, FINAL + "Hello {") == FINAL + "Hello {$"
    head = "<|channel|>commentary to=functions.plan-b <|constrain|>json<|message|>"
    assert takes(harmony(), AUTO, head + '{"step": "no') == head + '{"step": '
    assert takes(harmony(), AUTO, "<|channel|>commentary<|message|>First<|end|><|start|>assistant" + head).endswith(
        head
    )


@pytest.mark.parametrize("tokens", [0, 3])
def test_channels_switch_when_the_budget_is_used_up(tokens: int) -> None:
    body = GenerateRequest(messages=HI, thinking_budget=tokens)
    begin = "<|channel|>analysis<|message|>" + "z" * tokens
    answer = said(harmony(), body, 1, begin=begin, limit=60)
    assert answer.text.startswith(f"{begin}<|end|><|start|>assistant<|channel|>final<|message|>")
    assert answer.reasoning == "z" * tokens
