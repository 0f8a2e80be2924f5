"""The page of one model, and what the buttons of both pages of models do.

Models are named in the query or the form, as their names have slashes. An action answers htmx with the fragment it
changed, of whichever page asked, and everybody else with a redirect there.
"""

from __future__ import annotations

import json
import shlex
from typing import Any
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import Resolver404, resolve, reverse
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_GET, require_POST, require_safe

from inference.api.deps import catalog, keeper
from inference.catalog import ModelRef
from inference.engine import get_engine
from inference.engine.contract import ModelStatus
from inference.errors import LmxError, ModelNotFound
from inference.listing import Listed
from inference.models_on_disk import FileOnDisk
from monitoring.actions import get_actions
from monitoring.audit import note_refusal
from monitoring.model_versions import versions
from monitoring.models_page import asked_of, list_context, row, running_jobs
from monitoring.views import frame_context, is_fragment, note_notice, page

LONGEST = 512
FILES_SHOWN = 500
_LONGEST_PATH = 4096
_LIVE = ("loading", "ready", "draining")


@require_safe
@ensure_csrf_cookie
@page
async def model(request: HttpRequest) -> HttpResponse:
    """The page of the model ``model_id``; 404 with the nearest names where there is none."""
    name = request.GET.get("model_id", "")
    try:
        if not name.strip():
            raise ModelNotFound("No model is named.")
        ref = catalog().resolve(name[:LONGEST])
    except ModelNotFound as error:
        context = {**frame_context("models"), "message": error.message, "nearest": error.details.get("nearest", [])}
        return render(request, "monitoring/model_missing.html", context, status=404)
    base = f"{request.scheme}://{request.get_host()}"
    more = {"curl": _curl(base, ref), "settings": _settings_url(ref.id)}
    context = {**frame_context("models"), **await model_context(ref), **more}
    return render(request, "monitoring/model.html", context)


@require_GET
@page
async def model_state(request: HttpRequest) -> HttpResponse:
    """What changes of that page, as a fragment."""
    ref = _still_there(request.GET.get("model_id", "")[:LONGEST])
    if ref is None:
        return _go(reverse("monitoring:models_page"))
    return render(request, "monitoring/_model.html", await model_context(ref))


def _still_there(model_id: str) -> ModelRef | None:
    """The model of exactly that id."""
    try:
        ref = catalog().resolve(model_id)
    except ModelNotFound:
        return None
    return ref if ref.id == model_id else None


async def model_context(ref: ModelRef) -> dict[str, Any]:
    """A model with its files, what works on it, and what went wrong with it."""
    files = await keeper().files(ref.path)
    status = next((one for one in get_engine().models() if one.id == ref.id), ModelStatus(ref.id, "unloaded"))
    bad = set(ref.bad_files)
    return {
        "model": row(Listed(ref, status)),
        "files": [_file(file, bad) for file in files[:FILES_SHOWN]],
        "more_files": max(0, len(files) - FILES_SHOWN),
        "missing": sorted(bad - {file.name for file in files}),
        "read_all": bool(files) and all(file.sound for file in files),
        "jobs": [job for job in running_jobs() if job.get("title") in (ref.id, *ref.aliases)],
        "notices": [notice for notice in get_actions().notices() if notice["model"] == ref.id],
        **versions(ref),
    }


def _file(file: FileOnDisk, bad: set[str]) -> dict[str, Any]:
    """``word``: what is known of its content."""
    if file.name in bad or file.sound is False:
        word = "bad"
    elif file.sound:
        word = "sound" if file.expected or file.basis == "published" else "as first seen"
    else:
        word = "not read"
    return {"file": file, "word": word}


def _curl(base: str, ref: ModelRef) -> str:
    """A line for a shell, whatever characters the model's name has."""
    body: dict[str, Any] = {"model": ref.id}
    if ref.kind == "embeddings":
        path, body["input"] = "/v1/embeddings", "Say hello."
    else:
        path, body["stream"] = "/v1/chat/completions", True
        body["messages"] = [{"role": "user", "content": "Say hello."}]
    quoted = shlex.quote(json.dumps(body, ensure_ascii=False))
    return f"curl -N {base}{path} -H 'Content-Type: application/json' \\\n  -d {quoted}"


def _settings_url(model_id: str) -> str | None:
    """Where the form of a model's settings is, if there is one."""
    path = f"{reverse('monitoring:models_page')}/settings"
    try:
        resolve(path)
    except Resolver404:
        return None
    return f"{path}?{urlencode({'model_id': model_id})}"


# ----------------------------------------------------------------------------------------------------------- actions


@require_POST
@page
async def load(request: HttpRequest) -> HttpResponseBase:
    """Load ``model`` into memory, after unloading each ``evict``."""
    if (refused := unnamed(request)) is not None:
        return refused
    await get_actions().load(request.POST["model"], request.POST.getlist("evict"))
    return await changed(request)


@require_POST
@page
async def unload(request: HttpRequest) -> HttpResponseBase:
    """Unload ``model`` from memory; its running answers are finished first."""
    if (refused := unnamed(request)) is not None:
        return refused
    await get_actions().unload(request.POST["model"])
    return await changed(request)


@require_POST
@page
async def pin(request: HttpRequest) -> HttpResponseBase:
    """Keep ``model`` in memory (``on`` 1, loading it if need be), or let it leave again (``on`` 0)."""
    if (refused := unnamed(request)) is not None:
        return refused
    name, on = request.POST["model"], request.POST.get("on") == "1"
    if on or any(status.id == name and status.state in _LIVE for status in get_engine().models()):
        await get_actions().pin(name, on=on)
    return await changed(request)


@require_POST
@page
async def verify(request: HttpRequest) -> HttpResponseBase:
    """Read every file of ``model`` as a job."""
    if (refused := unnamed(request)) is not None:
        return refused
    name = request.POST["model"]
    get_actions().dismiss(name)
    try:
        await keeper().verify(name)
    except LmxError as error:
        get_actions().refused(name, "verify", error.message)
    return await changed(request)


@require_POST
@page
async def dismiss(request: HttpRequest) -> HttpResponseBase:
    """Take a notice away."""
    get_actions().dismiss(request.POST.get("model", ""))
    return await changed(request)


@require_POST
@page
async def restore(request: HttpRequest) -> HttpResponseBase:
    """Bring the hidden model ``model`` in ``path`` back to the list."""
    if (refused := unnamed(request)) is not None:
        return refused
    name = request.POST["model"]
    try:
        await keeper().restore(name, path=request.POST.get("path", "")[:_LONGEST_PATH] or None)
    except LmxError as error:
        get_actions().refused(name, "restore", error.message)
    return await changed(request)


@require_safe
@ensure_csrf_cookie
@page
async def delete_plan(request: HttpRequest) -> HttpResponse:
    """What deleting ``model_id`` would free, to be confirmed: a dialog for htmx, else a page."""
    return await _plan(request, request.GET.get("model_id", "")[:LONGEST])


@require_POST
@page
async def delete(request: HttpRequest) -> HttpResponseBase:
    """Delete ``model``, which was shown at ``path``, from the disk."""
    return await _remove(request, forget=False)


@require_POST
@page
async def forget(request: HttpRequest) -> HttpResponseBase:
    """Take ``model`` off the list and delete nothing."""
    return await _remove(request, forget=True)


async def _remove(request: HttpRequest, *, forget: bool) -> HttpResponseBase:
    if (refused := unnamed(request)) is not None:
        return refused
    name = request.POST["model"]
    try:
        await keeper().delete(name, path=request.POST.get("path", "")[:_LONGEST_PATH] or None, forget=forget)
    except LmxError as error:
        note_refusal(request, error.code)
        return await _plan(request, name, error)
    get_actions().dismiss(name)
    away = reverse("monitoring:models_page")
    return _go(away) if is_fragment(request) else redirect(away)


async def _plan(request: HttpRequest, name: str, failed: LmxError | None = None) -> HttpResponse:
    context: dict[str, Any] = {"name": name, "error": failed, "fragment": is_fragment(request)}
    if failed is None:
        try:
            context["plan"] = await keeper().delete(name, dry_run=True)
        except LmxError as error:
            context["error"] = error
    # What cannot be deleted can be taken off the list, unless it is not there or in use.
    code = getattr(context["error"], "code", "")
    context["may_forget"] = code in ("model_not_ours", "model_shared", "model_not_on_disk")
    context["loaded"] = code == "model_loaded"
    if is_fragment(request):
        return render(request, "monitoring/_delete.html", context)
    return render(request, "monitoring/model_delete.html", {**frame_context("models"), **context})


def unnamed(request: HttpRequest) -> HttpResponse | None:
    """The refusal of a form that names no model, or none that there can be."""
    name = request.POST.get("model", "")
    if not name:
        return HttpResponseBadRequest("model is missing\n", content_type="text/plain")
    if len(name) > LONGEST + 256:
        return HttpResponseBadRequest(f"model is over {LONGEST} characters\n", content_type="text/plain")
    return None


async def changed(request: HttpRequest) -> HttpResponseBase:
    """The fragment of the page that asked: ``one`` in the query names its model, else it is the list."""
    note_notice(request, request.POST.get("model", ""))
    one = request.GET.get("one", "")[:LONGEST]
    if not is_fragment(request):
        target = reverse("monitoring:model_page") + "?" + urlencode({"model_id": one})
        query = asked_of(request).query()
        back = reverse("monitoring:models_page") + (f"?{query}" if query else "")
        return redirect(target if one else back)
    if not one:
        return render(request, "monitoring/_model_list.html", list_context(asked_of(request)))
    if (ref := _still_there(one)) is None:
        return _go(reverse("monitoring:models_page"))
    return render(request, "monitoring/_model.html", await model_context(ref))


def _go(path: str) -> HttpResponse:
    """Tell htmx to open another page."""
    return HttpResponse(status=204, headers={"HX-Redirect": path})
