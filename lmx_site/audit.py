"""Tells the audit log of every request that may change something, whatever route it takes and however it ends.

Prompts are no changes: of ``/v1`` nothing is recorded, of LM Studio's ``/api`` its loads, unloads and downloads. Who is
refused by the edge (no key, a page of another origin), or at the login, is in the server's log only, so that strangers
cannot fill the disk. An answer waits until its entry is written, a moment at most: what cannot be written must not hold
up the owner who makes room on a full disk.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any

import orjson
from asgiref.sync import markcoroutinefunction
from django.http import HttpRequest
from django.http.response import HttpResponse, HttpResponseBase
from django.utils.crypto import salted_hmac

from inference.principal import Principal
from lmx_site import __version__, access
from lmx_site.audit_shown import shown, text_of
from monitoring.audit import REFUSED, SERVER, Entry, Outcome, Via

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_PATIENCE_S = 2.0
_SUBJECTS = ("model_id", "instance_id", "model", "path", "id", "job")
_OF_FORMS = frozenset({"csrfmiddlewaretoken", "was"})
_LMSTUDIO_CHANGES = re.compile(r"/api/v1/models/(load|unload|download)/?")
_NO_CHANGE = frozenset({"/chat/stream", "/logout", "/now/dismiss", "/models/dismiss", "/admin/model/fit"})
_VERBS = {
    "load": "load_model",
    "unload": "unload_model",
    "download": "download_model",
    "discover_download": "download_model",
    "discover_resume": "resume_job",
    "discover_cancel": "cancel_job",
    "stop": "cancel_request",
    "model_settings": "set_model_settings",
    "show_settings": "set_model_settings",
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
            _tell(request, via, None)
            raise
        await _settled(_tell(request, via, response))
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


def _tell(request: HttpRequest, via: Via, response: HttpResponseBase | None) -> list[Future[None]]:
    """Its entries: one, or as many as a view names objects that it worked on (``request.audited``)."""
    principal: Principal | None = getattr(request, "principal", None)
    is_known = principal is not None and principal.kind != "anonymous"
    if _write is None or (not is_known and _outcome(request, response) != "done"):
        return []  # what a stranger tried and did not get must not fill the disk
    fields = _fields(request)
    subject = next((text_of(fields.pop(name)) for name in _SUBJECTS if fields.get(name) not in (None, "")), "")
    subjects: list[str] = getattr(request, "audited", None) or [subject]
    return [_write(_entry(request, via, response, one, shown(fields) if is_known else {})) for one in subjects]


def _entry(
    request: HttpRequest, via: Via, response: HttpResponseBase | None, subject: str, detail: dict[str, Any]
) -> Entry:
    principal: Principal | None = getattr(request, "principal", None)
    scope: dict[str, Any] = getattr(request, "scope", {})
    return Entry(
        who=principal.id if principal else "",
        who_kind=principal.kind if principal else "anonymous",
        via=via,
        action=action_of(request),
        subject=subject,
        outcome=_outcome(request, response),
        address=str(request.META.get("REMOTE_ADDR") or ""),
        status=None if response is None else response.status_code,
        reason=getattr(request, REFUSED, "") or _code(response),
        request_id=str(scope.get("lmx.request_id") or ""),
        detail=detail,
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
        found |= {name: value for name, value in posted.items() if value and name not in _OF_FORMS}
        found.pop("one", None)  # which page asked
    return found


def _json(request: HttpRequest) -> dict[str, Any]:
    """The body, where it is an object that the view has read; a broken one tells nothing."""
    try:
        found = orjson.loads(getattr(request, "_body", b""))
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _outcome(request: HttpRequest, response: HttpResponseBase | None) -> Outcome:
    if response is None:
        return "left"
    if response.status_code < 400:
        return "refused" if hasattr(request, REFUSED) else "done"
    return "refused" if response.status_code < 500 else "failed"


def _code(response: HttpResponseBase | None) -> str:
    """The refusal's code, where the answer is one of ours."""
    if response is None or response.status_code < 400 or not isinstance(response, HttpResponse):
        return ""
    try:
        return str(orjson.loads(response.content)["error"]["code"] or "")
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return ""


async def _settled(written: list[Future[None]]) -> None:
    if written:
        await asyncio.wait([asyncio.wrap_future(one) for one in written], timeout=_PATIENCE_S)
