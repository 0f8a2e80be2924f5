"""Reasoning before what is held, its budget, answers that go on with the last message, and grammars of other makers."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from inference.errors import InvalidRequest
from inference.ipc import GenerateRequest, OutputFormat
from inference.worker.constraints.gate import ReasoningGate
from inference.worker.constraints.needs import needs_grammar
from inference.worker.text.dialect import Dialect
from tests.worker.constraints.test_calls import PLAN, STRICT, TOOLS
from tests.worker.constraints.walks import HI, model, said, takes

THINK = ("<think>", "</think>")
NUMBER = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
FORMAT = OutputFormat("json_schema", schema=NUMBER)
REQUIRED: dict[str, Any] = {"tools": TOOLS, "tool_choice": "required", "tool_names": ["plan-b"]}


def thinker(*, special: bool = True) -> Any:
    return model(Dialect("hermes", "qwen3"), (*THINK, "<tool_call>", "</tool_call>") if special else ())


def begun(text: str) -> list[dict[str, Any]]:
    return [*HI, {"role": "assistant", "content": text}]


@pytest.mark.parametrize("budget", [None, 0, 4])
def test_json_comes_after_the_reasoning_and_is_whole(budget: int | None) -> None:
    body = GenerateRequest(messages=HI, output_format=FORMAT, thinking_budget=budget)
    for seed in range(4):
        answer = said(thinker(), body, seed, begin="<think>" + "z" * (budget or 3) * bool(budget is None or budget))
        if answer.reason == "stop":
            jsonschema.validate(json.loads(answer.content), NUMBER)
            assert budget is None or len(answer.tokens) > budget
        if budget is not None:
            assert answer.reasoning == "z" * budget


@pytest.mark.parametrize("budget", [None, 0, 4])
def test_a_required_call_comes_after_the_reasoning(budget: int | None) -> None:
    body = GenerateRequest(messages=HI, thinking_budget=budget, **REQUIRED)
    text = "" if budget is not None else "so</think>"
    answer = said(thinker(), body, 1, begin="<think>" + ("z" * budget if budget else text))
    if answer.reason == "stop":
        [(name, arguments)] = answer.calls
        assert name == "plan-b"
        jsonschema.validate(json.loads(arguments), PLAN)
    assert answer.reasoning == ("so" if budget is None else "z" * budget)


def test_the_reasoning_can_neither_end_the_answer_nor_hide_a_call() -> None:
    ids = thinker().ids
    body = GenerateRequest(messages=HI, **REQUIRED)
    [gate] = thinker().ready("r", body).core.constraints
    assert isinstance(gate, ReasoningGate)
    assert takes(thinker(), body, "<think>so<tool_call>") == "<think>so"
    assert takes(thinker(), body, "<think>so<|im_end|>") == "<think>so"
    assert takes(thinker(), body, "<think>so</think><think>") == "<think>so</think>"
    assert "<tool_call>" in ids


@pytest.mark.parametrize("budget", [0, 1, 5])
@pytest.mark.parametrize("special", [True, False], ids=["tokens", "text"])
def test_the_budget_counts_exactly_where_nothing_else_is_held(budget: int, special: bool) -> None:
    chosen = thinker(special=special)
    body = GenerateRequest(messages=HI, thinking_budget=budget)
    answer = said(chosen, body, 3, begin="<think>" + "z" * budget, limit=60)
    assert answer.text.startswith("<think>" + "z" * budget + "</think>")
    assert answer.reasoning == "z" * budget
    longer = "<think>" + "z" * budget
    assert takes(chosen, body, longer + "z") == longer


def test_a_budget_that_is_not_used_up_changes_nothing() -> None:
    body = GenerateRequest(messages=HI, thinking_budget=100)
    answer = said(thinker(), body, 1, begin="<think>so</think>Yes.<|im_end|>")
    assert (answer.reasoning, answer.content, answer.reason) == ("so", "Yes.", "stop")


def test_a_model_that_does_not_reason_has_no_use_for_a_budget() -> None:
    assert model().ready("r", GenerateRequest(messages=HI, thinking_budget=3)).core.constraints == []
    assert thinker().ready("r", GenerateRequest(prompt="a", thinking_budget=3)).core.constraints == []


def test_each_choice_has_a_budget_of_its_own() -> None:
    ready = thinker().ready("r", GenerateRequest(messages=HI, n=3, thinking_budget=1))
    assert len({id(gate) for gate in ready.core.constraints}) == 3


def test_markers_within_json_are_text() -> None:
    schema = {"type": "object", "properties": {"t": {"type": "string"}}, "required": ["t"]}
    body = GenerateRequest(messages=HI, output_format=OutputFormat("json_schema", schema=schema))
    answer = said(thinker(special=False), body, 0, begin='{"t": "a</think>b<tool_call>"}')
    assert json.loads(answer.content) == {"t": "a</think>b<tool_call>"}


# ------------------------------------------------------------------------------------- answers that are continued


def test_the_answer_has_only_what_is_new() -> None:
    body = GenerateRequest(messages=begun("Once upon"), continue_final=True)
    ready = model().ready("r", body)
    assert ready.prompt.text.endswith("<|im_start|>assistant\nOnce upon")
    assert said(model(), body, 0, begin=" a time.<|im_end|>").content == " a time."


def test_the_option_of_the_template_is_the_same() -> None:
    options = {"continue_final_message": True, "add_generation_prompt": False}
    body = GenerateRequest(messages=begun("Once upon"), template_kwargs=options)
    assert model().ready("r", body).prompt.begun == "Once upon"


def test_the_message_as_a_whole_is_held_to_the_format() -> None:
    body = GenerateRequest(messages=begun('{"n": 1'), continue_final=True, output_format=FORMAT)
    assert takes(model(), body, "2}") == "2}$"
    wrong = GenerateRequest(messages=begun("Well: "), continue_final=True, output_format=FORMAT)
    with pytest.raises(InvalidRequest, match="does not begin as") as refused:
        model().ready("r", wrong)
    assert refused.value.param == "response_format"


def test_a_begun_call_is_held_too_and_a_required_one_follows_the_text() -> None:
    body = GenerateRequest(messages=begun('<tool_call>\n{"name": "plan-b", "arg'), continue_final=True, tools=STRICT)
    assert takes(model(), body, 'uments": {"step": 1}}\n</tool_call>') == 'uments": {"step": 1}}\n</tool_call>$'
    assert takes(model(), body, "uments: 3") == "uments"
    required = GenerateRequest(messages=begun("I look."), continue_final=True, **REQUIRED)
    assert takes(model(), required, '<tool_call>\n{"name": "p').endswith('"p')


def test_reasoning_may_be_continued_and_the_format_waits_for_its_end() -> None:
    body = GenerateRequest(messages=begun("<think>so"), continue_final=True, output_format=FORMAT, thinking_budget=2)
    answer = said(thinker(), body, 0, begin="zz")
    assert answer.reasoning == "zz"
    assert answer.text.startswith("zz</think>{")
    ended = GenerateRequest(messages=begun('<think>so</think>{"n"'), continue_final=True, output_format=FORMAT)
    assert takes(thinker(), ended, ": 3}") == ": 3}$"


# ------------------------------------------------------------------------------------------- grammars and lanes


@pytest.mark.parametrize(
    ("grammar", "good", "bad"),
    [
        ('root ::= "a" [0-9]+ | item\nitem ::= "z" root?', "za12", "zb"),
        ('root ::= ("x" "," )* "x"', "x,x", ","),
        ('start: "a" NUMBER\nNUMBER: /[0-9]+/', "a1", "b"),
        ('%llguidance {}\nstart: "::=" "a"', "::=a", "b"),
    ],
)
def test_grammars_may_be_lark_or_gbnf(grammar: str, good: str, bad: str) -> None:
    body = GenerateRequest(messages=HI, output_format=OutputFormat("grammar", text=grammar))
    assert takes(model(), body, good) == good + "$"
    assert not takes(model(), body, bad).startswith(bad)


@pytest.mark.parametrize("grammar", ["root ::= (", "root ::= nope", "", "::=", "a ::= [", "root ::= root"])
def test_broken_grammars_are_refused(grammar: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        model().ready("r", GenerateRequest(messages=HI, output_format=OutputFormat("grammar", text=grammar)))
    assert refused.value.param == "response_format"


@pytest.mark.parametrize(
    ("body", "needs"),
    [
        (GenerateRequest(messages=HI), False),
        (GenerateRequest(messages=HI, tools=TOOLS), False),
        (GenerateRequest(messages=HI, tools=STRICT, tool_choice="none"), False),
        (GenerateRequest(messages=HI, tools=STRICT), True),
        (GenerateRequest(messages=HI, tools=TOOLS, tool_names=["plan-b"]), True),
        (GenerateRequest(messages=HI, tools=TOOLS, tool_choice="required"), True),
        (GenerateRequest(messages=HI, thinking_budget=0), True),
        (GenerateRequest(messages=HI, output_format=FORMAT), True),
    ],
)
def test_which_requests_have_the_lane_for_grammars(body: GenerateRequest, needs: bool) -> None:
    assert needs_grammar(body) is needs


def test_a_grammar_that_was_used_before_is_not_built_again(monkeypatch: pytest.MonkeyPatch) -> None:
    body = GenerateRequest(messages=HI, output_format=OutputFormat("regex", text="built once"))
    model().ready("r", body)
    monkeypatch.setattr(model().compiler, "_matcher", None)
    assert takes(model(), body, "built once") == "built once$"
