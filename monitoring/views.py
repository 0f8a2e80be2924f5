"""The pages and what their buttons do. A page is for principals with the admin scope; the edge has let them in.

A fragment (``_name.html``) has one root element, which is the target of its swap. Actions answer htmx with the
fragment they changed and everybody else with a redirect to the page.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest, JsonResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_GET, require_POST, require_safe
from django_htmx.middleware import HtmxDetails

from inference.api.deps import services
from inference.engine import get_engine
from inference.errors import LmxError, ModelUnavailable
from inference.principal import Principal
from inference.protocols import openai, serving
from inference.protocols.errors import error_response
from monitoring.actions import get_actions
from monitoring.audit import note_refusal
from monitoring.history import History
from monitoring.hub import get_hub
from monitoring.payloads import JOBS, MEMORY, STATUS
from monitoring.sampler import disk_payload, get_sampler, latest

CONTENT_SECURITY_POLICY = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
SPANS = {300: 300, 3600: 720}
EVENTS_SHOWN = 200
DISK_SHOWN = 50
"""Models on disk that the first page lists; the page Models has all of them."""
LONGEST_NAME = 512
NOT_YET = {"used": None, "total": None, "limit": None}
"""What the status strip shows before the first reading."""

View = Callable[..., Coroutine[Any, Any, HttpResponseBase]]


def page(view: View) -> View:
    """For the owner only, not kept by caches, and without a script or style that is not a file of ours."""

    @wraps(view)
    async def guarded(request: HttpRequest, **path: str) -> HttpResponseBase:
        principal_of(request)
        try:
            response = await view(request, **path)
        except ModelUnavailable as error:  # the server is starting or stopping
            headers = {"Retry-After": str(error.retry_after or 1)}
            response = HttpResponse(f"{error.message}\n", status=503, content_type="text/plain", headers=headers)
        response.headers.setdefault("Cache-Control", "no-store")
        response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
        return response

    return guarded


def principal_of(request: HttpRequest) -> Principal:
    """Who the edge says is asking; ``PermissionDenied`` without the admin scope."""
    principal = getattr(request, "principal", None)
    if not isinstance(principal, Principal) or not principal.may("admin"):
        raise PermissionDenied
    return principal


def is_fragment(request: HttpRequest) -> bool:
    """Whether htmx asks for a part of the page."""
    htmx: HtmxDetails | None = getattr(request, "htmx", None)
    return htmx is not None and bool(htmx) and not htmx.boosted


# ------------------------------------------------------------------------------------------------------------- pages


@require_safe
@ensure_csrf_cookie
@page
async def now(request: HttpRequest) -> HttpResponse:
    """The first page: memory, models, what is in flight, and a chat."""
    span = request.GET.get("span", "")
    chosen = int(span) if span.isdecimal() and int(span) in SPANS else 300
    return render(request, "monitoring/now.html", {**frame_context("now"), **models_context(), "span": chosen})


@require_safe
@ensure_csrf_cookie
@page
async def connect(request: HttpRequest) -> HttpResponse:
    """How a program reaches this server, to copy."""
    base = f"{request.scheme}://{request.get_host()}"
    found = models_context()
    ready = [model["id"] for model in found["awake"] if model["state"] == "ready" and model["chat"]]
    known = [model["id"] for model in found["on_disk"] if not model["reason"] and model["chat"]]
    model = next(iter([*ready, *known]), "default")
    return render(request, "monitoring/connect.html", {**frame_context("connect"), "base": base, "model": model})


@require_GET
@page
async def models(request: HttpRequest) -> HttpResponse:
    """The cards and the list of models on disk, as a fragment."""
    return render(request, "monitoring/_models.html", models_context())


@require_GET
@page
async def memory(request: HttpRequest) -> HttpResponse:
    """The chart's past: ``History.columns`` of the last ``span`` seconds (300 or 3600), and the events in it."""
    span = request.GET.get("span", "300")
    if not span.isdecimal() or int(span) not in SPANS:
        return HttpResponseBadRequest("span is 300 or 3600\n", content_type="text/plain")
    sampler = get_sampler()
    history = sampler.history if sampler else History()
    columns = history.columns(int(span), SPANS[int(span)])
    colours = {model: sampler.colour(model) for model in columns["models"]} if sampler else {}
    return JsonResponse({**columns, "colours": colours, "events": get_hub().recent(limit=EVENTS_SHOWN)})


# ----------------------------------------------------------------------------------------------------------- actions


@require_POST
@page
async def load(request: HttpRequest) -> HttpResponseBase:
    """Load ``model`` into memory, after unloading each ``evict``."""
    model = request.POST.get("model", "")
    if not model:
        return HttpResponseBadRequest("model is missing\n", content_type="text/plain")
    if len(model) > LONGEST_NAME:
        return HttpResponseBadRequest(f"model is over {LONGEST_NAME} characters\n", content_type="text/plain")
    await get_actions().load(model, request.POST.getlist("evict"))
    return _changed(request)


@require_POST
@page
async def unload(request: HttpRequest) -> HttpResponseBase:
    """Unload ``model`` from memory; its running answers are finished first."""
    await get_actions().unload(request.POST.get("model", ""))
    return _changed(request)


@require_POST
@page
async def dismiss(request: HttpRequest) -> HttpResponseBase:
    """Take a notice away."""
    get_actions().dismiss(request.POST.get("model", ""))
    return _changed(request)


@require_POST
@page
async def stop(request: HttpRequest) -> HttpResponse:
    """End the request ``id``; 404 when it is over already."""
    found = get_engine().cancel(request.POST.get("id", ""), by=principal_of(request).id)
    return HttpResponse(status=204 if found else 404)


@require_POST
@page
async def chat_stream(request: HttpRequest) -> HttpResponseBase:
    """A chat from the page: an OpenAI chat request in, the same server-sent events as ``/v1/chat/completions`` out."""
    try:
        call = openai.chat_call(request.body, principal_of(request), endpoint="/chat/stream")
        try:
            return await serving.respond(call)
        finally:
            request.scope["lmx.model"] = call.record.model or call.model  # type: ignore[attr-defined] # for the log
    except LmxError as error:
        return error_response(error, request.path_info)


def note_notice(request: HttpRequest, model: str) -> None:
    """Tell the audit log of a refusal: an action takes away what was said of its model before."""
    found = next((notice for notice in get_actions().notices() if notice["model"] == model), None)
    if found is not None:
        note_refusal(request, found["message"])


def _changed(request: HttpRequest) -> HttpResponseBase:
    note_notice(request, request.POST.get("model", ""))
    if is_fragment(request):
        return render(request, "monitoring/_models.html", models_context())
    return redirect("monitoring:now")


# ---------------------------------------------------------------------------------------------------------- contexts


def frame_context(active: str) -> dict[str, Any]:
    """What the frame around every page shows before the socket is open."""
    return {"active": active, "status": latest(STATUS, NOT_YET), "system": system_name()}


def models_context() -> dict[str, Any]:
    """Cards, models on disk, notices and running jobs, as they are at this moment."""
    sampler = get_sampler()
    statuses = get_engine().models()
    awake = sampler.awake(statuses, get_engine().in_flight()) if sampler else []
    notices = get_actions().notices()
    shown = {model["id"] for model in awake}
    told = {notice["model"] for notice in notices}
    asleep = [status for status in statuses if status.id not in shown]
    return {
        "awake": awake,
        "on_disk": [disk_payload(status) for status in asleep[:DISK_SHOWN]],
        "more_on_disk": max(0, len(asleep) - DISK_SHOWN),
        "notices": notices,
        "told": told,
        "corrupt": corrupt_models(),
        "jobs": [job for job in get_hub().cells(JOBS) if job["state"] == "running"],
        "available": (latest(MEMORY, {}) or {}).get("available"),
    }


def corrupt_models() -> set[str]:
    """The ids of the models of which some file is not what it should be."""
    known = services().catalog
    return {ref.id for ref in known.all() if ref.disk_state == "corrupt"} if known is not None else set()


def system_name() -> str:
    """The name of the system for the band of memory that is not ours."""
    return "macOS" if sys.platform == "darwin" else "Linux"
