"""Tells the audit log of every request that may change something, whatever route it takes and however it ends.

Prompts are no changes: of ``/v1`` nothing is recorded, of LM Studio's ``/api`` its loads, unloads and downloads. Who is
refused by the edge (no key, a page of another origin) is in the server's log only, so that strangers cannot fill the
disk. An answer waits until its entry is written, a moment at most: what cannot be written must not hold up the owner
who makes room on a full disk.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from typing import Any

import orjson
from asgiref.sync import markcoroutinefunction
from django.http import HttpRequest
from django.http.response import HttpResponse, HttpResponseBase
from django.utils.crypto import salted_hmac

from inference.principal import Principal
from lmx_site import __version__, access
from monitoring.audit import SERVER, Entry, Outcome, Via

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_PATIENCE_S = 2.0
_LONGEST_TEXT = 200
_MOST_FIELDS = 40
_LARGEST_BODY = 1 << 20
_SUBJECTS = ("model_id", "instance_id", "model", "path", "id", "job")
_SECRET = re.compile(r"key|token(?!s$|s_|izer)|secret|password|authorization", re.IGNORECASE)
_WORDS = re.compile(r"prompt|messages|input|content", re.IGNORECASE)
_LMSTUDIO_CHANGES = re.compile(r"/api/v1/models/(load|unload|download)/?")
_NO_CHANGE = frozenset({"/chat/stream", "/logout", "/now/dismiss", "/models/dismiss", "/admin/model/fit"})
_VERBS = {
    "load": "load_model",
    "unload": "unload_model",
    "download": "download_model",
    "discover_download": "download_model",
    "discover_cancel": "cancel_job",
    "stop": "cancel_request",
    "model_settings": "set_model_settings",
}

_Write = Callable[[Entry], Future[None]]
_write: _Write | None = None


def set_audit(write: _Write | None) -> None:
    """Who takes entries; None where there is no server (any more)."""
    global _write
    _write = write


def server_started(configuration: str) -> Entry:
    """With a mark of the configuration in force, so that a change of it shows between two starts.

    The mark is keyed: a plain hash would let a reader of the log try out keys.
    """
    mark = salted_hmac("lmx.configuration", configuration, algorithm="sha256").hexdigest()[:16]
    return Entry(SERVER, "server", "server", "start_server", detail={"version": __version__, "configuration": mark})


class AuditMiddleware:
    """Async only; inside the edge, which says who is asking."""

    sync_capable = False
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Awaitable[HttpResponseBase]]) -> None:
        self._get_response = get_response
        markcoroutinefunction(self)

    async def __call__(self, request: HttpRequest) -> HttpResponseBase:
        via = _changes(request)
        if via is None or _write is None:
            return await self._get_response(request)
        try:
            response = await self._get_response(request)
        except asyncio.CancelledError:
            _write(_entry(request, via, None))
            raise
        await _settled(_write(_entry(request, via, response)))
        return response


def _changes(request: HttpRequest) -> Via | None:
    """By which way a request may change something; None for one that cannot."""
    path = request.path_info
    if request.method in _SAFE or path in _NO_CHANGE:
        return None
    match access.area(path):
        case "admin":
            return "api"
        case "inference":
            return "api" if _LMSTUDIO_CHANGES.fullmatch(path) else None
        case "pages":
            return "inventory" if path.startswith("/inventory/") else "page"
        case _:
            return "page" if path == "/login" else None


def _entry(request: HttpRequest, via: Via, response: HttpResponseBase | None) -> Entry:
    principal: Principal | None = getattr(request, "principal", None)
    scope: dict[str, Any] = getattr(request, "scope", {})
    fields = _fields(request)
    subject = next((str(fields.pop(name)) for name in _SUBJECTS if fields.get(name) not in (None, "")), "")
    return Entry(
        who=principal.id if principal else "",
        who_kind=principal.kind if principal else "anonymous",
        via=via,
        action=action_of(request),
        subject=subject,
        outcome=_outcome(response),
        address=str(request.META.get("REMOTE_ADDR") or ""),
        status=None if response is None else response.status_code,
        reason=_code(response),
        request_id=str(scope.get("lmx.request_id") or ""),
        detail=shown(fields),
    )


def action_of(request: HttpRequest) -> str:
    """What was asked for: the view's name (``delete_model``), else method and path."""
    found = request.resolver_match
    if found is None or request.path_info.startswith("/inventory/"):
        return f"{request.method} {request.path_info}"
    name = (found.url_name or "").replace("-", "_")
    return _VERBS.get(name, name) or f"{request.method} {request.path_info}"


def _fields(request: HttpRequest) -> dict[str, Any]:
    """What came with it by name, without what only proves that a form is ours."""
    found: dict[str, Any] = dict(request.GET.items())
    found |= request.resolver_match.kwargs if request.resolver_match is not None else {}
    if access.is_api(request.path_info):
        found |= _json(request)
    else:
        posted = {name: values if len(values) > 1 else values[0] for name, values in request.POST.lists() if values}
        found |= {name: value for name, value in posted.items() if name != "csrfmiddlewaretoken"}
    return found


def _json(request: HttpRequest) -> dict[str, Any]:
    """The body, where it is an object that the view has read; a large or broken one tells nothing."""
    body: bytes = getattr(request, "_body", b"")
    if len(body) > _LARGEST_BODY:
        return {}
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def shown(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters as the log may keep them: bounded, secrets hidden, and of a prompt its length alone."""
    return {str(name)[:64]: _shown(str(name), value) for name, value in list(fields.items())[:_MOST_FIELDS]}


def _shown(name: str, value: Any, depth: int = 0) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if _SECRET.search(name) and not isinstance(value, int | float):
        return "hidden"
    if _WORDS.search(name) and not isinstance(value, int | float):
        return f"{len(value):,} characters" if isinstance(value, str) else "hidden"
    if isinstance(value, int | float):
        return value if abs(value) < 2**63 else str(value)[:_LONGEST_TEXT]
    if isinstance(value, Mapping) and depth < 3:
        return {str(key)[:64]: _shown(str(key), one, depth + 1) for key, one in list(value.items())[:_MOST_FIELDS]}
    if isinstance(value, list | tuple) and depth < 3:
        return [_shown(name, one, depth + 1) for one in value[:_MOST_FIELDS]]
    # What lies too deep to be looked through may hold anything.
    return "hidden" if isinstance(value, Mapping | list | tuple) else str(value)[:_LONGEST_TEXT]


def _outcome(response: HttpResponseBase | None) -> Outcome:
    if response is None:
        return "left"
    if response.status_code < 400:
        return "done"
    return "refused" if response.status_code < 500 else "failed"


def _code(response: HttpResponseBase | None) -> str:
    """The refusal's code, where the answer is one of ours."""
    if response is None or response.status_code < 400 or not isinstance(response, HttpResponse):
        return ""
    try:
        return str(orjson.loads(response.content)["error"]["code"] or "")
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return ""


async def _settled(written: Future[None]) -> None:
    await asyncio.wait([asyncio.wrap_future(written)], timeout=_PATIENCE_S)
