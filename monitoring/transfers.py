"""The page Transfers: downloads and other jobs, and what its buttons do. What changes something is a POST."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from django.http import HttpRequest, HttpResponseBadRequest
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_GET, require_POST, require_safe

from inference.api.deps import fetcher
from inference.errors import LmxError
from inference.fetching import JobStatus
from monitoring.audit import note_refusal
from monitoring.views import LONGEST_NAME, frame_context, is_fragment, page

SHOWN = 300
"""Jobs on the page, the newest."""

_GROUPS = (
    ("Under way", ("running", "queued")),
    ("Paused", ("paused",)),
    ("Failed", ("failed",)),
    ("Done", ("done", "already_downloaded")),
    ("Cancelled", ("cancelled",)),
)
_WORDS = {"already_downloaded": "was here already"}
_KINDS = {"fetch": "download", "verify": "verification", "demo": "demo model"}
_KINDS |= {"convert": "conversion", "check-updates": "question to the Hub"}


@require_safe
@ensure_csrf_cookie
@page
async def transfers(request: HttpRequest) -> HttpResponseBase:
    """Every job by what it is doing."""
    return await _page(request)


@require_GET
@page
async def listed(request: HttpRequest) -> HttpResponseBase:
    """The jobs, as a fragment."""
    return render(request, "monitoring/_transfers.html", await _context())


@require_POST
@page
async def start(request: HttpRequest) -> HttpResponseBase:
    """Fetch ``model``, a name or an address at the Hub."""
    model = request.POST.get("model", "").strip()
    if not model:
        return await _changed(request, "Write the name of a model, such as mlx-community/Qwen3-4B-4bit.", asked=model)
    if len(model) > LONGEST_NAME:
        return HttpResponseBadRequest(f"model is over {LONGEST_NAME} characters\n", content_type="text/plain")
    try:
        await fetcher().start(model, auto_load=request.POST.get("auto_load") == "yes")
    except LmxError as error:
        return await _changed(request, error.message, asked=model)
    return await _changed(request)


@require_POST
@page
async def pause(request: HttpRequest) -> HttpResponseBase:
    """Have the download ``job`` wait until it is resumed."""
    return await _work(request, lambda number: fetcher().pause(number))


@require_POST
@page
async def resume(request: HttpRequest) -> HttpResponseBase:
    """Have the download ``job``, which is paused or has ended, go on."""
    return await _work(request, lambda number: fetcher().resume(number))


@require_POST
@page
async def cancel(request: HttpRequest) -> HttpResponseBase:
    """End ``job``; what it has brought stays."""
    return await _work(request, lambda number: fetcher().cancel(number))


async def _work(request: HttpRequest, work: Callable[[int], Awaitable[JobStatus]]) -> HttpResponseBase:
    number = request.POST.get("job", "")
    if not (number.isascii() and number.isdecimal() and len(number) < 19):
        return HttpResponseBadRequest("job is no number\n", content_type="text/plain")
    try:
        await work(int(number))
    except LmxError as error:
        return await _changed(request, error.message)
    return await _changed(request)


async def _changed(request: HttpRequest, refused: str = "", asked: str = "") -> HttpResponseBase:
    """The fragment for htmx; for others the page, or what kept it from being changed."""
    if refused:
        note_refusal(request, refused)
    if is_fragment(request):
        return render(request, "monitoring/_transfers.html", await _context(refused))
    if refused:
        return await _page(request, refused, asked)
    return redirect("monitoring:transfers")


async def _page(request: HttpRequest, refused: str = "", asked: str = "") -> HttpResponseBase:
    about = {**frame_context("transfers"), **await _context(refused), "asked": asked}
    return render(request, "monitoring/transfers.html", about)


async def _context(refused: str = "") -> dict[str, Any]:
    try:
        jobs = await fetcher().jobs(SHOWN)
    except LmxError as error:  # the server starts or stops
        jobs, refused = [], refused or error.message
    groups = [
        {"title": title, "jobs": [_shown(job) for job in _in_turn(jobs) if job.state in states]}
        for title, states in _GROUPS
    ]
    return {"groups": [group for group in groups if group["jobs"]], "refused": refused, "more": len(jobs) == SHOWN}


def _in_turn(jobs: list[JobStatus]) -> list[JobStatus]:
    """The newest first, but those that wait in the order of their turns, behind what runs."""
    order = {"running": 0, "queued": 1}
    return sorted(jobs, key=lambda job: (order.get(job.state, 2), job.place or 0))


def _is_plain(job: JobStatus) -> bool:
    """Whether its message says no more than state and figures do; ``transfers.js`` knows it the same way."""
    return job.message == job.state or (job.total > 0 and job.message.startswith("downloading "))


def _shown(job: JobStatus) -> dict[str, Any]:
    """What the template shows of a job, and which buttons it has."""
    fetches = job.kind == "fetch"
    ended = job.state not in ("running", "queued", "paused")
    return {
        "id": job.job,
        "title": job.subject or job.kind,
        "model": job.subject if fetches and job.state in ("done", "already_downloaded") else "",
        "kind": _KINDS.get(job.kind, job.kind),
        "state": job.state,
        "word": _WORDS.get(job.state, job.state),
        "done": job.done,
        "total": job.total,
        "bytes": job.unit == "bytes",
        "unit": job.unit,
        "message": "" if _is_plain(job) else job.message,
        "rate": job.bytes_per_second,
        "left": job.seconds_left,
        "at": job.finished_at or job.started_at or job.queued_at,
        "ended": ended,
        "files": job.files if fetches else (),
        "path": job.result.get("path", ""),
        "load_error": job.result.get("load_error", ""),
        "buttons": _buttons(job, ended=ended),
    }


def _buttons(job: JobStatus, *, ended: bool) -> list[dict[str, str]]:
    found = []
    if job.kind == "fetch" and job.state in ("running", "queued"):
        found.append({"url": "monitoring:pause_job", "work": "pause", "words": "Pause", "icon": "pause"})
    if job.kind == "fetch" and job.state in ("paused", "failed", "cancelled"):
        words = "Resume" if job.state == "paused" else "Try again"
        found.append({"url": "monitoring:resume_job", "work": "resume", "words": words, "icon": "resume"})
    if not ended:
        found.append({"url": "monitoring:cancel_job", "work": "cancel", "words": "Cancel", "icon": "close"})
    return found
