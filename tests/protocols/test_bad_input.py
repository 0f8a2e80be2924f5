"""Every way a request can be wrong: 400, one sentence, the parameter's path."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest

from inference.errors import InvalidRequest
from inference.principal import Principal
from inference.protocols.openai import chat_call, completion_call

OWNER = Principal("owner", "tests", frozenset({"inference"}))
HI = [{"role": "user", "content": "Hi"}]


def refusal(body: Any, *, raw: bytes | None = None, strict: bool = False) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        chat_call(raw if raw is not None else json.dumps(body).encode(), OWNER, strict=strict)
    assert "\n" not in caught.value.message
    return caught.value


def chat(**more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": HI, **more}


def say(message: Any) -> dict[str, Any]:
    return chat(messages=[message])


def allowed(names: list[str], mode: str = "required") -> dict[str, Any]:
    listed = [{"type": "function", "function": {"name": name}} for name in names]
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": listed}}


def tools(**function: Any) -> dict[str, Any]:
    return chat(tools=[{"type": "function", "function": {"name": "f", **function}}])


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "no body"),
        (b"   ", "no body"),
        (b"{", "line 1, column"),
        (b'{"messages": [}', "line 1, column 15"),
        (b'{"temperature": NaN}', "not valid JSON"),
        (b'{"temperature": Infinity}', "not valid JSON"),
        (b'{"temperature": 1e999}', "not valid JSON"),
        (b'{"user": "\\ud800"}', "not valid JSON"),
        (b'{"user": "\xff"}', "not valid JSON"),
        (b'{"model": "a", "model": "b"}', "'model' appears twice"),
        (b'{"messages": [{"role": "user", "role": "system"}]}', "'role' appears twice"),
        (b"[1]", "must be a JSON object, not an array"),
        (b'"hello"', "must be a JSON object, not a string"),
        (b"null", "must be a JSON object, not null"),
        (b'{"a": ' + b"[" * 200 + b"]" * 200 + b"}", "nested deeper"),
        (b'{"a": ' + b"[" * 100_000, "not valid JSON"),
        (b'{"a": ' * 900 + b"1" + b"}" * 900, "nested deeper"),
    ],
)
def test_bodies_that_are_no_json_object(raw: bytes, words: str) -> None:
    error = refusal(None, raw=raw)
    assert error.code == "invalid_json"
    assert words in error.message


CASES: list[tuple[dict[str, Any], str]] = [
    ({"model": "m"}, "messages"),
    (chat(messages=[]), "messages"),
    (chat(messages="Hi"), "messages"),
    (chat(messages=None), "messages"),
    (chat(messages=[1]), "messages[0]"),
    (chat(model=5), "model"),
    (chat(model="m" * 1000), "model"),
    (say({"content": "x"}), "messages[0].role"),
    (say({"role": "banana", "content": "x"}), "messages[0].role"),
    (say({"role": "function", "content": "x"}), "messages[0].name"),
    (say({"role": "assistant", "content": "x", "audio": {"id": "a"}}), "messages[0].audio"),
    (say({"role": "user"}), "messages[0].content"),
    (say({"role": "user", "content": None}), "messages[0].content"),
    (say({"role": "user", "content": 5}), "messages[0].content"),
    (say({"role": "user", "content": {"text": "x"}}), "messages[0].content"),
    (say({"role": "user", "content": [{"text": "x"}]}), "messages[0].content[0].type"),
    (say({"role": "user", "content": [{"type": "text"}]}), "messages[0].content[0].text"),
    (say({"role": "user", "content": [{"type": "text", "text": 1}]}), "messages[0].content[0].text"),
    (say({"role": "user", "content": [{"type": "poem", "text": "x"}]}), "messages[0].content[0].type"),
    (
        say({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u"}}]}),
        "messages[0].content[0].type",
    ),
    (say({"role": "tool", "content": "x"}), "messages[0].tool_call_id"),
    (
        say({"role": "user", "content": "x", "tool_calls": [{"id": "a", "function": {"name": "f"}}]}),
        "messages[0].tool_calls",
    ),
    (say({"role": "assistant", "tool_calls": [{"id": "a"}]}), "messages[0].tool_calls[0].function"),
    (say({"role": "assistant", "content": "x", "function_call": {}}), "messages[0].function_call.name"),
    (say({"role": "user", "content": "x", "function_call": {"name": "f"}}), "messages[0].function_call"),
    (chat(temperature=-0.1), "temperature"),
    (chat(temperature=2.1), "temperature"),
    (chat(temperature=10**40), "temperature"),
    (chat(temperature="1"), "temperature"),
    (chat(temperature=True), "temperature"),
    (chat(top_p=0), "top_p"),
    (chat(top_p=1.5), "top_p"),
    (chat(top_k=-2), "top_k"),
    (chat(top_k=1.5), "top_k"),
    (chat(min_p=-0.1), "min_p"),
    (chat(min_p=1.1), "min_p"),
    (chat(presence_penalty=3), "presence_penalty"),
    (chat(frequency_penalty=-3), "frequency_penalty"),
    (chat(repetition_penalty=0), "repetition_penalty"),
    (chat(repetition_penalty=1e-300), "repetition_penalty"),
    (chat(repetition_penalty=1.1, repeat_penalty=1.2), "repeat_penalty"),
    (chat(max_tokens=0), "max_tokens"),
    (chat(max_tokens=-5), "max_tokens"),
    (chat(max_tokens=1.5), "max_tokens"),
    (chat(max_tokens="10"), "max_tokens"),
    (chat(max_tokens=True), "max_tokens"),
    (chat(max_tokens=10**30), "max_tokens"),
    (chat(max_tokens=2**40), "max_tokens"),
    (chat(max_completion_tokens=0), "max_completion_tokens"),
    (chat(max_tokens=5, max_completion_tokens=6), "max_tokens"),
    (chat(n=0), "n"),
    (chat(n=17), "n"),
    (chat(n=True), "n"),
    (chat(seed=2**63), "seed"),
    (chat(seed="7"), "seed"),
    (chat(seed=1.5), "seed"),
    (chat(stop=5), "stop"),
    (chat(stop=""), "stop"),
    (chat(stop=["a", ""]), "stop[1]"),
    (chat(stop=["a", 1]), "stop[1]"),
    (chat(stop=[str(i) for i in range(17)]), "stop"),
    (chat(logit_bias={"a": 1}), "logit_bias"),
    (chat(logit_bias={"-1": 1}), "logit_bias"),
    (chat(logit_bias={"²": 1}), "logit_bias"),
    (chat(logit_bias={"9999999999": 1}), "logit_bias"),
    (chat(logit_bias={"5": 101}), "logit_bias.5"),
    (chat(logit_bias={"5": "x"}), "logit_bias.5"),
    (chat(logit_bias=[1]), "logit_bias"),
    (chat(logprobs=3), "logprobs"),
    (chat(top_logprobs=3), "top_logprobs"),
    (chat(logprobs=True, top_logprobs=21), "top_logprobs"),
    (chat(stream="yes"), "stream"),
    (chat(stream_options={"include_usage": True}), "stream_options"),
    (chat(stream=True, stream_options={"include_usage": 1}), "stream_options.include_usage"),
    (chat(stream=True, stream_options=[]), "stream_options"),
    (chat(response_format="json"), "response_format"),
    (chat(response_format={"type": "yaml"}), "response_format.type"),
    (chat(response_format={"type": "json_schema"}), "response_format.json_schema"),
    (chat(response_format={"type": "json_schema", "json_schema": {}}), "response_format.json_schema.name"),
    (
        chat(response_format={"type": "json_schema", "json_schema": {"name": "a b"}}),
        "response_format.json_schema.name",
    ),
    (
        chat(response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": 1}}),
        "response_format.json_schema.schema",
    ),
    (chat(tools={}), "tools"),
    (chat(tools=[{"type": "banana", "function": {"name": "f"}}]), "tools[0].type"),
    (chat(tools=[{"type": "function"}]), "tools[0].function"),
    (chat(tools=[{"type": "function", "function": {}}]), "tools[0].function.name"),
    (tools(name="no spaces"), "tools[0].function.name"),
    (tools(parameters=[]), "tools[0].function.parameters"),
    (tools(parameters={"type": "banana"}), "tools[0].function.parameters.type"),
    (tools(parameters={"type": "object", "properties": []}), "tools[0].function.parameters.properties"),
    (tools(parameters={"properties": {"a": 1}}), "tools[0].function.parameters.properties.a"),
    (tools(strict="yes"), "tools[0].function.strict"),
    (chat(tools=[{"type": "function", "function": {"name": "f"}}] * 2), "tools[1].function.name"),
    (chat(tool_choice="required"), "tool_choice"),
    ({**tools(), "tool_choice": "sometimes"}, "tool_choice"),
    ({**tools(), "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice.function.name"),
    ({**tools(), "tool_choice": {"type": "function"}}, "tool_choice.function"),
    ({**tools(), "tool_choice": {"type": "banana"}}, "tool_choice.type"),
    ({**tools(), "tool_choice": {"type": "allowed_tools"}}, "tool_choice.allowed_tools"),
    ({**tools(), "tool_choice": allowed([], "auto")}, "tool_choice.allowed_tools.tools"),
    ({**tools(), "tool_choice": allowed(["f"], "none")}, "tool_choice.allowed_tools.mode"),
    ({**tools(), "tool_choice": allowed(["f", "g"])}, "tool_choice.allowed_tools.tools[1].function.name"),
    ({**tools(), "tool_choice": 5}, "tool_choice"),
    (chat(reasoning_effort="huge"), "reasoning_effort"),
    (chat(chat_template_kwargs={"tokenize": False}), "chat_template_kwargs.tokenize"),
    (chat(chat_template_kwargs={"chat_template": "{{ 1 }}"}), "chat_template_kwargs.chat_template"),
    (chat(audio={"voice": "x"}), "audio"),
    (chat(modalities=["text", "audio"]), "modalities"),
    ({**tools(), "functions": [{"name": "f"}]}, "functions"),
    (chat(functions=[{"name": "no spaces"}]), "functions[0].name"),
    (chat(functions=[{"name": "f"}, {"name": "f"}]), "functions[1].name"),
    (chat(functions=[{"name": "f"}], function_call={"name": "g"}), "function_call.name"),
    (chat(functions=[{"name": "f"}], function_call="sometimes"), "function_call"),
    (chat(function_call={"name": "f"}), "function_call"),
    (chat(reasoning_effort="low", reasoning={"effort": "high"}), "reasoning.effort"),
    (chat(enable_thinking=True, thinking={"type": "disabled"}), "thinking.type"),
    (chat(thinking={"type": "banana"}), "thinking.type"),
    (chat(thinking={"type": "enabled", "budget_tokens": -1}), "thinking.budget_tokens"),
    (chat(thinking_token_budget=-2), "thinking_token_budget"),
    (chat(thinking_token_budget=5, reasoning={"max_tokens": 6}), "reasoning.max_tokens"),
    (chat(reasoning="high"), "reasoning"),
    (chat(guided_json="no JSON"), "guided_json"),
    (chat(guided_json="[1]"), "guided_json"),
    (chat(guided_json=5), "guided_json"),
    (chat(guided_choice="a"), "guided_choice"),
    (chat(guided_choice=["a", 1]), "guided_choice[1]"),
    (chat(guided_regex="a+", regex="b+"), "regex"),
    (chat(response_format={"type": "json_object"}, guided_regex="a+"), "guided_regex"),
    (chat(structured_outputs={"regex": "a", "choice": ["b"]}), "structured_outputs.choice"),
    (chat(structured_outputs={"structural_tag": "x"}), "structured_outputs.structural_tag"),
    (chat(structured_outputs={"whitespace_pattern": "x"}), "structured_outputs.whitespace_pattern"),
    (chat(structured_outputs=[]), "structured_outputs"),
    (chat(guided_whitespace_pattern="x"), "guided_whitespace_pattern"),
    (chat(continue_final_message=True), "continue_final_message"),
    (chat(continue_final_message=True, add_generation_prompt=True), "add_generation_prompt"),
    (chat(add_generation_prompt=False), "add_generation_prompt"),
    (chat(ttl=0), "ttl"),
    (chat(ttl="60"), "ttl"),
    (chat(web_search_options={}), "web_search_options"),
    (chat(verbosity="low"), "verbosity"),
    (chat(min_tokens=5), "min_tokens"),
    (chat(min_tokens=False), "min_tokens"),
    (chat(best_of=2), "best_of"),
]


@pytest.mark.parametrize(("body", "param"), CASES)
def test_parameters_that_are_wrong(body: dict[str, Any], param: str) -> None:
    error = refusal(body)
    assert error.param == param, error.message
    assert error.message.startswith(param)
    assert error.status == 400


def test_sentences_say_what_was_wanted_and_what_came() -> None:
    assert refusal(chat(max_tokens="9")).message == "max_tokens must be an integer, not a string"
    assert refusal(chat(temperature=3)).message == "temperature must be less than or equal to 2, not 3"
    assert refusal(chat(stop=5)).message == "stop must be a string or must be an array, not 5"
    assert refusal({"model": "m"}).message == "messages is required"
    assert refusal(chat(messages=[1])).message == "messages[0] must be an object, not 1"
    assert refusal(say({"role": "x"})).message.endswith("'user', 'assistant', 'tool' or 'function', not 'x'")
    assert refusal(chat(messages=[])).message == "messages must have at least 1 item"


def test_texts_are_not_repeated_in_errors() -> None:
    assert "secret" not in refusal(chat(temperature="secret")).message


def test_strict_mode_refuses_unknown_parameters() -> None:
    assert refusal(chat(banana=5), strict=True).param == "banana"
    assert refusal(say({"role": "user", "content": "x", "mood": 1}), strict=True).param == "messages[].mood"
    chat_call(orjson.dumps(chat(user="u", store=True)), OWNER, strict=True)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt[0]"),
        ({"prompt": [[1], []]}, "prompt[1]"),
        ({"prompt": ["a", [1]]}, "prompt[1]"),
        ({"prompt": ["a"] * 1025}, "prompt"),
        ({"prompt": ["a"] * 1000, "n": 2}, "n"),
        ({"prompt": ["a"] * 1000, "best_of": 2}, "best_of"),
        ({"prompt": [1, -1]}, "prompt[1]"),
        ({"prompt": [1.5]}, "prompt[0]"),
        ({"prompt": [True]}, "prompt[0]"),
        ({"prompt": {"text": "a"}}, "prompt"),
        ({"prompt": "a", "suffix": "b"}, "suffix"),
        ({"prompt": "a", "best_of": 17}, "best_of"),
        ({"prompt": "a", "best_of": 1, "n": 2}, "best_of"),
        ({"prompt": "a", "best_of": 2, "stream": True}, "best_of"),
        ({"prompt": "a", "guided_regex": "a", "grammar": "b"}, "grammar"),
        ({"prompt": "a", "logprobs": True}, "logprobs"),
        ({"prompt": "a", "logprobs": 21}, "logprobs"),
        ({"prompt": "a", "max_tokens": 0}, "max_tokens"),
    ],
)
def test_completions_that_are_wrong(body: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        completion_call(orjson.dumps({"model": "m", **body}), OWNER)
    assert caught.value.param == param, caught.value.message
