"""``/admin/models/list``, ``/admin/models/hidden`` and ``/admin/model/files``: what is on the disk, in pages."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import orjson
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from pydantic import Field

from inference.api import admin_answers as answers
from inference.api import openapi
from inference.api.admin import AdminBody, api
from inference.api.base import json_response
from inference.api.deps import catalog, keeper, services
from inference.api.describe import kept_model, listed_model
from inference.catalog import DiskState, ModelKind, ModelRef
from inference.engine import get_engine
from inference.engine.contract import RunState
from inference.errors import InvalidRequest
from inference.keeping import Kept
from inference.listing import DISK_STATES, RUN_STATES, SORTS, Order, Sort, Wanted, select
from inference.protocols.jsonbody import parse_object
from inference.protocols.validation import validate

MOST = 1000
_ONE_OF = {"type": "string"}
_PARAMETERS = [
    openapi.parameter("limit", {"type": "integer", "minimum": 1, "maximum": MOST}, "So many models and no more."),
    openapi.parameter("offset", {"type": "integer", "minimum": 0}, "How many to pass over: `next_offset` of a page."),
    openapi.parameter("search", _ONE_OF, "Words that all occur in name, alias, architecture, quantization or licence."),
    openapi.parameter("state", _ONE_OF, f"Run states, with commas: {', '.join(RUN_STATES)}."),
    openapi.parameter("disk_state", _ONE_OF, f"Disk states, with commas: {', '.join(DISK_STATES)}."),
    openapi.parameter("kind", {"type": "string", "enum": ["llm", "embeddings"]}),
    openapi.parameter("sort", {"type": "string", "enum": list(SORTS)}),
    openapi.parameter("order", {"type": "string", "enum": ["asc", "desc"]}),
]
_NAMES = frozenset(str(one["name"]) for one in _PARAMETERS)


class _Query(AdminBody):
    """The query's values, after numbers were read and lists were split."""

    limit: int | None = Field(None, ge=1, le=MOST)
    offset: int = Field(0, ge=0, le=2**31 - 1)
    search: str = Field("", max_length=512)
    state: list[RunState] = []
    disk_state: list[DiskState] = []
    kind: ModelKind | None = None
    sort: Sort = "name"
    order: Order = "asc"


@api.route(
    "GET",
    "/models/list",
    scope="admin",
    operation_id="list_all_models",
    summary="Models on disk, with their run state or why they cannot run: all, or a page of a search",
    tag="models",
    parameters=_PARAMETERS,
    answers={200: answers.ListedModels},
)
async def models_list(request: HttpRequest) -> HttpResponseBase:
    wanted, is_page = _wanted(request)
    states = {status.id: status for status in get_engine().models()}
    page = select(catalog().all(), states, wanted)
    kept = _kept([one.ref for one in page.models])
    listed = (listed_model(one.ref, one.status) for one in page.models)
    told: dict[str, Any] = {"models": [model | kept_model(more) for model, more in zip(listed, kept, strict=True)]}
    if is_page:
        told |= {"total": page.total, "offset": page.offset, "next_offset": page.next_offset}
    return _json(told)


def _kept(refs: list[ModelRef]) -> list[Kept]:
    updater = services().updater
    return updater.kept(refs) if updater is not None else [Kept()] * len(refs)


def _wanted(request: HttpRequest) -> tuple[Wanted, bool]:
    """What the query asks for, and whether it asks for anything."""
    given: dict[str, Any] = {name: value for name, value in request.GET.items() if name in _NAMES}
    for name in ("limit", "offset"):
        if name in given:
            given[name] = _number(name, given[name])
    for name in ("state", "disk_state"):
        if name in given:
            given[name] = [word for word in given[name].split(",") if word]
    query = validate(_Query, given)
    wanted = Wanted(
        search=query.search,
        states=tuple(query.state),
        disk_states=tuple(query.disk_state),
        kind=query.kind,
        sort=query.sort,
        order=query.order,
        offset=query.offset,
        limit=query.limit,
    )
    return wanted, bool(given)


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 12):
        raise InvalidRequest(f"{name} must be a whole number", param=name, code="invalid_value")
    return int(text)


@api.route(
    "GET",
    "/models/hidden",
    scope="admin",
    operation_id="list_hidden_models",
    summary="Models on disk that their owner took off the list",
    tag="models",
    answers={200: answers.HiddenModels},
)
async def hidden_models(request: HttpRequest) -> HttpResponseBase:
    return _json({"models": [asdict(model) for model in keeper().hidden()]})


class RestoreBody(AdminBody):
    """``model_id`` is the name that ``/admin/models/hidden`` tells; ``path`` says which, where two have it."""

    model_id: str = Field(min_length=1, max_length=768)
    path: str | None = Field(default=None, min_length=1, max_length=4096)


@api.route(
    "POST",
    "/model/restore",
    scope="admin",
    operation_id="restore_model",
    summary="Bring a model that was taken off the list back to it",
    tag="models",
    body=RestoreBody,
    answers={200: answers.RestoreAnswer},
    refuses=[openapi.RESTORE],
)
async def restore_model(request: HttpRequest) -> HttpResponseBase:
    wanted = validate(RestoreBody, parse_object(request.body))
    ref = await keeper().restore(wanted.model_id, path=wanted.path)
    return _json({"model_id": ref.id, "path": str(ref.path), "disk_state": ref.disk_state})


@api.route(
    "GET",
    "/model/files",
    scope="admin",
    operation_id="list_model_files",
    summary="The files of a model, with what they should be and what they were found to be",
    tag="models",
    parameters=[openapi.parameter("model_id", _ONE_OF, "Any name of a model on disk.", required=True)],
    answers={200: answers.FilesAnswer},
    refuses=[openapi.NAMED],
)
async def model_files(request: HttpRequest) -> HttpResponseBase:
    ref = catalog().resolve(request.GET.get("model_id", "")[:512])
    files = await keeper().files(ref.path)
    return _json({"model_id": ref.id, "path": str(ref.path), "files": [asdict(file) for file in files]})


def _json(value: Any) -> HttpResponseBase:
    return json_response(orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS))
