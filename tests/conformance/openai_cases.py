"""OpenAI's chat and text completions."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from inference.protocols.openai.params import NO_EFFECT, REFUSED
from inference.protocols.openai.requests import ChatRequest, CompletionRequest
from tests.conformance.cases import Case, Endpoint

TITLE = "OpenAI"

CHAT = "POST /v1/chat/completions"
COMPLETION = "POST /v1/completions"
HI = [{"role": "user", "content": "Hi"}]
STREAMED = {"stream": True}

ENDPOINTS = [
    Endpoint(CHAT, {"model": "acme/tiny", "messages": HI}, ChatRequest, more=[*REFUSED, *NO_EFFECT]),
    Endpoint(COMPLETION, {"model": "acme/tiny", "prompt": "Once"}, CompletionRequest, more=[*REFUSED, *NO_EFFECT]),
]


def honoured(endpoint: str, values: Mapping[str, Any], note: str = "", **beside: Any) -> Iterator[Case]:
    for param, value in values.items():
        yield Case(endpoint, param, value, "honoured", note=note, beside=beside)


def accepted(endpoint: str, values: Mapping[str, Any], note: str = "", **beside: Any) -> Iterator[Case]:
    for param, value in values.items():
        yield Case(endpoint, param, value, "accepted", note=note, beside=beside)


def refused(
    endpoint: str, values: Mapping[str, Any], code: str = "invalid_value", note: str = "", **beside: Any
) -> Iterator[Case]:
    for param, value in values.items():
        yield Case(endpoint, param, value, "refused", code, note, beside)


def without_effect(endpoint: str, names: Collection[str]) -> Iterator[Case]:
    for name in sorted(names):
        yield Case(endpoint, name, {"any": "value"}, "accepted")


def by_name(endpoint: str, names: Mapping[str, tuple[Any, ...]]) -> Iterator[Case]:
    """What would change the answer: refused, but for the values that mean off."""
    for name, neutral in sorted(names.items()):
        for value in neutral:
            if value is not None:
                yield Case(endpoint, name, value, "accepted", note="means off")
        yield Case(endpoint, name, {"any": "other value"}, "refused", "unsupported_parameter")


SAMPLING = {
    "temperature": 0,
    "top_p": 0.9,
    "top_k": 40,
    "min_p": 0.05,
    "seed": 7,
    "presence_penalty": 1,
    "frequency_penalty": -1,
    "repetition_penalty": 1.1,
    "repeat_penalty": 1.1,
    "logit_bias": {"42": -100},
    "max_tokens": 5,
    "n": 2,
    "stop": "END",
    "ignore_eos": True,
    "model": "small",
    "stream": True,
}
OFF = {
    "temperature": 1,
    "top_p": 1,
    "top_k": -1,
    "min_p": 0,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "repetition_penalty": 1,
    "logit_bias": {},
    "n": 1,
    "stop": [],
    "ignore_eos": False,
    "seed": None,
    "stream": False,
}
WRONG = {
    "temperature": 2.5,
    "top_p": 0,
    "top_k": -2,
    "min_p": 1.5,
    "presence_penalty": 3,
    "frequency_penalty": -3,
    "repetition_penalty": 0,
    "repeat_penalty": 11,
    "max_tokens": -5,
    "n": 17,
}
WRONG_TYPE = {
    "temperature": "1",
    "max_tokens": 1.5,
    "seed": "7",
    "stop": 5,
    "stream": "yes",
    "model": 5,
    "logit_bias": [1],
    "n": True,
}


def _common(endpoint: str) -> Iterator[Case]:
    yield from honoured(endpoint, SAMPLING)
    yield from accepted(endpoint, OFF, "means off")
    yield from refused(endpoint, WRONG)
    yield from refused(endpoint, WRONG_TYPE, "invalid_type")
    yield from refused(endpoint, {"logit_bias": {"a": 1}, "stop": ""})
    yield from honoured(endpoint, {"stream_options.include_usage": True}, stream=True)
    yield from accepted(endpoint, {"stream_options.include_obfuscation": True}, stream=True)
    yield Case(endpoint, "stream_options.include_usage", True, "refused", "invalid_value", named="stream_options")
    yield from without_effect(endpoint, NO_EFFECT)


def _chat() -> Iterator[Case]:
    tool = {"type": "function", "function": {"name": "now"}}
    yield from _common(CHAT)
    yield from by_name(CHAT, REFUSED)
    yield from honoured(
        CHAT,
        {
            "messages": [{"role": "user", "content": "Ho"}],
            "max_completion_tokens": 5,
            "logprobs": True,
            "response_format": {"type": "json_object"},
            "tools": [tool],
            "reasoning_effort": "low",
            "enable_thinking": False,
            "chat_template_kwargs": {"mood": "calm"},
        },
    )
    yield from honoured(CHAT, {"top_logprobs": 3}, logprobs=True)
    yield from honoured(CHAT, {"tool_choice": "none", "parallel_tool_calls": False}, "with tools", tools=[tool])


def _completion() -> Iterator[Case]:
    yield from _common(COMPLETION)
    yield from by_name(COMPLETION, REFUSED)
    yield from honoured(COMPLETION, {"prompt": "Twice", "echo": True, "logprobs": 3})


CASES = [*_chat(), *_completion()]
