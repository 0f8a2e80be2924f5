"""Discover: search the Hub, look at a model, and fetch it, with the verdict before any byte.

A page is shown at once: what the Hub has not answered within a moment is asked for again by the page itself, and the
answer is at hand then. Every fragment has one root element, which its swap replaces; filters and models have
addresses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any, TypeVar, cast
from urllib.parse import urlencode

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest, QueryDict
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_GET, require_POST, require_safe

from inference.api.deps import fetcher, finder
from inference.engine import get_engine
from inference.engine.contract import Size
from inference.errors import LmxError
from inference.fetching import JobStatus
from inference.finding import SORTS, Found, ModelFormat, ModelView, Query, Sort, Verdict
from inference.hub_names import is_repo
from monitoring.audit import note_refusal
from monitoring.views import LONGEST_NAME, frame_context, is_fragment, page

PATIENCE_S = 1.5
"""How long a page waits for the Hub before it is shown without its answer."""

_GIB = 1024**3
_SIZES = ("2", "4", "8", "16", "32", "64", "128")
_FORMATS = ("mlx", "safetensors", "gguf", "any")
_QUANTIZATIONS = ("3bit", "4bit", "5bit", "6bit", "8bit", "bf16", "mxfp4")
_LONGEST_TEXT, _LONGEST_CURSOR = 200, 2048
_PAGE = 20
_RUNNING = ("queued", "running", "paused")
_JOBS_LOOKED_AT = 100

Answer = TypeVar("Answer")


@require_safe
@ensure_csrf_cookie
@page
async def discover(request: HttpRequest) -> HttpResponse:
    """The page with its form and results; for htmx the results alone."""
    _check_site(request)
    asked = _filters(request.GET)
    context = {"asked": asked, **_choices(asked)}
    if _is_part(request):
        return render(request, "monitoring/_discover_results.html", context | await _results(asked, wait_s=None))
    found = await _results(asked, wait_s=PATIENCE_S)
    return render(request, "monitoring/discover.html", {**frame_context("discover"), **context, **found})


@require_GET
@page
async def discover_fit(request: HttpRequest) -> HttpResponse:
    """The chip with the verdict on one of the results."""
    _check_site(request)
    model = request.GET.get("model", "")
    if not 0 < len(model) <= LONGEST_NAME:
        return HttpResponseBadRequest("model is missing or too long\n", content_type="text/plain")
    verdict, failure = await _tried(finder().fit(model, brief=True))
    return render(request, "monitoring/_discover_chip.html", {"verdict": verdict, "failure": failure})


@require_safe
@ensure_csrf_cookie
@page
async def discover_model(request: HttpRequest, repo: str) -> HttpResponse:
    """A model of the Hub; for htmx what its page shows below the name."""
    _check_site(request)
    revision = request.GET.get("revision", "")[:128]
    context: dict[str, Any] = {"repo": repo[:LONGEST_NAME], "revision": revision}
    asking = finder().view(repo[:LONGEST_NAME], revision or None)
    if _is_part(request):
        view, failure = await _tried(asking)
    else:
        view, failure = await _tried(_soon(asking, PATIENCE_S))
    context |= {"view": view, "failure": failure, "waiting": view is None and failure is None}
    context |= {"job": await _job_of(repo), **_spread(view)}
    if _is_part(request):
        return render(request, "monitoring/_discover_model.html", context)
    status = failure.status if failure is not None and failure.status in (400, 404) else 200
    return render(request, "monitoring/discover_model.html", frame_context("discover") | context, status=status)


@require_POST
@page
async def discover_download(request: HttpRequest) -> HttpResponseBase:
    """Start the download of ``model``, or join the one that runs."""
    model, revision = request.POST.get("model", ""), request.POST.get("revision", "")
    if not is_repo(model) or len(revision) > 128:
        return HttpResponseBadRequest("model is not org/name, or revision is too long\n", content_type="text/plain")
    job, failure = await _tried(fetcher().start(model, revision or None))
    return await _transfer(request, model, job, failure)


@require_POST
@page
async def discover_cancel(request: HttpRequest) -> HttpResponseBase:
    """End the download ``job``; what it has brought is kept."""
    number, model = request.POST.get("job", ""), request.POST.get("model", "")
    if model and not is_repo(model):
        return HttpResponseBadRequest("model is not org/name\n", content_type="text/plain")
    if not (number.isascii() and number.isdecimal() and len(number) < 16):
        return HttpResponseBadRequest("job is a number\n", content_type="text/plain")
    job, failure = await _tried(fetcher().cancel(int(number)))
    if failure is not None and failure.code == "job_not_running":  # it ended meanwhile: that is what is shown
        job, failure = await _tried(fetcher().status(int(number)))
    return await _transfer(request, model, job, failure)


@require_POST
@page
async def discover_resume(request: HttpRequest) -> HttpResponseBase:
    """Have the download ``job``, which is paused, go on."""
    number, model = request.POST.get("job", ""), request.POST.get("model", "")[:LONGEST_NAME]
    if not (number.isascii() and number.isdecimal() and len(number) < 16):
        return HttpResponseBadRequest("job is a number\n", content_type="text/plain")
    job, failure = await _tried(fetcher().resume(int(number)))
    return await _transfer(request, model, job, failure)


@require_GET
@page
async def discover_transfer(request: HttpRequest) -> HttpResponseBase:
    """How the download ``job`` is doing, or how it ended."""
    number = request.GET.get("job", "")
    if not (number.isascii() and number.isdecimal() and len(number) < 16):
        return HttpResponseBadRequest("job is a number\n", content_type="text/plain")
    job, failure = await _tried(fetcher().status(int(number)))
    return await _transfer(request, job.subject if job else "", job, failure)


async def _transfer(
    request: HttpRequest, model: str, job: JobStatus | None, failure: LmxError | None
) -> HttpResponseBase:
    if failure is not None and request.method == "POST":
        note_refusal(request, failure.code)
    if not is_fragment(request):
        return redirect(_address(model)) if is_repo(model) else redirect("monitoring:discover")
    context = {"job": job, "failure": failure, "repo": model, "running": job is not None and job.state in _RUNNING}
    return render(request, "monitoring/_discover_transfer.html", context)


# ------------------------------------------------------------------------------------------------------------ filters


def _filters(asked: QueryDict) -> dict[str, str]:
    """What is asked for, with what cannot be taken left out: an address that somebody wrote is no error."""
    sort, kind, size = asked.get("sort", ""), asked.get("format", ""), asked.get("size", "")
    text = {name: _printable(asked.get(name, ""))[:_LONGEST_TEXT].strip() for name in ("q", "author")}
    quantization = asked.get("quantization", "")
    return {
        **text,
        "format": kind if kind in _FORMATS else "mlx",
        "quantization": quantization if quantization in _QUANTIZATIONS else "",
        "size": size if size in (*_SIZES, "fits") else "",
        "sort": sort if sort in SORTS else "downloads",
        "cursor": asked.get("cursor", "")[:_LONGEST_CURSOR],
    }


def _choices(asked: dict[str, str]) -> dict[str, Any]:
    """What the form offers."""
    return {
        "formats": [("mlx", "MLX"), ("safetensors", "Safetensors"), ("gguf", "GGUF"), ("any", "Any format")],
        "quantizations": [("", "Any quantization"), *((name, name) for name in _QUANTIZATIONS)],
        "sizes": [("", "Any size"), ("fits", "Fits this machine"), *((n, f"Up to {n} GB") for n in _SIZES)],
        "sorts": [
            ("downloads", "Most downloaded"),
            ("likes", "Most liked"),
            ("updated", "Last changed"),
            ("trending", "Trending"),
        ],
        "is_plain": not any(asked[name] for name in ("q", "author", "quantization", "size", "cursor")),
    }


def _query(asked: dict[str, str]) -> Query:
    kind = asked["format"]
    return Query(
        text=asked["q"],
        author=asked["author"],
        format=None if kind == "any" else cast("ModelFormat", kind),
        quantization=asked["quantization"],
        sort=cast("Sort", asked["sort"]),
        max_bytes=_most_bytes(asked["size"]),
        limit=_PAGE,
        cursor=asked["cursor"],
    )


def _most_bytes(size: str) -> int:
    """The bound on a model's weights; ``fits``: what models may use here while nothing else is loaded."""
    if size == "fits":
        fit = get_engine().memory_fit(Size(0))
        return max(1, fit.alone.free_bytes - fit.reserve_bytes)
    return int(size) * _GIB if size else 0


async def _results(asked: dict[str, str], wait_s: float | None) -> dict[str, Any]:
    """``found``, or why not: a ``failure``, or ``waiting``. ``again`` is the address of this search, ``more`` the
    next's.
    """
    found: Found | None
    search = finder().search(_query(asked))
    found, failure = await _tried(_soon(search, wait_s) if wait_s is not None else search)
    if failure is not None and failure.param == "cursor":
        found, failure = await _tried(finder().search(replace(_query(asked), cursor="")))
    return {
        "found": found,
        "failure": failure,
        "waiting": found is None and failure is None,
        "again": _search_address(asked),
        "more": _search_address(asked | {"cursor": found.cursor}) if found is not None and found.cursor else "",
    }


def _search_address(asked: dict[str, str]) -> str:
    default = {"format": "mlx", "sort": "downloads"}
    told = {name: value for name, value in asked.items() if value and default.get(name) != value}
    return reverse("monitoring:discover") + (f"?{urlencode(told)}" if told else "")


def _address(repo: str) -> str:
    return reverse("monitoring:discover_model", args=[repo])


def _printable(text: str) -> str:
    return "".join(character for character in text if character.isprintable())


# ------------------------------------------------------------------------------------------------------------ asking


async def _soon(work: Coroutine[Any, Any, Answer], wait_s: float) -> Answer | None:
    """The answer if it comes in time; else None, and it will be at hand when it is asked for again."""
    try:
        async with asyncio.timeout(wait_s):
            return await work
    except TimeoutError:
        return None


async def _tried(work: Coroutine[Any, Any, Answer]) -> tuple[Answer | None, LmxError | None]:
    try:
        return await work, None
    except LmxError as error:
        return None, error


async def _job_of(repo: str) -> JobStatus | None:
    """The download of that model that runs."""
    jobs = await fetcher().jobs(_JOBS_LOOKED_AT)
    alike = [job for job in jobs if job.kind == "fetch" and job.subject.lower() == repo.lower()]
    return next((job for job in alike if job.state in _RUNNING), None)


def _spread(view: ModelView | None) -> dict[str, Any]:
    """What of a view the templates ask for by name."""
    if view is None:
        return {}
    return {"verdict": view.verdict, "model": view.model, "offer": _offer(view.verdict)}


def _offer(verdict: Verdict) -> str:
    """What the button does: ``download``, ``update``, ``anyway`` (it does not fit), or "" where there is none."""
    if not verdict.supported or verdict.verdict in ("gated", "disk_full"):
        return ""
    if any(one.current is True for one in verdict.here):
        return ""
    if verdict.newer:
        return "update"
    return "anyway" if verdict.verdict == "too_large" else "download"


def _check_site(request: HttpRequest) -> None:
    """A page of another origin may lead here, which is seen; it may not have the Hub asked unseen, by a picture's
    address.
    """
    site, target = request.headers.get("Sec-Fetch-Site"), request.headers.get("Sec-Fetch-Dest")
    if site not in (None, "same-origin", "none") and target != "document":
        raise PermissionDenied


def _is_part(request: HttpRequest) -> bool:
    """Whether htmx wants a part; on the way back through its history it wants the page."""
    return is_fragment(request) and request.headers.get("HX-History-Restore-Request") != "true"
