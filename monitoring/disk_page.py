"""The page Disk: what takes space, what of it nobody needs, and a button for that."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_GET, require_POST, require_safe

from inference.api.deps import keeper
from inference.errors import LmxError
from inference.models_on_disk import DiskUse, Use, Volume
from monitoring.models_page import running_jobs
from monitoring.views import frame_context, is_fragment, page

PATIENCE_S = 1.0
"""A page waits so long for the look at the disk; a slower one comes by itself when it is done."""
MODELS_SHOWN = 100
OTHERS_SHOWN = 50
_LONGEST_PATH = 4096

KINDS = {
    "model": "models",
    "partial": "unfinished downloads",
    "leftover": "leftovers",
    "prefix_cache": "prompt caches",
    "hub_cache": "Hugging Face cache",
    "demo_cache": "demo cache",
    "responses": "stored responses",
    "history": "history",
    "inventory": "inventory",
    "logs": "logs",
    "hidden_model": "models off the list",
    "orphan": "files of no model",
}
_BANDS = (
    ("models", 1, ("model",)),
    ("unfinished downloads", 2, ("partial", "leftover")),
    ("prompt caches", 3, ("prefix_cache",)),
    ("Hugging Face cache", 4, ("hub_cache",)),
    ("logs, history, responses", 6, ("logs", "history", "responses", "inventory", "demo_cache")),
    ("off the list, of no model", 5, ("hidden_model", "orphan")),
)
"""The bands of a volume's bar: words, colour, kinds."""


@dataclass(frozen=True, slots=True)
class Band:
    """A part of a bar; ``start`` and ``width`` in percent of the volume. ``colour`` 0: not ours."""

    words: str
    colour: int
    bytes: int
    start: float
    width: float


@require_safe
@ensure_csrf_cookie
@page
async def disk(request: HttpRequest) -> HttpResponse:
    """The whole page; where looking takes long, its frame, which fetches the rest."""
    looking = asyncio.ensure_future(keeper().disk())
    await asyncio.wait({looking}, timeout=PATIENCE_S)
    context = {**frame_context("disk"), "jobs": running_jobs()}
    context |= use_context(looking.result()) if looking.done() else {"looking": True}
    return render(request, "monitoring/disk.html", context)


@require_GET
@page
async def disk_use(request: HttpRequest) -> HttpResponse:
    """The ledger as a fragment, however long it takes."""
    return render(request, "monitoring/_disk.html", use_context(await keeper().disk()))


@require_safe
@ensure_csrf_cookie
@page
async def reclaim_plan(request: HttpRequest) -> HttpResponse:
    """What freeing ``kind`` or ``path`` would delete, to be confirmed: a dialog for htmx, else a page."""
    given = {name: request.GET.get(name, "")[:_LONGEST_PATH] for name in ("kind", "path")}
    return await _plan(request, given)


async def _plan(request: HttpRequest, given: dict[str, str], done: Any = None) -> HttpResponse:
    context: dict[str, Any] = {"given": given, "done": done, "fragment": is_fragment(request)}
    context["words"] = KINDS.get(given["kind"], given["kind"]) if given["kind"] else "what nobody needs"
    if done is None:
        try:
            context["plan"] = await keeper().reclaim(
                kind=given["kind"] or None, path=given["path"] or None, dry_run=True
            )
        except LmxError as error:
            context["error"] = error
    if is_fragment(request):
        return render(request, "monitoring/_reclaim.html", context)
    return render(request, "monitoring/disk_reclaim.html", {**frame_context("disk"), **context})


@require_POST
@page
async def reclaim(request: HttpRequest) -> HttpResponseBase:
    """Free ``kind`` or ``path``; what had to stay is told."""
    given = {name: request.POST.get(name, "")[:_LONGEST_PATH] for name in ("kind", "path")}
    try:
        done = await keeper().reclaim(kind=given["kind"] or None, path=given["path"] or None)
    except LmxError:
        return await _plan(request, given)
    if done.skipped:
        return await _plan(request, given, done)
    away = reverse("monitoring:disk_page")
    return HttpResponse(status=204, headers={"HX-Redirect": away}) if is_fragment(request) else redirect(away)


def use_context(use: DiskUse) -> dict[str, Any]:
    """The ledger as the page shows it."""
    models = sorted((one for root in use.roots for one in root.models), key=lambda one: (-one.bytes, one.name))
    others = sorted(use.others, key=lambda one: -one.bytes)
    plain = [one for one in others if one.kind not in ("orphan", "hidden_model")]
    kinds = dict.fromkeys(one.kind for one in use.others if one.reclaimable)
    return {
        "use": use,
        "volumes": [{"volume": volume, "bands": _bands(volume, models, use)} for volume in use.volumes],
        "models": models[:MODELS_SHOWN],
        "more_models": max(0, len(models) - MODELS_SHOWN),
        "models_bytes": sum(one.bytes for one in models),
        "others": [_told(one) for one in plain[:OTHERS_SHOWN]],
        "more_others": max(0, len(plain) - OTHERS_SHOWN),
        "hidden": [one for one in others if one.kind == "hidden_model"],
        "orphans": [one for one in others if one.kind == "orphan"][:OTHERS_SHOWN],
        "orphans_bytes": sum(one.bytes for one in others if one.kind == "orphan"),
        "reclaimable": [_reclaimable(kind, use.others) for kind in kinds],
        "duplicates": use.duplicates,
        "quotas": [
            {"quota": quota, "words": KINDS.get(quota.kind, quota.kind), "over": quota.used_bytes > quota.limit_bytes}
            for quota in use.quotas
        ],
    }


def _told(use: Use) -> dict[str, Any]:
    return {"use": use, "words": KINDS.get(use.kind, use.kind)}


def _reclaimable(kind: str, uses: Iterable[Use]) -> dict[str, Any]:
    found = [use for use in uses if use.kind == kind and use.reclaimable]
    size = sum(use.reclaimable for use in found)
    return {"kind": kind, "words": KINDS.get(kind, kind), "bytes": size, "uses": found}


def _bands(volume: Volume, models: Iterable[Use], use: DiskUse) -> list[Band]:
    """Ours by kind, what others have, up to what is free."""
    here = [one for one in (*models, *use.others) if _volume_of(one.path, use.volumes) is volume]
    sizes = [(words, colour, sum(one.bytes for one in here if one.kind in kinds)) for words, colour, kinds in _BANDS]
    taken = volume.total_bytes - volume.free_bytes
    sizes.append(("everything else", 0, max(0, taken - sum(size for _, _, size in sizes))))
    bands, start, whole = list[Band](), 0.0, volume.total_bytes or 1
    for words, colour, size in sizes:
        width = min(100 * size / whole, 100 - start)
        if size:
            bands.append(Band(words, colour, size, start, width))
        start += width
    return bands


def _volume_of(path: str, volumes: Iterable[Volume]) -> Volume | None:
    """The volume of the longest of its places that ``path`` lies in."""
    places = [(len(place), volume) for volume in volumes for place in volume.places if _is_in(path, place)]
    return max(places, key=lambda pair: pair[0])[1] if places else None


def _is_in(path: str, place: str) -> bool:
    return path == place or path.startswith(place.rstrip("/") + "/")
