"""``/admin/model/check-updates``, ``/admin/model/update`` and ``/admin/model/rollback``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import orjson
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from pydantic import Field

from inference.api import keep_answers as answers
from inference.api import openapi
from inference.api.admin import AdminBody, api
from inference.api.base import json_response
from inference.api.deps import updater
from inference.api.jobs import told
from inference.errors import InvalidRequest, from_code
from inference.keeping import Updated
from inference.protocols.jsonbody import parse_object
from inference.protocols.validation import validate


class CheckBody(AdminBody):
    """Without ``model_id``: all models that came from the Hub."""

    model_id: str | None = Field(default=None, min_length=1, max_length=512)


@api.route(
    "POST",
    "/model/check-updates",
    scope="admin",
    operation_id="check_updates",
    summary="Ask the Hub whether it has newer revisions; downloads nothing",
    tag="models",
    body=CheckBody,
    answers={200: answers.CheckAnswer},
    refuses=[openapi.CHECK],
)
async def check_updates(request: HttpRequest) -> HttpResponseBase:
    wanted = validate(CheckBody, parse_object(request.body))
    looked = await updater().check(wanted.model_id)
    return _json({"models": [asdict(one) for one in looked]})


class UpdateBody(AdminBody):
    """``model_id`` is any name of a model that was fetched from the Hub."""

    model_id: str = Field(min_length=1, max_length=512)
    wait: bool | None = None


@api.route(
    "POST",
    "/model/update",
    scope="admin",
    operation_id="update_model",
    summary="Fetch what the Hub has now; it takes the name once it has answered a smoke prompt",
    tag="models",
    body=UpdateBody,
    answers={200: answers.UpdateAnswer, 202: answers.UpdateAnswer},
    refuses=[openapi.FETCH, openapi.CHECK],
)
async def update_model(request: HttpRequest) -> HttpResponseBase:
    wanted = validate(UpdateBody, parse_object(request.body))
    found = await updater().update(wanted.model_id)
    if wanted.wait:
        found = await updater().wait(wanted.model_id, found.job.job)
        if found.job.state in ("failed", "cancelled"):
            raise from_code(found.job.code, found.job.message, details={"job": found.job.job})
    return _json(_update_answer(found), 202 if found.outcome in ("running", "waiting") else 200)


class RollbackBody(AdminBody):
    """``forward`` goes to the newer one; ``revision`` names one, or its beginning."""

    model_id: str = Field(min_length=1, max_length=512)
    revision: str | None = Field(default=None, min_length=1, max_length=256)
    forward: bool | None = None


@api.route(
    "POST",
    "/model/rollback",
    scope="admin",
    operation_id="rollback_model",
    summary="Let the model's name mean an older revision on this disk again, or a newer one",
    tag="models",
    body=RollbackBody,
    answers={200: answers.RollbackAnswer},
    refuses=[openapi.ROLL_BACK],
)
async def rollback_model(request: HttpRequest) -> HttpResponseBase:
    wanted = validate(RollbackBody, parse_object(request.body))
    if wanted.forward and wanted.revision is not None:
        raise InvalidRequest("revision names where to go, so forward says nothing", param="forward")
    done = await updater().rollback(wanted.model_id, wanted.revision, forward=bool(wanted.forward))
    return _json(asdict(done))


def _update_answer(found: Updated) -> dict[str, Any]:
    return {
        "model_id": found.model_id,
        "outcome": found.outcome,
        "revision": found.revision,
        "previous": found.previous,
        "reason": found.reason,
        "kept": None if found.kept is None else asdict(found.kept),
        "job": told(found.job),
    }


def _json(value: Any, status: int = 200) -> HttpResponseBase:
    return json_response(orjson.dumps(value), status)
