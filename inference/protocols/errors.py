"""Words an ``LmxError`` in the protocol of the path that was asked.

``/v1/messages*`` speaks Anthropic's shape, and ``/v1/models*`` to those that send ``anthropic-version``; every other
path OpenAI's. The edge, the 404 and 405 catch-alls, the API
and the streams all use these functions, so that one client library sees one shape whatever went wrong.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import orjson
from django.http import HttpResponse

from inference.errors import ContextLengthExceeded, LmxError
from inference.request_id import request_id

_ANTHROPIC_PREFIX = "/v1/messages"

_OPENAI_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
# Where nobody knows better: a dead worker is loaded again by the next request.
_WAIT_S = {429: 1.0, 503: 1.0}


def speaks_anthropic(path: str) -> bool:
    """Whether answers on ``path`` have Anthropic's shape."""
    return path == _ANTHROPIC_PREFIX or path.startswith(_ANTHROPIC_PREFIX + "/")


def spoken_path(path: str, headers: Mapping[str, str]) -> str:
    """The path by which to choose the shape of an answer on ``path``, which both protocols may ask."""
    shared = path.rstrip("/") == "/v1/models" or path.startswith("/v1/models/")
    return _ANTHROPIC_PREFIX if shared and "anthropic-version" in headers else path


def error_body(error: LmxError, path: str) -> dict[str, Any]:
    """The JSON object that tells ``error`` to a client of ``path``; ``error.details`` become extra fields."""
    return anthropic_body(error) if speaks_anthropic(path) else openai_body(error)


def openai_body(error: LmxError) -> dict[str, Any]:
    """``{"error": {"message", "type", "param", "code", ...details}}``."""
    fallback = "invalid_request_error" if error.status < 500 else "server_error"
    kind = _OPENAI_TYPES.get(error.status, fallback)
    named = {"message": error.message, "type": kind, "param": error.param, "code": error.code}
    return {"error": {**error.details, **named}}


def anthropic_body(error: LmxError) -> dict[str, Any]:
    """``{"type": "error", "error": {"type", "message", "details"}, "request_id"}``.

    ``details`` has our code as ``error_code``, where Anthropic's clients look for one, the parameter and the numbers.
    """
    fallback = "invalid_request_error" if error.status < 500 else "api_error"
    kind = _ANTHROPIC_TYPES.get(error.status, fallback)
    details = {**error.details, "error_code": error.code}
    if error.param is not None:
        details["param"] = error.param
    named = {"type": kind, "message": _anthropic_message(error), "details": details}
    return {"type": "error", "error": named, "request_id": request_id.get()}


def _anthropic_message(error: LmxError) -> str:
    """Agents know by this sentence of Anthropic's, and its numbers, that they must shorten their conversation."""
    tokens, context = error.details.get("prompt_tokens"), error.details.get("context")
    if isinstance(error, ContextLengthExceeded) and tokens is not None and context is not None:
        return f"prompt is too long: {tokens} tokens > {context} maximum"
    return error.message


def error_headers(error: LmxError) -> dict[str, str]:
    """``Retry-After`` where a time is known; ``x-should-retry`` tells SDKs, which retry every 409, 429 and 5xx."""
    headers = {"x-should-retry": "true" if error.retryable else "false"}
    wait = (
        error.retry_after if error.retry_after is not None else _WAIT_S.get(error.status) if error.retryable else None
    )
    if wait is not None:
        headers["Retry-After"] = str(max(1, math.ceil(wait)))
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return headers


def error_bytes(error: LmxError, path: str) -> bytes:
    """``error_body`` as JSON; details that JSON does not know become text."""
    return orjson.dumps(error_body(error, path), default=str, option=orjson.OPT_NON_STR_KEYS)


def error_response(error: LmxError, path: str) -> HttpResponse:
    """The complete HTTP answer for ``error`` on ``path``."""
    return HttpResponse(
        error_bytes(error, path),
        status=error.status,
        content_type="application/json",
        headers=error_headers(error),
    )
