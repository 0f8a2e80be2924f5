"""The page Audit: the log of who did what, filtered by address, and its export."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_GET, require_safe

from monitoring import audit_export as export
from monitoring.audit import AuditLog
from monitoring.views import frame_context, page

log = logging.getLogger(__name__)

SHOWN = 100
_LONGEST = 512
SPANS = {"1h": ("last hour", 3600), "24h": ("last 24 hours", 86_400), "7d": ("last 7 days", 7 * 86_400), "": ("all", 0)}
OUTCOMES = {"": "any outcome", "done": "done", "refused": "refused", "failed": "failed", "left": "client left"}
VIAS = {
    "": "any way",
    "api": "API or command line",
    "page": "page",
    "inventory": "inventory",
    "request": "a prompt",
    "server": "the server itself",
}


@require_safe
@ensure_csrf_cookie
@page
async def audit(request: HttpRequest) -> HttpResponse:
    """The entries that the address asks for, the newest first, ``SHOWN`` at a time."""
    asked = _asked(request)
    found = await AuditLog().entries(SHOWN + 1, **_wanted(asked))
    entries = found[:SHOWN]
    filters = {name: value for name, value in asked.items() if value and name != "before"}
    older = {**filters, "before": entries[-1]["id"]} if len(found) > SHOWN else None
    context = {
        "entries": entries,
        "asked": asked,
        "filtered": bool(filters),
        "later": bool(asked["before"]),
        "query": urlencode(filters),
        "older": urlencode(older) if older else "",
        "spans": [(name, words) for name, (words, _) in SPANS.items()],
        "outcomes": OUTCOMES.items(),
        "vias": VIAS.items(),
    }
    return render(request, "monitoring/audit.html", {**frame_context("audit"), **context})


@require_GET
@page
async def audit_file(request: HttpRequest) -> HttpResponseBase:
    """Every entry that the address asks for, as ``format`` csv or jsonl."""
    forms: dict[str, export.Format] = {"csv": "csv", "jsonl": "jsonl"}
    form = forms.get(request.GET.get("format", ""))
    if form is None:
        return HttpResponseBadRequest("format is csv or jsonl\n", content_type="text/plain")
    name = time.strftime(f"opta-lmx-audit-%Y-%m-%d.{form}", time.gmtime())
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    chunks = _chunks(_wanted(_asked(request)), form)
    return StreamingHttpResponse(chunks, content_type=export.MEDIA[form], headers=headers)


async def _chunks(wanted: dict[str, Any], form: export.Format) -> AsyncGenerator[bytes, None]:
    try:
        yield export.header(form).encode()
        async for part in AuditLog().pages(**wanted):
            yield export.lines(part, form).encode()
    except Exception:
        # An exception that leaves a stream keeps its connection open for ever.
        log.exception("the audit log cannot be read to its end")


def _asked(request: HttpRequest) -> dict[str, str]:
    names = ("who", "action", "model", "outcome", "via", "span", "before")
    asked = {name: request.GET.get(name, "")[:_LONGEST].strip() for name in names}
    for name, known in (("outcome", OUTCOMES), ("via", VIAS), ("span", SPANS)):
        if asked[name] not in known:
            asked[name] = ""
    if not (asked["before"].isdecimal() and len(asked["before"]) < 19):
        asked["before"] = ""
    return asked


def _wanted(asked: dict[str, str]) -> dict[str, Any]:
    _, seconds = SPANS[asked["span"]]
    wanted: dict[str, Any] = {name: asked[name] for name in ("who", "action", "model", "outcome", "via")}
    if seconds:
        wanted["since"] = time.time() - seconds
    if asked["before"]:
        wanted["before"] = int(asked["before"])
    return wanted
