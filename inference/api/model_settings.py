"""``/admin/model/settings``: what the owner keeps for one model."""

from __future__ import annotations

from typing import Any

import orjson
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from pydantic import Field

from inference.api import admin_answers as answers
from inference.api import openapi
from inference.api.admin import AdminBody, api
from inference.api.base import json_response
from inference.api.deps import model_settings
from inference.engine import get_engine
from inference.model_settings import SettingsView
from inference.protocols.jsonbody import parse_object
from inference.protocols.validation import refuse, validate

_LONGEST_NAME = 512


class SettingsBody(AdminBody):
    """Settings that are not named stay as they are; null puts one back. All of it holds, or nothing."""

    model_id: str = Field(min_length=1, max_length=_LONGEST_NAME)
    settings: dict[str, Any]


class PinBody(AdminBody):
    """``pinned`` false takes it back."""

    model_id: str = Field(min_length=1, max_length=_LONGEST_NAME)
    pinned: bool = True


@api.route(
    "GET",
    "/model/settings",
    scope="admin",
    operation_id="get_model_settings",
    summary="What is kept for a model, and what can be",
    tag="models",
    answers={200: answers.SettingsAnswer},
    refuses=[openapi.NAMED],
)
async def show_settings(request: HttpRequest, model_id: str) -> HttpResponseBase:
    if len(model_id) > _LONGEST_NAME:
        raise refuse("model_id", f"must have at most {_LONGEST_NAME} characters")
    return _json(_told(model_settings().show(model_id)))


@api.route(
    "POST",
    "/model/settings",
    scope="admin",
    operation_id="set_model_settings",
    summary="Change what is kept for a model",
    tag="models",
    body=SettingsBody,
    answers={200: answers.SettingsChanged},
    refuses=[openapi.NAMED],
)
async def change_settings(request: HttpRequest) -> HttpResponseBase:
    wanted = validate(SettingsBody, parse_object(request.body))
    return _json(_changed(await model_settings().change(wanted.model_id, wanted.settings)))


@api.route(
    "POST",
    "/model/pin",
    scope="admin",
    operation_id="pin_model",
    summary="Keep a model in memory once it is loaded, also after a restart",
    tag="models",
    body=PinBody,
    answers={200: answers.SettingsChanged},
    refuses=[openapi.NAMED],
)
async def pin_model(request: HttpRequest) -> HttpResponseBase:
    wanted = validate(PinBody, parse_object(request.body))
    return _json(_changed(await model_settings().change(wanted.model_id, {"pinned": wanted.pinned})))


def _changed(view: SettingsView) -> dict[str, Any]:
    return _told(view) | {"changed": list(view.changed)}


def _told(view: SettingsView) -> dict[str, Any]:
    return {
        "model_id": view.model_id,
        "identity": view.identity,
        "present": view.present,
        "settings": dict(view.stored),
        "configured": dict(view.configured),
        "effective": dict(view.effective),
        "fields": [dict(field) for field in view.fields],
        "reload_needed": reload_needed(view.model_id),
    }


def reload_needed(model_id: str) -> bool:
    """Whether the model is loaded with other bounds than its settings say."""
    return any(status.reload_needed for status in get_engine().models() if status.id == model_id)


def _json(value: Any) -> HttpResponseBase:
    return json_response(orjson.dumps(value))
