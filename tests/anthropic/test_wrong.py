"""Everything that is wrong with a request: the status, the shape, and the name of what is at fault."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from inference.api import deps
from inference.errors import (
    ContextLengthExceeded,
    InsufficientMemory,
    InvalidRequest,
    LmxError,
    ModelUnavailable,
    TooManyRequests,
    Unsupported,
)
from inference.request_id import request_id
from lmx_site import access
from tests.anthropic.conftest import COUNT, MESSAGES, MessagesApi, asking, check_error, events_of
from tests.api.fake_engine import FakeEngine, failed, finished, started, text

USER = {"role": "user", "content": "Hi"}
TOOL = {"name": "weather", "input_schema": {"type": "object"}}


def turn(role: str, *blocks: Any) -> list[Any]:
    return [USER, {"role": role, "content": list(blocks)}]


def user(*blocks: Any) -> list[Any]:
    return [{"role": "user", "content": list(blocks)}]


@pytest.mark.parametrize(
    ("params", "param", "code"),
    [
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"max_tokens": "5"}, "max_tokens", "invalid_type"),
        ({"max_tokens": None}, "max_tokens", "invalid_type"),
        ({"model": 5}, "model", "invalid_type"),
        ({"temperature": 1.5}, "temperature", "invalid_value"),
        ({"top_p": 0}, "top_p", "invalid_value"),
        ({"top_k": -1}, "top_k", "invalid_value"),
        ({"stream": "yes"}, "stream", "invalid_type"),
        ({"stop_sequences": "END"}, "stop_sequences", "invalid_type"),
        ({"stop_sequences": [""]}, "stop_sequences[0]", "invalid_value"),
        ({"stop_sequences": ["x"] * 17}, "stop_sequences", "invalid_value"),
        ({"messages": "Hi"}, "messages", "invalid_type"),
        ({"messages": [{"role": "tool", "content": "Hi"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages[0].content", "invalid_value"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content", "invalid_value"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content", "invalid_type"),
        ({"messages": [{"role": "assistant", "content": "Hi"}]}, "messages", "invalid_value"),
        ({"messages": [{"role": "assistant", "content": ""}]}, "messages", "invalid_value"),
        ({"messages": user({"text": "x"})}, "messages[0].content[0].type", "missing_required_parameter"),
        ({"messages": user({"type": "text"})}, "messages[0].content[0].text", "missing_required_parameter"),
        ({"messages": user({"type": "text", "text": 5})}, "messages[0].content[0].text", "invalid_type"),
        ({"messages": user({"type": "odd"})}, "messages[0].content[0].type", "invalid_value"),
        (
            {"messages": user({"type": "image", "source": {"type": "url", "url": "http://x"}})},
            "messages[0].content[0].type",
            "unsupported_content",
        ),
        (
            {"messages": user({"type": "document", "source": {"type": "base64", "data": ""}})},
            "messages[0].content[0].source.type",
            "unsupported_content",
        ),
        (
            {"messages": user({"type": "document", "source": {"type": "text"}})},
            "messages[0].content[0].source.data",
            "missing_required_parameter",
        ),
        (
            {"messages": user({"type": "document", "source": {"type": "content", "content": [{"type": 5}]}})},
            "messages[0].content[0].source.content[0].type",
            "invalid_type",
        ),
        ({"messages": user({"type": "document"})}, "messages[0].content[0].source", "missing_required_parameter"),
        (
            {
                "messages": user(
                    {"type": "document", "source": {"type": "text", "data": "x"}, "citations": {"enabled": True}}
                )
            },
            "messages[0].content[0].citations.enabled",
            "unsupported_parameter",
        ),
        (
            {"messages": user({"type": "tool_result", "content": "x"})},
            "messages[0].content[0].tool_use_id",
            "missing_required_parameter",
        ),
        (
            {"messages": user({"type": "tool_result", "tool_use_id": "t", "content": [{"type": "image"}]})},
            "messages[0].content[0].content[0].type",
            "unsupported_content",
        ),
        (
            {"messages": user({"type": "thinking", "thinking": "x"})},
            "messages[0].content[0].type",
            "invalid_value",
        ),
        (
            {"messages": turn("assistant", {"type": "tool_result", "tool_use_id": "t"})},
            "messages[1].content[0].type",
            "invalid_value",
        ),
        (
            {"messages": turn("assistant", {"type": "server_tool_use", "id": "t"})},
            "messages[1].content[0].type",
            "unsupported_content",
        ),
        (
            {"messages": turn("user", {"type": "web_search_tool_result", "tool_use_id": "t"})},
            "messages[1].content[0].type",
            "unsupported_content",
        ),
        (
            {"messages": turn("assistant", {"type": "tool_use", "name": "x", "input": {}})},
            "messages[1].content[0].id",
            "missing_required_parameter",
        ),
        (
            {"messages": turn("assistant", {"type": "tool_use", "id": "t", "name": "x", "input": "{}"})},
            "messages[1].content[0].input",
            "invalid_type",
        ),
        (
            {"messages": turn("assistant", {"type": "tool_use", "id": "t", "name": "x", "input": {}})},
            "messages[1]",
            "invalid_value",
        ),
        ({"messages": turn("assistant", {"type": "text", "text": "The "})}, "messages[1]", "invalid_value"),
        ({"messages": turn("assistant", {"type": "thinking", "thinking": "x"})}, "messages[1]", "invalid_value"),
        ({"system": 5}, "system", "invalid_type"),
        ({"system": [{"type": "image"}]}, "system[0].type", "unsupported_content"),
        ({"tools": [{"name": "x"}]}, "tools[0].input_schema", "missing_required_parameter"),
        ({"tools": [{"input_schema": {}}]}, "tools[0].name", "missing_required_parameter"),
        ({"tools": [{"name": "a b", "input_schema": {}}]}, "tools[0].name", "invalid_value"),
        ({"tools": [TOOL, TOOL]}, "tools[1].name", "invalid_value"),
        ({"tools": [{"name": "x", "input_schema": {"type": "string"}}]}, "tools[0].input_schema.type", "invalid_value"),
        (
            {"tools": [{"name": "x", "input_schema": {"properties": {"a": 5}}}]},
            "tools[0].input_schema.properties.a",
            "invalid_type",
        ),
        (
            {"tools": [{"name": "x", "input_schema": {"properties": []}}]},
            "tools[0].input_schema.properties",
            "invalid_type",
        ),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type", "unsupported_tool"),
        ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, "tools[0].type", "unsupported_tool"),
        ({"tools": [{**TOOL, "allowed_callers": ["code"]}]}, "tools[0].allowed_callers", "unsupported_parameter"),
        ({"tool_choice": {"type": "any"}}, "tool_choice", "invalid_value"),
        ({"tool_choice": {"type": "most"}}, "tool_choice.type", "invalid_value"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool"}}, "tool_choice.name", "missing_required_parameter"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "x"}}, "tool_choice.name", "invalid_value"),
        ({"thinking": {"type": "between_tools"}}, "thinking.type", "unsupported_parameter"),
        ({"thinking": {"type": "enabled", "budget_tokens": -1}}, "thinking.budget_tokens", "invalid_value"),
        (
            {"output_config": {"format": {"type": "json_schema"}}},
            "output_config.format.schema",
            "missing_required_parameter",
        ),
        (
            {
                "output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}},
                "output_format": {"type": "json_schema", "schema": {}},
            },
            "output_format",
            "invalid_value",
        ),
        (
            {"context_management": {"edits": [{"type": "clear_tool_uses_20250919"}]}},
            "context_management.edits[0].type",
            "unsupported_parameter",
        ),
        ({"thread": {"type": "create"}}, "thread", "thread_unsupported_request"),
        ({"container": "c"}, "container", "unsupported_parameter"),
        ({"mcp_servers": [{"type": "url"}]}, "mcp_servers", "unsupported_parameter"),
    ],
)
async def test_it_is_named(api: MessagesApi, engine: FakeEngine, params: dict[str, Any], param: str, code: str) -> None:
    status, error = await api.refused(**params)
    assert (status, error["type"]) == (400, "invalid_request_error")
    assert error["details"] == {"error_code": code, "param": param}
    assert error["message"].startswith(param)
    assert engine.asked == []


@pytest.mark.parametrize("name", ["max_tokens", "messages"])
async def test_what_is_missing(api: MessagesApi, name: str) -> None:
    body = asking()
    del body[name]
    _, error = await api.post(MESSAGES, body)
    assert check_error(error)["message"] == f"{name} is required"


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b'{"a": 1, "a": 2}', b'{"max_tokens": NaN}', b"[" * 5000])
async def test_what_is_no_object(api: MessagesApi, raw: bytes) -> None:
    for path in (MESSAGES, COUNT):
        status, _, content = await api.send("POST", path, raw=raw)
        assert (status, check_error(orjson.loads(content))["type"]) == (400, "invalid_request_error")


async def test_strict(api: MessagesApi, engine: FakeEngine) -> None:
    deps.configure(catalog=engine.catalog, strict=True)
    _, error = await api.refused(colour="red")
    assert error["details"] == {"error_code": "unknown_parameter", "param": "colour"}


@pytest.mark.parametrize(
    ("error", "status", "kind", "retry"),
    [
        (TooManyRequests("full", retry_after=3), 429, "rate_limit_error", "true"),
        (ModelUnavailable("loading failed"), 503, "overloaded_error", "true"),
        (InsufficientMemory("too large"), 507, "api_error", "false"),
        (Unsupported("no chat"), 501, "api_error", "false"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_refusals_of_the_engine(
    api: MessagesApi, engine: FakeEngine, error: LmxError, status: int, kind: str, retry: str, stream: bool
) -> None:
    engine.scripts.append([error])
    answered, headers, content = await api.send("POST", MESSAGES, asking(stream=stream))
    assert (answered, headers["x-should-retry"]) == (status, retry)
    assert check_error(orjson.loads(content))["type"] == kind
    assert ("retry-after" in headers) == (retry == "true")


async def test_a_prompt_that_is_too_long_is_told_in_the_words_that_agents_know(
    api: MessagesApi, engine: FakeEngine
) -> None:
    engine.scripts.append([ContextLengthExceeded.of(2500, 2048, "messages")])
    status, error = await api.refused()
    assert (status, error["message"]) == (400, "prompt is too long: 2500 tokens > 2048 maximum")
    assert error["details"]["error_code"] == "context_length_exceeded"


@pytest.mark.parametrize(
    ("param", "message", "own", "told"),
    [
        ("response_format", "The schema of response_format cannot be", "output_config.format", "output_config.format"),
        ("tools[2].function.parameters", "tools[2].function.parameters is", "tools[2].input_schema", "tools[2].input_"),
        ("messages", "words", "messages", "words"),
    ],
)
async def test_the_engines_names_of_parameters_become_ours(
    api: MessagesApi, engine: FakeEngine, param: str, message: str, own: str, told: str
) -> None:
    engine.scripts.append([InvalidRequest(message, param=param)])
    _, error = await api.refused()
    assert error["details"]["param"] == own
    assert told in error["message"]


async def test_a_failure_in_the_middle_is_an_event(api: MessagesApi, engine: FakeEngine) -> None:
    engine.scripts.append([[started()], [text("Hel")], [failed("worker_died", "it died")]])
    events = await api.events()
    assert [event["type"] for event in events] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "error",
    ]
    assert check_error(events[-1])["type"] == "overloaded_error"
    assert events[-1]["error"]["details"]["error_code"] == "worker_died"


async def test_a_cancelled_answer_is_an_error(api: MessagesApi, engine: FakeEngine) -> None:
    engine.scripts += [[[started()], [text("Hel"), finished("cancelled")]]] * 2
    status, error = await api.refused()
    assert (status, error["details"]["error_code"]) == (409, "request_cancelled")
    assert (await api.events())[-1]["type"] == "error"


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", MESSAGES, 405, "invalid_request_error"),
        ("DELETE", COUNT, 405, "invalid_request_error"),
        ("POST", MESSAGES + "/batches", 404, "not_found_error"),
        ("GET", MESSAGES + "/batches/x", 404, "not_found_error"),
    ],
)
async def test_paths_and_methods(api: MessagesApi, method: str, path: str, status: int, kind: str) -> None:
    answered, _, content = await api.send(method, path)
    assert (answered, check_error(orjson.loads(content))["type"]) == (status, kind)


async def test_types_and_sizes(api: MessagesApi) -> None:
    status, _, content = await api.send("POST", MESSAGES, asking(), headers={"content-type": "text/plain"})
    assert (status, check_error(orjson.loads(content))["type"]) == (415, "invalid_request_error")
    status, _, content = await api.send("POST", MESSAGES, raw=b" " * 32_000_001)
    # Anthropic's own name for it, which the published types leave out.
    assert (status, orjson.loads(content)["error"]["type"]) == (413, "request_too_large")


async def test_keys(api: MessagesApi) -> None:
    access.set_keys(access.Keys.of("right", None, trust_lan=False))
    for headers in ({}, {"x-api-key": "wrong"}, {"authorization": "Bearer wrong"}):
        status, _, content = await api.send("POST", MESSAGES, asking(), headers=headers)
        assert (status, check_error(orjson.loads(content))["type"]) == (401, "authentication_error")
    for headers in ({"x-api-key": "right"}, {"authorization": "Bearer right"}):
        assert (await api.send("POST", MESSAGES, asking(), headers=headers))[0] == 200
    status, _, content = await api.send("GET", "/v1/models", headers={"anthropic-version": "2023-06-01"})
    assert (status, check_error(orjson.loads(content))["type"]) == (401, "authentication_error")


async def test_the_request_is_named(api: MessagesApi, engine: FakeEngine) -> None:
    token = request_id.set("req_5")
    try:
        engine.scripts.append([[started()], [failed("worker_died", "it died")]])
        assert (await api.post(MESSAGES, {}))[1]["request_id"] == "req_5"
        _, _, content = await api.send("POST", MESSAGES, asking(stream=True))
        assert b"req_5" in content
    finally:
        request_id.reset(token)
    assert events_of(b"") == []
