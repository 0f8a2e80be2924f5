"""Valid requests, as they reach the worker."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.errors import InvalidRequest
from inference.ipc import GenerateRequest, OutputFormat, Sampling
from inference.principal import Principal
from inference.protocols.openai import chat_call, completion_call
from inference.protocols.openai.params import NO_EFFECT, REFUSED

OWNER = Principal("owner", "tests", frozenset({"inference"}))


def chat(**more: Any) -> GenerateRequest:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], **more}
    return chat_call(orjson.dumps(body), OWNER).request


def completion(**more: Any) -> GenerateRequest:
    return completion_call(orjson.dumps({"model": "m", "prompt": "Once", **more}), OWNER).request


def test_it_works() -> None:
    assert chat() == GenerateRequest(messages=[{"role": "user", "content": "Hi"}])
    assert completion() == GenerateRequest(prompt="Once", max_tokens=16)


def test_every_sampling_parameter_arrives() -> None:
    found = chat(
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        min_p=0.05,
        seed=-3,
        presence_penalty=1,
        frequency_penalty=-1,
        repetition_penalty=1.1,
        logit_bias={"42": -100, "7": 1.5},
        logprobs=True,
        top_logprobs=5,
    ).sampling
    assert found == Sampling(0.5, 0.9, 40, 0.05, -3, 1.0, -1.0, 1.1, {42: -100.0, 7: 1.5}, 5)


def test_null_is_the_default_everywhere() -> None:
    names = "temperature top_p top_k min_p seed presence_penalty frequency_penalty repetition_penalty logit_bias "
    names += "logprobs top_logprobs stop n max_tokens max_completion_tokens stream stream_options tools tool_choice "
    names += "parallel_tool_calls response_format reasoning_effort chat_template_kwargs user metadata audio"
    assert chat(**dict.fromkeys(names.split())) == chat()


def test_neutral_values_change_nothing() -> None:
    for name, values in REFUSED.items():
        for value in values:
            assert chat(**{name: value}) == chat()
    for name in NO_EFFECT:
        call = chat_call(orjson.dumps({"messages": [{"role": "user", "content": "x"}], name: "anything"}), OWNER)
        assert call.ignored == []


def test_limits_of_the_answer() -> None:
    assert chat(max_tokens=5).max_tokens == 5
    assert chat(max_completion_tokens=6).max_tokens == 6
    assert chat(max_tokens=6, max_completion_tokens=6).max_tokens == 6
    assert chat(max_tokens=-1).max_tokens is None
    assert completion(max_tokens=-1).max_tokens is None


def test_stop_is_a_string_or_a_list() -> None:
    assert chat(stop="END").stop == ["END"]
    assert chat(stop=["a", "b", "c", "d", "e"]).stop == ["a", "b", "c", "d", "e"]
    assert chat(stop=[]).stop == []


def test_names_that_lm_studio_uses() -> None:
    found = chat(repeat_penalty=1.2, top_k=-1)
    assert found.sampling.repetition_penalty == 1.2
    assert found.sampling.top_k == 0


def test_messages_in_all_roles() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    found = chat(
        messages=[
            {"role": "developer", "content": "Be brief."},
            {
                "role": "user",
                "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}],
                "name": "Ann",
            },
            {"role": "assistant", "content": None, "tool_calls": [call], "refusal": None, "audio": None},
            {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "42"}]},
            {"role": "assistant", "content": "It is 42.", "reasoning_content": "easy"},
            {"role": "assistant"},
        ]
    ).messages
    assert found == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "one\ntwo", "name": "Ann"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "42", "tool_call_id": "c1"},
        {"role": "assistant", "content": "It is 42.", "reasoning_content": "easy"},
        {"role": "assistant", "content": ""},
    ]


def test_arguments_as_an_object_become_text() -> None:
    call = {"id": "c1", "function": {"name": "f", "arguments": {"a": 1}}}
    found = chat(messages=[{"role": "assistant", "tool_calls": [call]}]).messages
    assert found is not None
    assert found[0]["tool_calls"][0]["function"]["arguments"] == '{"a":1}'


def test_tools() -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    listed = [
        {
            "type": "function",
            "function": {"name": "weather", "description": "d", "parameters": schema, "strict": False},
        },
        {"type": "function", "function": {"name": "now"}},
    ]
    found = chat(tools=listed, tool_choice="none", parallel_tool_calls=False)
    assert found.tools[0]["function"] == {"name": "weather", "description": "d", "parameters": schema}
    assert found.tools[1]["function"]["parameters"] == {"type": "object", "properties": {}}
    assert (found.tool_choice, found.parallel_tool_calls) == ("none", False)


def test_response_formats() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}
    assert chat(response_format={"type": "text"}).output_format == OutputFormat()
    assert chat(response_format={"type": "json_object"}).output_format == OutputFormat(kind="json_object")
    assert chat(response_format=wanted).output_format == OutputFormat(kind="json_schema", schema=schema)


def test_template_variables() -> None:
    assert chat(reasoning_effort="none").template_kwargs == {"reasoning_effort": "none", "enable_thinking": False}
    found = chat(enable_thinking=True, chat_template_kwargs={"enable_thinking": False, "mood": "calm"})
    assert found.template_kwargs == {"enable_thinking": True, "mood": "calm"}


def test_prompts_of_completions() -> None:
    assert completion(prompt=["Once"]).prompt == "Once"
    assert completion(prompt=[5, 6]).prompt == [5, 6]
    assert completion(prompt=[[5, 6]]).prompt == [5, 6]
    assert completion(echo=True).echo
    assert completion(logprobs=0).sampling.top_logprobs == 0
    assert completion(logprobs=3).sampling.top_logprobs == 3


def test_a_megabyte_is_accepted() -> None:
    messages = [{"role": "user", "content": "word " * 40}] * 5000
    assert len(chat(messages=messages).messages or []) == 5000


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMES = "messages model temperature top_p top_k seed stop n tools tool_choice response_format logit_bias logprobs "
NAMES += "max_tokens stream stream_options chat_template_kwargs user audio functions metadata banana prompt echo"


@given(st.dictionaries(st.sampled_from(NAMES.split()), json_values, max_size=6), st.booleans(), st.booleans())
def test_anything_is_a_request_or_an_invalid_request(body: dict[str, Any], chatting: bool, fill: bool) -> None:
    if fill:
        body = {"messages": [{"role": "user", "content": "x"}], "prompt": "x", **body}
    raw = orjson.dumps(body, option=orjson.OPT_NON_STR_KEYS)
    try:
        call = (chat_call if chatting else completion_call)(raw, OWNER)
    except InvalidRequest:
        return
    assert isinstance(call.request, GenerateRequest)
    assert all(header.isascii() and header.isprintable() for header in call.headers().values())


@given(st.binary(max_size=40))
def test_any_bytes_are_a_request_or_an_invalid_request(raw: bytes) -> None:
    with pytest.raises(InvalidRequest):
        chat_call(raw, OWNER)
