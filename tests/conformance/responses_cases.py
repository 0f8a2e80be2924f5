"""OpenAI's Responses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from inference.protocols.responses.requests import LOGPROBS, NO_EFFECT, REFUSED, ResponsesRequest
from tests.conformance.cases import Case, Endpoint, accepted, by_name, honoured, refused, without_effect

TITLE = "OpenAI Responses"

CREATE = "POST /v1/responses"
COUNT = "POST /v1/responses/input_tokens"
BASE = {"model": "acme/tiny", "input": "Hi"}

ENDPOINTS = [
    Endpoint(CREATE, BASE, ResponsesRequest, more=[*REFUSED, *NO_EFFECT]),
    Endpoint(COUNT, BASE, ResponsesRequest, more=[*REFUSED, *NO_EFFECT]),
]

TOOL = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}}
OTHER = {**TOOL, "name": "time"}
SCHEMA = {"type": "json_schema", "name": "answer", "schema": {"type": "object"}}
CALL = {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "call_1", "output": "rain"}
THOUGHT = {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]}

SAMPLING = {
    "temperature": 0,
    "top_p": 0.9,
    "top_k": 40,
    "min_p": 0.05,
    "seed": 7,
    "presence_penalty": 1,
    "frequency_penalty": -1,
    "repetition_penalty": 1.1,
    "logit_bias": {"42": -100},
    "max_output_tokens": 5,
    "stop": "END",
}
PROMPT = {
    "model": "small",
    "input": "Ho",
    "instructions": "Be brief.",
    "tools": [TOOL],
    "reasoning.effort": "high",
    "enable_thinking": False,
    "thinking_token_budget": 5,
    "chat_template_kwargs": {"any": "value"},
}
REPEATED = {
    "max_tool_calls": 3,
    "metadata": {"run": "7"},
    "prompt_cache_key": "agent",
    "prompt_cache_retention": "24h",
    "safety_identifier": "s",
    "user": "u",
}
WRONG = {
    "temperature": 2.5,
    "top_p": 0,
    "top_k": -2,
    "min_p": 1.5,
    "presence_penalty": 3,
    "max_output_tokens": 0,
    "max_tool_calls": 0,
    "top_logprobs": 21,
    "ttl": 0,
    "input": [],
    "service_tier": "slow",
    "truncation": "some",
    "reasoning.effort": "huge",
    "prompt_cache_retention": "1h",
    "stop": "",
}
WRONG_TYPE = {
    "input": 5,
    "temperature": "1",
    "stream": "yes",
    "model": 5,
    "metadata.run": 7,
    "tools": "weather",
    "previous_response_id": 5,
    "store": "no",
    "text": "json",
}


def _create() -> Iterator[Case]:
    yield from honoured(CREATE, {**SAMPLING, **PROMPT, "stream": True, "background": True, "ttl": 60})
    yield from honoured(CREATE, REPEATED, "repeated in the response; changes nothing else")
    yield from accepted(CREATE, {"store": True}, "the default")
    yield Case(CREATE, "store", False, "accepted", note="the answer is the same, and cannot be fetched later")
    yield from accepted(CREATE, {"stream_options.include_obfuscation": True}, stream=True)
    yield from refused(CREATE, {"stream_options": {}}, note="without stream")
    yield from refused(CREATE, {"background": True}, store=False)
    yield from honoured(CREATE, {"include": [LOGPROBS]})
    yield from honoured(CREATE, {"include": ["reasoning.encrypted_content"]})
    yield from accepted(CREATE, {"include": ["file_search_call.results"]})
    yield from honoured(CREATE, {"top_logprobs": 3}, include=[LOGPROBS])
    yield from refused(CREATE, {"top_logprobs": 3}, note=f"without include: {LOGPROBS}")
    yield from _shared(CREATE)
    yield from _tools()
    yield from _texts()


def _shared(endpoint: str) -> Iterator[Case]:
    yield from refused(endpoint, WRONG)
    yield from refused(endpoint, WRONG_TYPE, "invalid_type")
    yield Case(endpoint, "include", ["something"], "refused", "invalid_value", named="include[0]")
    yield Case(endpoint, "previous_response_id", "resp_gone", "refused", "previous_response_not_found")
    too_many = {str(number): "x" for number in range(17)}
    yield from refused(endpoint, {"metadata": too_many})
    yield from without_effect(endpoint, NO_EFFECT)
    yield from by_name(endpoint, REFUSED)
    yield from accepted(endpoint, {"service_tier": "flex", "reasoning.summary": "auto", "reasoning.context": "auto"})
    yield from accepted(endpoint, {"reasoning.mode": "standard", "text.verbosity": "medium", "seed": None})
    yield from refused(
        endpoint,
        {"reasoning.context": "all_turns", "reasoning.mode": "pro", "text.verbosity": "low"},
        "unsupported_parameter",
    )
    yield from _items(endpoint)


def _items(endpoint: str) -> Iterator[Case]:
    said = {"role": "user", "content": "Ho"}
    for value in (
        [said],
        [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Ho"}]}],
        [{"role": "developer", "content": "Be brief."}, said],
        [{"role": "assistant", "content": [{"type": "output_text", "text": "Yes"}]}, said],
        [said, THOUGHT, CALL, OUTPUT],
        [said, CALL, {**OUTPUT, "output": [{"type": "input_text", "text": "rain"}]}],
    ):
        yield Case(endpoint, "input", value, "honoured")
    for kind in ("input_image", "input_file", "input_audio"):
        part = [{"role": "user", "content": [{"type": kind}]}]
        yield Case(endpoint, "input", part, "refused", "unsupported_content", named="input[0].content[0].type")
    lost = [{"type": "item_reference", "id": "msg_gone"}]
    yield Case(endpoint, "input", lost, "refused", "item_not_found", status=404)
    yield Case(endpoint, "input", [OUTPUT], "refused", "invalid_value", note="without its call")
    other = [{"type": "computer_call_output", "call_id": "call_1"}]
    yield Case(endpoint, "input", other, "refused", "unsupported_content", named="input[0].type")


def _tools() -> Iterator[Case]:
    yield from honoured(CREATE, {"tools": [{**TOOL, "strict": True}], "parallel_tool_calls": False}, tools=[TOOL])
    choices: list[Any] = [
        "none",
        "required",
        {"type": "function", "name": "weather"},
        {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "time"}]},
    ]
    for choice in choices:
        yield Case(CREATE, "tool_choice", choice, "honoured", beside={"tools": [TOOL, OTHER]})
    yield from accepted(CREATE, {"tool_choice": "auto", "parallel_tool_calls": True}, tools=[TOOL])
    yield from refused(CREATE, {"tool_choice": "required"}, note="without tools")
    yield from refused(CREATE, {"tool_choice": "sometimes"}, tools=[TOOL])
    unknown = {"type": "function", "name": "other"}
    yield Case(
        CREATE, "tool_choice", unknown, "refused", "invalid_value", beside={"tools": [TOOL]}, named="tool_choice.name"
    )
    for kind in ("web_search", "file_search", "computer", "code_interpreter", "mcp", "image_generation", "custom"):
        yield Case(CREATE, "tools", [{"type": kind}], "refused", "unsupported_parameter", named="tools[0].type")


def _texts() -> Iterator[Case]:
    for wanted in ({"type": "json_object"}, SCHEMA, {**SCHEMA, "strict": True}):
        yield Case(CREATE, "text.format", wanted, "honoured")
    yield from accepted(CREATE, {"text.format": {"type": "text"}})
    lacking = {"type": "json_schema", "name": "answer"}
    yield Case(CREATE, "text.format", lacking, "refused", "missing_required_parameter", named="text.format.schema")
    yield Case(CREATE, "truncation", "auto", "honoured", note="repeated; shortens what is too long")


def _count() -> Iterator[Case]:
    prompt = {name: value for name, value in PROMPT.items() if name != "model"}
    yield from honoured(COUNT, {**prompt, "text.format": SCHEMA})
    yield from accepted(COUNT, {"model": "small"}, "another name of the same model")
    yield from honoured(COUNT, SAMPLING, "the engine is told, and counts the same")
    yield from accepted(COUNT, {**REPEATED, "background": True, "ttl": 60, "stream": True, "store": False})
    yield from accepted(COUNT, {"truncation": "auto"}, "what was sent is counted, not what would be left of it")
    yield from accepted(COUNT, {"include": ["reasoning.encrypted_content"]})
    yield from accepted(COUNT, {"stream_options": {}}, stream=True)
    yield from honoured(COUNT, {"top_logprobs": 3}, "the engine is told, and counts the same", include=[LOGPROBS])
    yield from honoured(COUNT, {"tool_choice": "none", "parallel_tool_calls": False}, tools=[TOOL])
    yield from _shared(COUNT)


CASES = [*_create(), *_count()]
