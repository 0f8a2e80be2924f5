"""Anthropic's Messages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from anthropic.types import Message, MessageTokensCount, RawMessageStreamEvent
from pydantic import BaseModel

from inference.protocols.anthropic.requests import NO_EFFECT, REFUSED, CountRequest, MessageRequest
from tests.conformance.cases import Case, Endpoint, accepted, by_name, honoured, refused, without_effect
from tests.conformance.strict import Allowance

TITLE = "Anthropic"

MESSAGES = "POST /v1/messages"
COUNT = "POST /v1/messages/count_tokens"
HI = [{"role": "user", "content": "Hi"}]
BASE = {"model": "acme/tiny", "messages": HI}


class Ping(BaseModel):
    """The one event that the published union leaves out, as clients never hand it on."""

    type: Literal["ping"]


ENDPOINTS = [
    Endpoint(
        MESSAGES,
        {**BASE, "max_tokens": 64},
        MessageRequest,
        more=[*REFUSED, *NO_EFFECT],
        answer=Message,
        event=RawMessageStreamEvent | Ping,
        allowance=Allowance(),
    ),
    Endpoint(COUNT, BASE, CountRequest, more=[*REFUSED, *NO_EFFECT], answer=MessageTokensCount, allowance=Allowance()),
]

TOOL: dict[str, Any] = {"name": "weather", "input_schema": {"type": "object", "properties": {}}}
OTHER = {**TOOL, "name": "time"}
FORMAT = {"type": "json_schema", "schema": {"type": "object"}}
CACHED = {"type": "ephemeral"}
USE = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "rain"}
THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": "any"}
DOCUMENT = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "abc"}}
PDF = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": ""}}


def said(*blocks: Any, role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": list(blocks)}


CONVERSATIONS: dict[str, list[Any]] = {
    "turns of one role": [*HI, *HI],
    "an answer that goes on": [*HI, {"role": "assistant", "content": "Ho"}],
    "a system message": [*HI, {"role": "system", "content": "Be brief."}],
    "a call and its result": [*HI, said(USE, role="assistant"), said(RESULT)],
    "a failed call": [*HI, said(USE, role="assistant"), said({**RESULT, "is_error": True})],
    "thoughts": [*HI, said(THOUGHT, {"type": "text", "text": "Ho"}, role="assistant"), *HI],
    "a document of text": [said(DOCUMENT)],
    "a search result": [said({"type": "search_result", "title": "T", "source": "S", "content": []})],
}
UNREADABLE: list[tuple[Any, str]] = [
    ([said({"type": "image", "source": {"type": "base64", "data": ""}})], "messages[0].content[0].type"),
    ([said(PDF)], "messages[0].content[0].source.type"),
    ([said({**DOCUMENT, "citations": {"enabled": True}})], "messages[0].content[0].citations.enabled"),
    ([*HI, said({"type": "server_tool_use", "id": "s"}, role="assistant")], "messages[1].content[0].type"),
    ([*HI, said({"type": "web_search_tool_result", "tool_use_id": "s"})], "messages[1].content[0].type"),
    ([*HI, {"role": "assistant", "content": "Ho "}], "messages[1]"),
    ([*HI, said(USE, role="assistant")], "messages[1]"),
    ([{"role": "user", "content": ""}], "messages[0].content"),
]


def _both(endpoint: str) -> Iterator[Case]:
    """What a message and a count are asked with."""
    asked = {"messages": [{"role": "user", "content": "Ho"}], "system": "Be brief.", "tools": [TOOL]}
    yield from honoured(endpoint, asked)
    for note, messages in CONVERSATIONS.items():
        yield from honoured(endpoint, {"messages": messages}, note)
    for messages, named in UNREADABLE:
        code = {"messages[1]": "invalid_value", "messages[0].content": "invalid_value"}.get(
            named, "unsupported_content"
        )
        code = "unsupported_parameter" if named.endswith("enabled") else code
        yield Case(endpoint, "messages", messages, "refused", code, named=named)
    marked = [{"type": "text", "text": "Hi", "cache_control": CACHED, "citations": None}]
    yield from accepted(endpoint, {"messages[0].content": marked}, "cache_control changes nothing")
    yield from honoured(
        endpoint, {"system": [{"type": "text", "text": "Be brief.", "cache_control": CACHED}]}, "blocks"
    )
    yield from accepted(endpoint, {"system": [{"type": "text", "text": "x-anthropic-billing-header: x"}]}, "no prompt")
    yield from _tools(endpoint)
    yield from _thinking(endpoint)
    yield from _managed(endpoint)
    yield from refused(endpoint, {"model": 5, "messages": "Hi", "system": 5, "tools": "weather"}, "invalid_type")
    yield from by_name(endpoint, REFUSED)
    yield from without_effect(endpoint, NO_EFFECT)


def _tools(endpoint: str) -> Iterator[Case]:
    extras: list[dict[str, Any]] = [{"strict": True}, {"description": "Tells it."}, {"input_examples": [{}]}]
    for extra in extras:
        yield from honoured(endpoint, {"tools": [{**TOOL, **extra}]}, tools=[TOOL])
    known = {"type": "custom", "cache_control": CACHED, "defer_loading": True, "eager_input_streaming": True}
    yield from accepted(endpoint, {"tools": [{**TOOL, **known}]}, tools=[TOOL])
    for kind in ("web_search_20250305", "bash_20250124", "text_editor_20250728", "memory_20250818"):
        built_in = [{"type": kind, "name": "x"}]
        yield Case(endpoint, "tools", built_in, "refused", "unsupported_tool", named="tools[0].type")
    choices: list[Any] = [{"type": "any"}, {"type": "tool", "name": "weather"}, {"type": "none"}]
    for choice in [*choices, {"type": "auto", "disable_parallel_tool_use": True}]:
        yield from honoured(endpoint, {"tool_choice": choice}, tools=[TOOL, OTHER])
    yield from accepted(endpoint, {"tool_choice": {"type": "auto"}}, tools=[TOOL])
    yield from refused(endpoint, {"tool_choice": {"type": "any"}}, note="without tools")
    unknown = {"type": "tool", "name": "other"}
    yield Case(
        endpoint, "tool_choice", unknown, "refused", "invalid_value", beside={"tools": [TOOL]}, named="tool_choice.name"
    )


def _thinking(endpoint: str) -> Iterator[Case]:
    for thinking in ({"type": "enabled", "budget_tokens": 2048}, {"type": "adaptive"}, {"type": "disabled"}):
        yield from honoured(endpoint, {"thinking": thinking})
    yield from accepted(endpoint, {"thinking.display": "summarized"}, "shown whole", thinking={"type": "adaptive"})
    yield Case(
        endpoint, "thinking", {"type": "between_tools"}, "refused", "unsupported_parameter", named="thinking.type"
    )
    yield from honoured(endpoint, {"output_config.effort": "high", "output_config.format": FORMAT})
    yield from honoured(endpoint, {"output_format": FORMAT})
    yield from refused(endpoint, {"output_config.effort": "huge"})


def _managed(endpoint: str) -> Iterator[Case]:
    beside = {"messages": CONVERSATIONS["thoughts"] * 2}
    for keep, outcome in (({"type": "thinking_turns", "value": 1}, honoured), ("all", accepted)):
        edits = {"edits": [{"type": "clear_thinking_20251015", "keep": keep}]}
        yield from outcome(endpoint, {"context_management": edits}, "", **beside)
    yield from accepted(endpoint, {"context_management": {"edits": []}})
    for kind in ("clear_tool_uses_20250919", "compact_20260112"):
        named = "context_management.edits[0].type"
        edits = {"edits": [{"type": kind}]}
        yield Case(endpoint, "context_management", edits, "refused", "unsupported_parameter", named=named)


def _message() -> Iterator[Case]:
    given = {"model": "small", "max_tokens": 5, "stop_sequences": ["END"], "stream": True, "ttl": 60}
    yield from honoured(MESSAGES, {**given, "temperature": 0, "top_p": 0.9, "top_k": 40})
    off = {"temperature": 1, "top_p": 1, "top_k": 0, "stop_sequences": [], "stream": False, "thread": None}
    yield from accepted(MESSAGES, off, "means off")
    wrong = {"max_tokens": 0, "temperature": 1.5, "top_p": 0, "top_k": -1, "ttl": 0, "stop_sequences": ["x"] * 17}
    yield from refused(MESSAGES, wrong)
    yield from refused(MESSAGES, {"max_tokens": "5", "stop_sequences": "END", "stream": "yes"}, "invalid_type")
    yield from honoured(MESSAGES, {"thinking.display": "omitted"}, thinking={"type": "adaptive"})
    yield Case(MESSAGES, "thread", {"type": "create"}, "refused", "thread_unsupported_request")
    yield from _both(MESSAGES)


def _count() -> Iterator[Case]:
    yield from accepted(COUNT, {"model": "small"}, "another name of the same model")
    same = {"max_tokens": 5, "stop_sequences": ["END"], "stream": True, "temperature": 0, "top_p": 0.9, "top_k": 4}
    yield from accepted(COUNT, same, "no part of the prompt")
    yield from _both(COUNT)


CASES = [*_message(), *_count()]
