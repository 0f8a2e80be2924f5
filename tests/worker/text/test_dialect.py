"""The parsers of a model are found from what it says about itself."""

from __future__ import annotations

import pytest

from inference.worker.constraints.calls import SYNTAXES as CALL_SYNTAXES
from inference.worker.constraints.gate import Reasoning
from inference.worker.text.dialect import Dialect, detect
from inference.worker.text.harmony import Channels
from inference.worker.text.split import Plain, Tags


@pytest.mark.parametrize(
    ("template", "vocabulary", "kind", "tools", "reasoning"),
    [
        ("<tool_call> {{ tool_call.name }}", [], "qwen2", "hermes", None),
        ("<tool_call> <think></think>", ["<think>", "</think>"], "qwen3", "hermes", "qwen3"),
        ("<tool_call>\\n<function=a>", ["<think>", "</think>"], "qwen3_moe", "qwen3_xml", "qwen3"),
        ("<tool_call><arg_key> </think>", ["</think>"], "glm4_moe", "glm47", "glm4"),
        ("<tool_call><function=", ["</think>"], "step3p5", "step3p5", "step3p5"),
        ("[TOOL_CALLS] [THINK]", ["[THINK]", "[/THINK]"], "mistral3", "mistral", "mistral"),
        ("<｜tool▁calls▁begin｜></think>", ["</think>"], "deepseek_v3", "deepseek", "deepseek_r1"),
        ("<|tool_calls_section_begin|>", [], "kimi_k2", "kimi", None),
        ("<|channel|><|message|><|call|>", [], "gpt_oss", "harmony", "gpt_oss"),
        ("<|tool_call>", ["<|channel>", "<channel|>"], "gemma4", "gemma4", "gemma4"),
        ("<minimax:tool_call> </think>", ["</think>"], "minimax_m2", "minimax", "qwen3"),
        ('{"name": function name, "parameters": dictionary of argument name', [], "llama", "llama", None),
        ("{{ tools }}", [], "llama", "auto", None),
    ],
)
def test_detection(template: str, vocabulary: list[str], kind: str, tools: str, reasoning: str | None) -> None:
    found = detect(template, vocabulary, {"model_type": kind}, tools=True)
    assert (found.tool_parser, found.reasoning_parser) == (tools, reasoning)


def test_a_template_without_tools_gets_calls_as_hermes_writes_them_and_a_model_without_template_none() -> None:
    assert detect("", [], {}, tools=False) == Dialect()
    assert detect("[TOOL_CALLS]", [], {}, tools=False) == Dialect("hermes")


def test_the_owners_choice_wins_and_must_be_known() -> None:
    assert detect("", [], {}, tools=False, tool_parser="llama3", reasoning_parser="glm4") == Dialect("llama3", "glm4")
    with pytest.raises(ValueError, match=r"tool_parser 'nope' is unknown; it can be one of auto, .*"):
        detect("", [], {}, tools=True, tool_parser="nope")


def test_splitters() -> None:
    assert isinstance(Dialect().splitter("", tools=False), Plain)
    assert isinstance(Dialect("harmony", "gpt_oss").splitter("", tools=True), Channels)
    opened = Dialect("hermes", "qwen3").splitter("<|im_start|>assistant\n<think>\n", tools=False)
    assert isinstance(opened, Tags)
    assert opened.thinking
    assert not Dialect("hermes", "qwen3").splitter("<think>\n\n</think>\n\n", tools=False).thinking


def test_markers_that_parsers_must_see() -> None:
    assert Dialect("mistral", "mistral").markers(tools=False) == {"[THINK]", "[/THINK]"}
    assert {"[TOOL_CALLS]", "[ARGS]"} <= Dialect("mistral", None).markers(tools=True)
    assert "<|channel>thought" in Dialect("gemma4", "gemma4").markers(tools=False)
    assert "<|call|>" in Dialect("harmony", "gpt_oss").markers(tools=False)
    assert Dialect().markers(tools=True) == frozenset()


def test_where_the_reasoning_ends_and_how_it_may_begin() -> None:
    vocabulary = {"<think>": 7}
    qwen = Dialect("hermes", "qwen3")
    assert qwen.reasoning("...<think>\n", vocabulary) == Reasoning("<think>", "</think>")
    assert qwen.reasoning("...assistant\n", vocabulary) == Reasoning("<think>", "</think>", open=False, start_token=7)
    assert qwen.reasoning("<think>\n\n</think>\n\n", vocabulary) == Reasoning("<think>", "</think>", open=False)
    assert Dialect().reasoning("", vocabulary) is None
    channels = Dialect("harmony", "gpt_oss").reasoning("", {})
    assert channels == Reasoning("<|channel|>analysis<|message|>", "<|end|>", open=False, within=True)


def test_what_the_last_message_begun_decides_whether_the_model_thinks() -> None:
    qwen = Dialect("hermes", "qwen3")
    thinking = "<think>so"
    assert qwen.reasoning("..." + thinking, {}, thinking) == Reasoning("<think>", "</think>")
    assert qwen.splitter("..." + thinking, tools=False, begun=thinking).thinking
    thought = "<think>so</think>Yes"
    found = qwen.reasoning("..." + thought, {"<think>": 7}, thought)
    assert found == Reasoning("<think>", "</think>", open=False)
    assert not qwen.splitter("..." + thought, tools=False, begun=thought).thinking
    assert Dialect("harmony", "gpt_oss").reasoning("...<|message|>a", {}, "a") is None


@pytest.mark.parametrize(
    ("written", "form"),
    [('"[TOOL_CALLS] ["', "mistral_list"), ("'[TOOL_CALLS]['", "mistral_list"), ("'[TOOL_CALLS]' + name", "")],
)
def test_the_generations_of_mistral_are_told_apart(written: str, form: str) -> None:
    assert detect(written, (), {}, tools=True) == Dialect("mistral", None, form)
    assert detect(written + "[ARGS]", (), {}, tools=True) == Dialect("mistral", None, "mistral_args")


def test_the_forms_of_calls_go_by_the_parsers_canonical_names() -> None:
    assert Dialect("gemma4").forms == ()
    assert Dialect("qwen3_coder").forms == CALL_SYNTAXES["qwen3_xml"]
    assert Dialect("mistral", None, "mistral_list").forms == CALL_SYNTAXES["mistral_list"]
    assert Dialect().forms == ()
