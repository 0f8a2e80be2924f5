"""The form of a model's settings: made from the table of settings, with or without scripts.

What is empty in the form is not set. Only what was changed in it is sent on, so two open pages do not undo each other.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest, QueryDict
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.http import urlencode
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_http_methods

from inference.api.deps import model_settings as keeper
from inference.api.model_settings import reload_needed
from inference.errors import InvalidRequest, LmxError, ModelNotFound
from inference.model_settings import SettingsView
from monitoring.audit import note_refusal
from monitoring.views import LONGEST_NAME, frame_context, is_fragment, page

_GROUPS = {"names": "Names and pin", "loading": "Loading", "answers": "Answers", "thinking": "Thinking"}
_LONG = ("system_prompt", "stop", "aliases", "chat_template_kwargs")
_YES, _NO = "yes", "no"


@dataclass(frozen=True, slots=True)
class Row:
    """One field as the form shows it. ``text`` is what stands in it, ``usual`` what holds while it is empty."""

    name: str
    label: str
    help: str
    text: str
    usual: str
    error: str
    origin: str
    choices: tuple[tuple[str, str], ...]
    is_long: bool
    reload: bool


@require_http_methods(["GET", "HEAD", "POST"])
@ensure_csrf_cookie
@page
async def model_settings(request: HttpRequest) -> HttpResponseBase:
    """The form of ``model_id``, alone or as a fragment; POST changes what was changed in it."""
    given = request.POST if request.method == "POST" else request.GET
    name = given.get("model_id", "")
    if not name or len(name) > LONGEST_NAME:
        return HttpResponseBadRequest("model_id names a model\n", content_type="text/plain")
    try:
        view = keeper().show(name)
        if request.method == "POST":
            return await _changed(request, view)
    except LmxError as error:
        return HttpResponse(error.message + "\n", status=error.status, content_type="text/plain")
    return _shown(request, view, saved="saved" in request.GET)


async def _changed(request: HttpRequest, view: SettingsView) -> HttpResponseBase:
    texts = {str(field["name"]): request.POST.get(str(field["name"])) for field in view.fields}
    entered = {name: _lines(text) for name, text in texts.items() if text is not None}
    was = _was(request.POST, view)
    changes = {
        str(field["name"]): _value(field, text)
        for field in view.fields
        if (text := entered.get(field["name"])) is not None and _mark(text) != was.get(field["name"])
    }
    try:
        after = await keeper().change(view.model_id, changes)
    except InvalidRequest as error:
        note_refusal(request, error.code)
        return _shown(request, view, entered=entered, problems=error.details.get("problems", {}), was=was)
    except ModelNotFound:
        raise
    except LmxError as error:
        note_refusal(request, error.code)
        return _shown(request, view, entered=entered, failure=error.message, was=was)
    if is_fragment(request):
        return _shown(request, after, saved=True)
    return redirect(f"{reverse('monitoring:model_settings')}?{urlencode({'model_id': after.model_id, 'saved': '1'})}")


def _shown(
    request: HttpRequest,
    view: SettingsView,
    *,
    saved: bool = False,
    entered: Mapping[str, str] | None = None,
    problems: Mapping[str, str] | None = None,
    was: Mapping[str, str] | None = None,
    failure: str = "",
) -> HttpResponse:
    """The form; what was ``entered`` stays in it until it is right."""
    wrong = problems or {}
    groups = [
        (title, [_row(field, view, entered or {}, wrong) for field in view.fields if field["group"] == group])
        for group, title in _GROUPS.items()
    ]
    context = {
        "settings": view,
        "groups": [(title, rows) for title, rows in groups if rows],
        "was": json.dumps(dict(was or _marks(view))),
        "saved": saved and not wrong,
        "wrong": len(wrong),
        "failure": failure,
        "reload_needed": reload_needed(view.model_id),
    }
    if is_fragment(request):
        return render(request, "monitoring/_model_settings.html", context)
    status = 400 if wrong else 500 if failure else 200
    frame = frame_context("models")
    return render(request, "monitoring/model_settings.html", {**frame, **context}, status=status)


def _marks(view: SettingsView) -> dict[str, str]:
    """What stands in each field, told apart but not told: forms are logged, and prompts shall not be."""
    return {str(field["name"]): _mark(_lines(_text(field, view.stored.get(field["name"])))) for field in view.fields}


def _mark(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def _was(given: QueryDict, view: SettingsView) -> dict[str, str]:
    """The marks of the form as it was made; of what is set now where it does not tell."""
    try:
        told = json.loads(given.get("was", ""))
    except (ValueError, RecursionError):
        told = None
    now = _marks(view)
    return {name: str(told.get(name, mark)) for name, mark in now.items()} if isinstance(told, dict) else now


def _row(field: Mapping[str, Any], view: SettingsView, entered: Mapping[str, str], wrong: Mapping[str, str]) -> Row:
    name = str(field["name"])
    usual = view.configured.get(name, field["default"])
    choices: tuple[tuple[str, str], ...] = ()
    if field["type"] == "boolean":
        choices = ((_YES, "Yes"), (_NO, "No"))
    elif field["type"] == "choice":
        choices = tuple((one, one) for one in field["choices"])
    return Row(
        name=name,
        label=field["label"],
        help=field["help"] + _how(name),
        text=entered.get(name, _text(field, view.stored.get(name))),
        usual=_text(field, usual) or _nobody(name),
        error=wrong.get(name, ""),
        origin="config.yaml" if name in view.configured and name not in view.stored else "",
        choices=choices,
        is_long=name in _LONG,
        reload=bool(field["reload"]),
    )


def _how(name: str) -> str:
    return {"aliases": " One a line.", "stop": " One a line; \\n is a line's end."}.get(name, "")


def _nobody(name: str) -> str:
    """What holds where neither the owner nor the server says anything."""
    if name in ("tool_parser", "reasoning_parser"):
        return "found out from the model"
    if name == "prefix_cache_mb":
        return "a share of what is free"
    if name == "max_tokens":
        return "up to the context"
    return {"seed": "another each time", "enable_thinking": "the model decides"}.get(name, "none")


def _text(field: Mapping[str, Any], value: Any) -> str:
    """A value as it stands in the form; empty for none."""
    if value is None:
        return ""
    match field["type"]:
        case "boolean":
            return _YES if value else _NO
        case "strings" if isinstance(value, list):
            return "\n".join(_escaped(str(one)) if field["name"] == "stop" else str(one) for one in value)
        case "object":
            return json.dumps(value, ensure_ascii=False, indent=2)
        case "number" | "seconds" if isinstance(value, float) and value.is_integer():
            return str(int(value))
    return str(value)


def _value(field: Mapping[str, Any], text: str) -> Any:
    """What was entered, None where it is empty; what does not look like a value stays text, to be refused by name."""
    if not text.strip() and field["name"] != "stop":
        return None
    match field["type"]:
        case "boolean":
            return {_YES: True, _NO: False}.get(text, text)
        case "strings" if field["name"] == "stop":
            return [_unescaped(line) for line in text.split("\n") if line] or None
        case "strings":
            return [line.strip() for line in text.split("\n") if line.strip()]
        case "integer" | "number" | "seconds":
            return _number(text.strip())
        case "object":
            return _object(text)
        case _:
            return text


def _lines(text: str) -> str:
    """A browser ends the lines of a text in its own way."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _object(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _unescaped(line: str) -> str:
    found, rest = [], iter(line)
    for letter in rest:
        following = next(rest, "") if letter == "\\" else letter
        found.append("\n" if letter == "\\" and following == "n" else following or "\\")
    return "".join(found)
