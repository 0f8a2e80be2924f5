"""OpenAI's chat and text completions and embeddings, and vLLM's tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from openai.types import Completion, CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from inference.protocols.openai import embeddings, tokens
from inference.protocols.openai.embeddings import EmbeddingRequest
from inference.protocols.openai.params import NO_EFFECT, REFUSED
from inference.protocols.openai.requests import ChatRequest, CompletionRequest
from inference.protocols.openai.tokens import DetokenizeRequest, TokenizeRequest
from tests.conformance.cases import Case, Endpoint, accepted, by_name, honoured, refused, without_effect

TITLE = "OpenAI"

CHAT = "POST /v1/chat/completions"
COMPLETION = "POST /v1/completions"
HI = [{"role": "user", "content": "Hi"}]
STREAMED = {"stream": True}

EMBEDDINGS = "POST /v1/embeddings"
TOKENIZE = "POST /v1/tokenize"
DETOKENIZE = "POST /v1/detokenize"

ENDPOINTS = [
    Endpoint(
        CHAT,
        {"model": "acme/tiny", "messages": HI},
        ChatRequest,
        more=[*REFUSED, *NO_EFFECT],
        answer=ChatCompletion,
        event=ChatCompletionChunk,
    ),
    Endpoint(
        COMPLETION,
        {"model": "acme/tiny", "prompt": "Once"},
        CompletionRequest,
        more=[*REFUSED, *NO_EFFECT],
        answer=Completion,
        event=Completion,
    ),
    Endpoint(
        EMBEDDINGS,
        {"model": "acme/tiny", "input": "Once"},
        EmbeddingRequest,
        more=[*embeddings.REFUSED, *embeddings.NO_EFFECT],
        answer=CreateEmbeddingResponse,
    ),
    Endpoint(TOKENIZE, {"prompt": "Once"}, TokenizeRequest, more=[*tokens.TOKENIZE_REFUSED, *tokens.NO_EFFECT]),
    Endpoint(DETOKENIZE, {"tokens": [79]}, DetokenizeRequest, more=[*tokens.DETOKENIZE_REFUSED, *tokens.NO_EFFECT]),
]


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
    "ttl": 60,
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
    "ttl": 0,
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
    yield from honoured(
        endpoint,
        {"stream_options.continuous_usage_stats": True},
        "with include_usage",
        stream=True,
        stream_options={"include_usage": True},
    )
    yield Case(endpoint, "stream_options.include_usage", True, "refused", "invalid_value", named="stream_options")
    yield from _formats(endpoint)
    yield from without_effect(endpoint, NO_EFFECT)


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
FORMATS = {
    "response_format": {"type": "json_object"},
    "response_format.json_schema": {"name": "answer", "schema": SCHEMA},
    "structured_outputs.json": SCHEMA,
    "structured_outputs.regex": "a+",
    "structured_outputs.choice": ["yes", "no"],
    "structured_outputs.grammar": 'start: "a"',
    "structured_outputs.json_object": True,
    "guided_json": SCHEMA,
    "guided_regex": "a+",
    "guided_choice": ["yes", "no"],
    "guided_grammar": 'start: "a"',
    "json_schema": SCHEMA,
    "regex": "a+",
    "choice": ["yes", "no"],
    "grammar": 'start: "a"',
}
NO_FORMAT: dict[str, Any] = {
    "response_format": {"type": "text"},
    "structured_outputs": {},
    "guided_json": None,
    "guided_regex": "",
    "guided_choice": [],
    "guided_grammar": "",
    "regex": "",
    "choice": [],
    "grammar": "",
}


def _formats(endpoint: str) -> Iterator[Case]:
    for param, value in FORMATS.items():
        beside = {"response_format": {"type": "json_schema", "json_schema": {"name": "other"}}}
        yield Case(endpoint, param, value, "honoured", beside=beside if param == "response_format.json_schema" else {})
    yield from accepted(endpoint, NO_FORMAT, "means off")
    yield from refused(endpoint, {"regex": "a"}, note="two formats at once", guided_regex="b")
    yield from refused(endpoint, {"response_format.type": "yaml", "guided_json": "no JSON"})
    yield from refused(
        endpoint,
        {"structured_outputs.structural_tag": "{}", "structured_outputs.whitespace_pattern": " "},
        "unsupported_parameter",
    )


def _chat() -> Iterator[Case]:
    yield from _common(CHAT)
    yield from by_name(CHAT, REFUSED)
    yield from honoured(
        CHAT,
        {
            "messages": [{"role": "user", "content": "Ho"}],
            "messages[0].content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}],
            "max_completion_tokens": 5,
            "logprobs": True,
        },
    )
    yield from accepted(CHAT, {"messages[0].content": [{"type": "text", "text": "Hi"}]})
    yield from refused(CHAT, {"messages": []})
    yield from refused(CHAT, {"messages[0].role": "banana"})
    for part in ("image_url", "input_audio", "file"):
        value: list[dict[str, Any]] = [{"type": part, part: {}}]
        named = "messages[0].content[0].type"
        yield Case(CHAT, "messages[0].content", value, "refused", "unsupported_content", named=named)
    yield from honoured(CHAT, {"top_logprobs": 3}, logprobs=True)
    yield from refused(CHAT, {"top_logprobs": 3}, note="without logprobs")
    yield from _tools()
    yield from _thoughts()
    said = [*HI, {"role": "assistant", "content": "Well"}]
    yield from honoured(CHAT, {"continue_final_message": True}, "the last message is the assistant's", messages=said)
    yield from refused(CHAT, {"continue_final_message": True}, note="the last message is the user's")
    yield from accepted(CHAT, {"continue_final_message": False, "add_generation_prompt": True})
    yield from accepted(CHAT, {"add_generation_prompt": False}, messages=said, continue_final_message=True)
    yield from refused(CHAT, {"add_generation_prompt": False}, "unsupported_parameter", "alone")


def _tools() -> Iterator[Case]:
    function = {"name": "now", "parameters": SCHEMA}
    named = {"type": "function", "function": {"name": "now"}}
    tool = {"type": "function", "function": function}
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [named]}}
    yield from honoured(CHAT, {"tools": [tool]})
    yield from honoured(CHAT, {"tools[0].function.strict": True, "parallel_tool_calls": False}, tools=[tool])
    for choice in ("none", "required", named, allowed):
        yield Case(CHAT, "tool_choice", choice, "honoured", note="with tools", beside={"tools": [tool]})
    yield from accepted(CHAT, {"tools[0].function.strict": False}, "schemas need not be strict either", tools=[tool])
    yield from accepted(CHAT, {"tool_choice": "auto", "parallel_tool_calls": True}, "the default", tools=[tool])
    yield from accepted(CHAT, {"tools": [], "parallel_tool_calls": False, "tool_choice": "none"}, "no tools")
    yield from refused(CHAT, {"tool_choice": "required"}, note="without tools")
    yield from refused(CHAT, {"tool_choice": "sometimes"}, tools=[tool])
    yield Case(CHAT, "tools", [tool, tool], "refused", "invalid_value", named="tools[1].function.name")
    yield from honoured(CHAT, {"functions": [function]}, "the old name of tools")
    for old in ("none", {"name": "now"}):
        yield Case(CHAT, "function_call", old, "honoured", note="with functions", beside={"functions": [function]})
    yield from accepted(CHAT, {"functions": [], "function_call": "auto"})
    yield from refused(CHAT, {"function_call": {"name": "now"}}, note="without functions")


def _thoughts() -> Iterator[Case]:
    yield from honoured(
        CHAT,
        {
            "reasoning_effort": "low",
            "enable_thinking": False,
            "thinking_token_budget": 100,
            "reasoning.effort": "high",
            "reasoning.max_tokens": 100,
            "reasoning.enabled": False,
            "reasoning.exclude": True,
            "thinking": {"type": "disabled"},
            "include_reasoning": False,
            "chat_template_kwargs": {"mood": "calm"},
        },
    )
    yield Case(CHAT, "thinking.budget_tokens", 100, "honoured", beside={"thinking": {"type": "enabled"}})
    yield from accepted(
        CHAT,
        {
            "thinking_token_budget": -1,
            "reasoning": {},
            "thinking": {"type": "adaptive"},
            "include_reasoning": True,
            "chat_template_kwargs": {},
        },
        "the default",
    )
    yield from refused(CHAT, {"reasoning_effort": "huge", "chat_template_kwargs.tokenize": False})
    yield from refused(CHAT, {"reasoning.effort": "high"}, note="contradicts reasoning_effort", reasoning_effort="low")


def _completion() -> Iterator[Case]:
    yield from _common(COMPLETION)
    yield from by_name(COMPLETION, {name: off for name, off in REFUSED.items() if name != "best_of"})
    yield from honoured(COMPLETION, {"echo": True, "logprobs": 3, "best_of": 2})
    for prompt in ("Twice", ["Once", "Twice"], [5, 6], [[5], [6, 7]]):
        yield Case(COMPLETION, "prompt", prompt, "honoured")
    yield from accepted(COMPLETION, {"prompt": ["Once"], "best_of": 1})
    yield from honoured(COMPLETION, {"logprobs": 3, "max_tokens": 0}, echo=True)
    yield Case(COMPLETION, "echo", True, "honoured", note="with logprobs: the prompt's too", beside={"logprobs": 1})
    scored = {"echo": True, "logprobs": 1}
    yield Case(COMPLETION, "max_tokens", 0, "honoured", note="with echo and logprobs", beside=scored)
    yield from refused(COMPLETION, {"max_tokens": 0}, note="without echo")
    yield from refused(COMPLETION, {"prompt": [], "logprobs": 21})
    yield from refused(COMPLETION, {"best_of": 2}, note="streamed", stream=True)
    yield from refused(COMPLETION, {"best_of": 2}, note="less than n", n=3)


def _embeddings() -> Iterator[Case]:
    yield from by_name(EMBEDDINGS, embeddings.REFUSED)
    yield from without_effect(EMBEDDINGS, embeddings.NO_EFFECT)
    yield from honoured(EMBEDDINGS, {"model": "tiny", "encoding_format": "base64", "dimensions": 2})
    for given in ("Twice", ["Once", "Twice"], [5, 6], [[5], [6, 7]]):
        yield Case(EMBEDDINGS, "input", given, "honoured")
    yield from accepted(EMBEDDINGS, {"input": ["Once"], "encoding_format": "float", "dimensions": None})
    yield from refused(EMBEDDINGS, {"dimensions": 0, "encoding_format": "hex"})
    yield from refused(EMBEDDINGS, {"input": 5, "dimensions": "2"}, "invalid_type")
    yield from refused(EMBEDDINGS, {"input": ""})
    yield from refused(EMBEDDINGS, {"input": []})
    yield Case(EMBEDDINGS, "input", ["Once", ""], "refused", "invalid_value", named="input[1]")


def _tokens() -> Iterator[Case]:
    tool = {"type": "function", "function": {"name": "now"}}
    said = [*HI, {"role": "assistant", "content": "Well"}]
    yield from by_name(TOKENIZE, tokens.TOKENIZE_REFUSED)
    yield from without_effect(TOKENIZE, tokens.NO_EFFECT)
    yield from honoured(TOKENIZE, {"prompt": "Twice", "add_special_tokens": False, "return_token_strs": True})
    yield from accepted(TOKENIZE, {"model": "default", "text": "Once", "content": "Once", "add_special_tokens": True})
    chat: dict[str, Any] = {"prompt": None, "messages": said}
    yield from honoured(TOKENIZE, {"messages": HI}, "in place of a text", **chat)
    asked = {"tools": [tool], "chat_template_kwargs": {"mood": "calm"}, "continue_final_message": True}
    yield from honoured(TOKENIZE, asked, "with messages", **chat)
    yield from accepted(TOKENIZE, {"add_generation_prompt": True, "add_special_tokens": False}, "with messages", **chat)
    yield from refused(TOKENIZE, {"add_generation_prompt": False}, "unsupported_parameter", "with messages", **chat)
    yield from refused(TOKENIZE, {"add_special_tokens": True}, note="with messages", **chat)
    yield from refused(TOKENIZE, {"tools": [tool]}, note="without messages")
    yield from refused(TOKENIZE, {"text": "Twice"}, note="differs from prompt")
    yield from refused(TOKENIZE, {"prompt": 5}, "invalid_type")
    yield from by_name(DETOKENIZE, tokens.DETOKENIZE_REFUSED)
    yield from without_effect(DETOKENIZE, tokens.NO_EFFECT)
    yield from honoured(DETOKENIZE, {"tokens": [80]})
    yield from accepted(DETOKENIZE, {"model": "tiny"}, "the default model")
    yield Case(DETOKENIZE, "tokens", ["a"], "refused", "invalid_type", named="tokens[0]")


CASES = [*_chat(), *_completion(), *_embeddings(), *_tokens()]
