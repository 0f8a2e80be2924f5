"""Errors in the shape of each protocol, and the headers that tell clients whether to try again."""

from __future__ import annotations

import orjson
import pytest

from inference import errors
from inference.errors import LmxError
from inference.protocols.errors import error_body, error_response

ALL = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, LmxError)]


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/admin/status", "/api/v1/models", "/v1/messages"])
def test_every_error_on_every_path(kind: type[LmxError], path: str) -> None:
    response = error_response(kind("words"), path)
    assert response.status_code == kind.status
    assert response["Content-Type"] == "application/json"
    assert response["x-should-retry"] == ("true" if kind.retryable else "false")
    body = orjson.loads(response.content)
    assert body["error"]["message"] == "words"
    assert body.get("type") == ("error" if path == "/v1/messages" else None)


@pytest.mark.parametrize(
    ("error", "openai", "anthropic"),
    [
        (errors.InvalidRequest("x"), "invalid_request_error", "invalid_request_error"),
        (errors.Unauthorized("x"), "authentication_error", "authentication_error"),
        (errors.Forbidden("x"), "permission_error", "permission_error"),
        (errors.ModelNotFound("x"), "invalid_request_error", "not_found_error"),
        (errors.BodyTooLarge("x"), "invalid_request_error", "request_too_large"),
        (errors.TooManyRequests("x"), "rate_limit_error", "rate_limit_error"),
        (errors.InternalError("x"), "server_error", "api_error"),
        (errors.ModelUnavailable("x"), "server_error", "overloaded_error"),
    ],
)
def test_types(error: LmxError, openai: str, anthropic: str) -> None:
    assert error_body(error, "/v1/models")["error"]["type"] == openai
    assert error_body(error, "/v1/messages/count_tokens")["error"]["type"] == anthropic
    assert error_body(error, "/v1/messagesx")["error"]["type"] == openai


def test_retry_after() -> None:
    def wait(error: LmxError) -> str | None:
        return error_response(error, "/v1/x").headers.get("Retry-After")

    assert wait(errors.TooManyRequests("x", retry_after=0.2)) == "1"
    assert wait(errors.TooManyRequests("x", retry_after=7.1)) == "8"
    assert wait(errors.ModelUnavailable("x")) == "1"
    assert wait(errors.InsufficientMemory("x")) is None
    assert wait(errors.InvalidRequest("x")) is None


def test_numbers_are_further_fields_and_replace_nothing() -> None:
    error = errors.InsufficientMemory("words", details={"needed_bytes": 5, "message": "other", "when": {1: object}})
    body = orjson.loads(error_response(error, "/v1/x").content)["error"]
    assert body["message"] == "words"
    assert body["needed_bytes"] == 5
    assert "class" in body["when"]["1"]


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("overloaded", 503),
        ("job_cancelled", 409),
        ("file_changed", 409),
        ("unreadable", 409),
        ("hub_unreachable", 503),
        ("interrupted", 503),
        ("revision_not_found", 404),
        ("model_gated", 403),
        ("unsupported_model", 400),
        ("job_failed", 500),
    ],
)
def test_how_a_job_ended_has_its_status_for_whoever_waited(code: str, status: int) -> None:
    error = errors.from_code(code, "it ended", details={"job": 7})
    assert (error.status, error.code, error.details) == (status, code, {"job": 7})
