"""Parts of the OpenAPI documents: parameters, refusals by status, headers of answers, ways to send a key.

A route says what it may refuse beyond what every route may by naming groups of ``Refusals``. Statuses from 500 on tell
their ``code`` exactly, so that a client knows what a 503 of that route can be about.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http.client import responses as _phrases
from typing import Any

SCHEMAS = "#/components/schemas/"
_HEADERS = "#/components/headers/"
JSON, EVENTS = "application/json", "text/event-stream"

Refusals = Mapping[int, tuple[str, ...]]
"""Codes by status; none where a status has too many to list, or where they say no more than the status."""

LONGEST_TIMEOUT_S = 86400

_ALWAYS: Refusals = {400: (), 401: (), 403: (), 500: (), 503: ("model_unavailable",)}
_BODY: Refusals = {413: ("request_too_large",), 415: ("unsupported_media_type",)}

NAMED: Refusals = {404: ()}
"""Something is named that may not be there."""
WORK: Refusals = {
    404: ("model_not_found",),
    409: ("request_cancelled",),
    429: ("rate_limit_exceeded",),
    501: ("unsupported",),
    503: ("model_unavailable", "model_corrupt", "worker_died"),
    504: ("timeout",),
    507: ("insufficient_memory",),
}
"""A model works for the request."""
ANSWER: Refusals = {503: ("model_unavailable", "worker_died", "overloaded")}
"""With ``WORK``: a text that its client may read too slowly."""
LOAD: Refusals = {
    404: ("model_not_found",),
    501: ("unsupported",),
    503: ("model_unavailable", "model_corrupt", "worker_died"),
    507: ("insufficient_memory",),
}
FETCH: Refusals = {
    404: ("model_not_found", "revision_not_found", "revision_gone"),
    409: ("model_busy", "busy", "name_taken", "volume_not_mounted", "job_cancelled", "job_paused"),
    429: ("rate_limit_exceeded",),
    503: ("model_unavailable", "hub_unreachable", "hub_error", "interrupted"),
    507: ("insufficient_storage", "quota_exceeded"),
}
LINE: Refusals = {409: ("model_busy", "job_not_resumable"), 429: ("rate_limit_exceeded",)}
"""Too many wait already."""
ASK_HUB: Refusals = {
    429: ("rate_limit_exceeded",),
    503: ("model_unavailable", "hub_unreachable", "hub_error"),
}
"""The Hub is asked; a 429 passes on how long it wants to be left alone."""
VERIFY: Refusals = {
    404: ("model_not_found",),
    409: ("model_busy", "model_not_on_disk", "job_cancelled", "file_changed", "unreadable"),
    429: ("rate_limit_exceeded",),
}
RESTORE: Refusals = {404: ("model_not_found",), 409: ("model_ambiguous",)}
RECLAIM: Refusals = {404: ("not_reclaimable",)}
DELETE: Refusals = {
    404: ("model_not_found",),
    409: (
        "model_loaded",
        "model_busy",
        "model_not_ours",
        "model_shared",
        "model_not_on_disk",
        "model_changed",
        "disk_refused",
    ),
}
CHECK: Refusals = {
    404: ("model_not_found",),
    409: ("not_from_hub", "job_cancelled"),
    503: ("model_unavailable", "hub_unreachable", "hub_error", "interrupted"),
}
ROLL_BACK: Refusals = {
    404: ("model_not_found", "revision_not_found"),
    409: ("no_other_revision", "model_not_usable", "model_busy"),
}
CONVERT: Refusals = {
    404: ("model_not_found",),
    409: ("name_taken", "model_busy", "job_cancelled", "busy"),
    429: ("rate_limit_exceeded",),
    500: ("internal_error", "job_failed"),
    503: ("model_unavailable", "model_corrupt"),
    507: ("insufficient_storage", "insufficient_memory"),
}
NOT_SPOKEN: Refusals = {501: ("unsupported",)}
STATE: Refusals = {409: ()}
"""It is there, but not in the state that is needed."""

_TYPE_AND_MESSAGE = {"type": {"type": "string"}, "message": {"type": "string", "minLength": 1}}
_TEXT_OR_NULL = {"type": ["string", "null"]}
OPENAI_ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {**_TYPE_AND_MESSAGE, "param": _TEXT_OR_NULL, "code": _TEXT_OR_NULL},
        }
    },
}
ANTHROPIC_ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["type", "error", "request_id"],
    "properties": {
        "type": {"const": "error"},
        "request_id": {"type": "string"},
        "error": {
            "type": "object",
            "required": ["type", "message", "details"],
            "properties": {
                **_TYPE_AND_MESSAGE,
                "details": {
                    "type": "object",
                    "required": ["error_code"],
                    "properties": {"error_code": {"type": "string"}, "param": {"type": "string"}},
                },
            },
        },
    },
}
_HEADER_PARTS: dict[str, Any] = {
    "x-request-id": {
        "description": "The request's id, as log lines have it.",
        "required": True,
        "schema": {"type": "string"},
    },
    "x-lmx-ignored": {
        "description": "Names of parameters that were accepted without being known.",
        "schema": {"type": "string"},
    },
    "x-should-retry": {
        "description": "Whether trying again can help.",
        "required": True,
        "schema": {"type": "string", "enum": ["true", "false"]},
    },
    "Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}},
}
COMPONENTS: dict[str, Any] = {
    "headers": _HEADER_PARTS,
    "securitySchemes": {
        "bearer": {"type": "http", "scheme": "bearer"},
        "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    },
}
SECURITY: list[dict[str, list[str]]] = [{}, {"bearer": []}, {"x-api-key": []}]
"""The first: no key, where none is set."""


def parameter(
    name: str, schema: Mapping[str, Any], description: str = "", *, place: str = "query", required: bool = False
) -> dict[str, Any]:
    """One parameter; ``place`` is ``query``, ``header`` or ``path``."""
    told = {"name": name, "in": place, "required": required, "schema": dict(schema)}
    return {**told, "description": description} if description else told


URGENCY = (
    parameter(
        "X-Priority",
        {"type": "string", "enum": ["low", "normal", "high"]},
        "Lowers the request's priority below its client's; a higher one has no effect.",
        place="header",
    ),
    parameter(
        "X-Timeout",
        {"type": "number", "exclusiveMinimum": 0, "maximum": LONGEST_TIMEOUT_S},
        "Seconds from the arrival of the request, after which it ends with 504.",
        place="header",
    ),
)
"""Parameters of every route with the inference scope."""


NO_BODY: dict[str, Any] = {
    "description": "Not looked at; but programs say `Content-Type: application/json` with every POST.",
    "required": True,
    "content": {JSON: {"schema": {"type": "object"}}},
}


def refused(groups: Iterable[Refusals], *, body: bool) -> dict[int, tuple[str, ...]]:
    """All codes of a route by status, those of several groups together."""
    found: dict[int, tuple[str, ...]] = {}
    for group in (_ALWAYS, *([_BODY] if body else []), *groups):
        for status, codes in group.items():
            found[status] = tuple(dict.fromkeys((*found.get(status, ()), *codes)))
    return dict(sorted(found.items()))


def refusals(codes: Mapping[int, tuple[str, ...]], errors: tuple[str, ...]) -> dict[int, dict[str, Any]]:
    """The documented answers for them. ``errors`` names the schemas of which each has one."""
    return {status: _refusal(status, named, errors) for status, named in codes.items()}


def _refusal(status: int, codes: tuple[str, ...], errors: tuple[str, ...]) -> dict[str, Any]:
    shapes = [_shape(error, codes if status >= 500 else ()) for error in errors]
    described = _phrases[status] + (": " + ", ".join(f"`{code}`" for code in codes) if codes else "")
    headers = ["x-request-id", "x-should-retry", *(["Retry-After"] if status in (429, 503) else [])]
    return {
        "description": described,
        "headers": header_references(headers),
        "content": {JSON: {"schema": shapes[0] if len(shapes) == 1 else {"anyOf": shapes}}},
    }


def _shape(error: str, codes: tuple[str, ...]) -> dict[str, Any]:
    reference = {"$ref": SCHEMAS + error}
    if not codes:
        return reference
    one_of = {"enum": list(codes)}
    inner = {"code": one_of} if error == "Error" else {"details": {"properties": {"error_code": one_of}}}
    return {"allOf": [reference, {"properties": {"error": {"properties": inner}}}]}


def events(data: Mapping[str, Any], errors: tuple[str, ...]) -> dict[str, Any]:
    """A stream of server-sent events. Before OpenAPI 3.2 the schema of such a media type is that of one event."""
    shapes = [dict(data), *({"$ref": SCHEMAS + error} for error in errors)]
    payload = {"contentMediaType": JSON, "contentSchema": {"anyOf": shapes}}
    told = {
        "description": "One server-sent event. `[DONE]` is the last of OpenAI's completions.",
        "type": "object",
        "required": ["data"],
        "properties": {
            "data": {"type": "string", "anyOf": [{"const": "[DONE]"}, payload]},
            "event": {"type": "string"},
            "id": {"type": "string"},
        },
    }
    return {"schema": told}


def either(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """The documented answer of a status that has two shapes in JSON; required headers are those of both."""
    shapes = [told["content"][JSON]["schema"] for told in (one, other)]
    headers = {name: told for name, told in one["headers"].items() if name in other["headers"]}
    return {**other, "headers": headers, "content": {JSON: {"schema": {"anyOf": shapes}}}}


def header_references(names: Iterable[str]) -> dict[str, dict[str, str]]:
    return {name: {"$ref": _HEADERS + name} for name in names}
