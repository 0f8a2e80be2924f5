"""What the buttons of a model's page do with its revisions: ask the Hub, update, go back; and make a smaller one.

What cannot be done stays as a notice in words, as everywhere on that page.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from django.http import HttpRequest, HttpResponseBadRequest
from django.http.response import HttpResponseBase
from django.views.decorators.http import require_POST

from inference.api.deps import converter, updater
from inference.errors import LmxError
from inference.keeping import ConvertTo
from monitoring.actions import get_actions
from monitoring.model_page import changed, unnamed
from monitoring.model_versions import BITS
from monitoring.payloads import Action
from monitoring.views import page

_LONGEST = 128


@require_POST
@page
async def check(request: HttpRequest) -> HttpResponseBase:
    """Ask the Hub whether there is something newer than ``model``; nothing is downloaded."""
    if (refused := unnamed(request)) is not None:
        return refused
    name = request.POST["model"]
    looked = await _tried(name, "check", updater().check(name))
    if looked and looked[0].problem:
        get_actions().refused(name, "check", looked[0].problem)
    return await changed(request)


@require_POST
@page
async def update(request: HttpRequest) -> HttpResponseBase:
    """Fetch what the Hub has now of ``model``, which gets the name once it has answered."""
    if (refused := unnamed(request)) is not None:
        return refused
    name = request.POST["model"]
    await _tried(name, "update", updater().update(name))
    return await changed(request)


@require_POST
@page
async def rollback(request: HttpRequest) -> HttpResponseBase:
    """Let the bare name mean the revision ``revision`` of ``model``."""
    if (refused := unnamed(request)) is not None:
        return refused
    revision = request.POST.get("revision", "")
    if not 0 < len(revision) <= _LONGEST:
        return HttpResponseBadRequest("revision is missing\n", content_type="text/plain")
    name = request.POST["model"]
    await _tried(name, "rollback", updater().rollback(name, revision))
    return await changed(request)


@require_POST
@page
async def convert(request: HttpRequest) -> HttpResponseBase:
    """Make a model of ``bits`` bits of ``model``, as a job."""
    if (refused := unnamed(request)) is not None:
        return refused
    bits = request.POST.get("bits", "")
    if bits not in {str(one) for one in BITS}:
        return HttpResponseBadRequest(f"bits is one of {', '.join(map(str, BITS))}\n", content_type="text/plain")
    name = request.POST["model"]
    await _tried(name, "convert", converter().convert(name, ConvertTo(int(bits))))
    return await changed(request)


async def _tried(model: str, action: Action, work: Awaitable[Any]) -> Any:
    """What came of it; None for a refusal, which becomes a notice."""
    get_actions().dismiss(model)
    try:
        return await work
    except LmxError as error:
        get_actions().refused(model, action, error.message)
        return None
