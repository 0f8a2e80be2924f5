"""``/admin``: load and unload, what there is and how it runs, health. Admin scope throughout."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Annotated, Any

import orjson
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from pydantic import ConfigDict, Field

from inference.api import admin_answers as answers
from inference.api import openapi
from inference.api.base import JsonApi, json_response
from inference.api.deps import catalog, principal, product_version, services
from inference.api.describe import LIVE_STATES, flying_request, in_gb, running_model
from inference.api.events import events_response
from inference.api.fetched import begin, model_of
from inference.engine import get_engine
from inference.engine.contract import ModelStatus
from inference.errors import InvalidRequest, LmxError, ModelNotFound, NotFound
from inference.fetching import JobStatus
from inference.protocols.jsonbody import parse_object
from inference.protocols.validation import WireModel, refuse, validate

log = logging.getLogger(__name__)

api = JsonApi(
    prefix="/admin/",
    title="Opta-LMX admin API",
    description="Loads and unloads the models of this machine and tells how they do.",
)

# Loads that nobody waits for (``wait: false``); the set keeps them from being collected.
_loads: set[asyncio.Task[None]] = set()


class AdminBody(WireModel):
    """Bodies of our own API: a name we do not know is a mistake."""

    model_config = ConfigDict(strict=True, extra="forbid")


class LoadBody(AdminBody):
    """``context`` tokens and ``slots`` requests at once are upper bounds; ``pin`` keeps the model from eviction.

    ``ttl`` unloads it after so many idle seconds; a loaded model's is replaced by it.
    """

    model_id: str = Field(min_length=1, max_length=512)
    quantization: str | None = None
    context: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    slots: Annotated[int, Field(ge=1, le=1024)] | None = None
    ttl: Annotated[float, Field(ge=1, le=31_536_000, allow_inf_nan=False)] | None = None
    pin: bool | None = None
    download: bool | None = None
    wait: bool | None = None


class UnloadBody(AdminBody):
    model_id: str = Field(min_length=1, max_length=512)


class CancelBody(AdminBody):
    """``id`` is the answer's own id (``chatcmpl-…``), as ``/admin/status`` lists it."""

    id: str = Field(min_length=1, max_length=512)


@api.route(
    "POST",
    "/model/load",
    scope="admin",
    operation_id="load_model",
    summary="Load a model",
    tag="models",
    body=LoadBody,
    answers={200: answers.LoadAnswer, 202: answers.LoadBegun},
    refuses=[openapi.LOAD, openapi.FETCH],
)
async def load_model(request: HttpRequest) -> HttpResponseBase:
    wanted = validate(LoadBody, parse_object(request.body))
    _refuse_not_yet(wanted)
    found = await _find(wanted)
    if wanted.wait is False:
        task = asyncio.create_task(_load_quietly(found, wanted), name=f"load {wanted.model_id}")
        _loads.add(task)
        task.add_done_callback(_loads.discard)
        return _json({"model_id": wanted.model_id, "status": "loading"}, 202)
    status = await _load(found, wanted)
    return _json(_load_answer(wanted.model_id, status))


@api.route(
    "DELETE POST",
    "/model/unload",
    scope="admin",
    operation_id="unload_model",
    summary="Unload a model and wait for its memory",
    tag="models",
    body=UnloadBody,
    optional_body=True,
    answers={200: answers.UnloadAnswer},
    refuses=[openapi.NAMED],
)
async def unload_model(request: HttpRequest, model_id: str | None = None) -> HttpResponseBase:
    name = _unload_name(request, model_id)
    before = {status.id: status.footprint_bytes for status in get_engine().models()}
    status = await get_engine().unload(name)
    freed = max(0, before.get(status.id, 0) - status.footprint_bytes)
    return _json(
        {"model_id": name, "status": status.state, "memory_freed_gb": in_gb(freed), "memory_freed_bytes": freed}
    )


@api.route(
    "GET",
    "/models/loaded",
    scope="admin",
    operation_id="list_loaded_models",
    summary="Models in memory, loading or draining",
    tag="models",
    answers={200: answers.RunningModels},
)
async def models_loaded(request: HttpRequest) -> HttpResponseBase:
    return _json({"models": [running_model(status) for status in _live()]})


@api.route(
    "GET",
    "/status",
    scope="admin",
    operation_id="get_status",
    summary="Memory, loaded models, requests in flight, speed",
    tag="server",
    answers={200: answers.Status},
)
async def status(request: HttpRequest) -> HttpResponseBase:
    engine, live = get_engine(), _live()
    word, reasons = engine.health()
    return _json(
        {
            "status": word,
            "reasons": reasons,
            "version": product_version(),
            "uptime_s": round(time.time() - services().since, 1),
            "memory": engine.memory_plan(),
            "models": [running_model(status) for status in live],
            "requests": [flying_request(record) for record in engine.in_flight()],
            "tokens_per_second": round(sum(status.stats.tokens_per_second for status in live if status.stats), 2),
        }
    )


@api.route(
    "GET",
    "/health",
    scope="admin",
    operation_id="get_health",
    summary="healthy, degraded or error, with reasons; error answers 503",
    tag="server",
    answers={200: answers.HealthAnswer, 503: answers.HealthAnswer},
)
async def health(request: HttpRequest) -> HttpResponseBase:
    word, reasons = get_engine().health()
    return _json({"status": word, "reasons": reasons}, 503 if word == "error" else 200)


@api.route(
    "GET",
    "/events",
    scope="admin",
    operation_id="stream_events",
    summary="What happens, as server-sent events, from `since` or Last-Event-ID on",
    tag="server",
    answers={200: ()},
    streams=answers.Happened,
    parameters=[
        openapi.parameter(
            "Last-Event-ID", {"type": "string", "pattern": "^[0-9]{1,18}$"}, "Wins over `since`.", place="header"
        )
    ],
)
async def events(request: HttpRequest, since: int | None = None) -> HttpResponseBase:
    return await events_response(request, since)


@api.route(
    "POST",
    "/requests/cancel",
    scope="admin",
    operation_id="cancel_request",
    summary="End a request wherever it is",
    tag="server",
    body=CancelBody,
    answers={200: answers.Cancelled},
    refuses=[openapi.NAMED],
)
async def cancel_request(request: HttpRequest) -> HttpResponseBase:
    wanted = validate(CancelBody, parse_object(request.body))
    if not get_engine().cancel(wanted.id, by=principal(request).id):
        raise NotFound(f"no request {wanted.id[:80]!r} is in flight", code="request_not_found", param="id")
    return _json({"id": wanted.id, "status": "cancelled"})


def _json(value: Any, status: int = 200) -> HttpResponseBase:
    return json_response(orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS), status)


def _live() -> list[ModelStatus]:
    return [status for status in get_engine().models() if status.state in LIVE_STATES]


def _refuse_not_yet(wanted: LoadBody) -> None:
    if wanted.quantization is not None:
        raise refuse(
            "quantization",
            "is not supported yet; name the variant in model_id (org/name:variant)",
            code="unsupported_parameter",
        )


async def _find(wanted: LoadBody) -> str | JobStatus:
    """The model's id; with ``download`` the fetch of one that is absent."""
    try:
        return catalog().resolve(wanted.model_id).id
    except ModelNotFound as error:
        if not wanted.download:
            raise
        return await begin(wanted.model_id, error)


async def _load(found: str | JobStatus, wanted: LoadBody) -> ModelStatus:
    model = found if isinstance(found, str) else await model_of(found)
    return await get_engine().load(model, context=wanted.context, slots=wanted.slots, pin=wanted.pin, ttl_s=wanted.ttl)


async def _load_quietly(found: str | JobStatus, wanted: LoadBody) -> None:
    """A load nobody waits for: how it ended is seen in the model's state, or the job's."""
    try:
        await _load(found, wanted)
    except LmxError as error:
        log.warning("loading %s failed: %s", wanted.model_id, error.message)


def _load_answer(name: str, status: ModelStatus) -> dict[str, Any]:
    return {
        "model_id": name,
        "memory_used_gb": in_gb(status.footprint_bytes),
        "status": "loaded" if status.state == "ready" else status.state,
        "memory_used_bytes": status.footprint_bytes,
        "weight_bytes": status.weight_bytes,
        "resolved_id": status.id,
        "context": status.context,
        "slots": status.slots,
        "ttl": status.ttl_s,
        "load_seconds": status.load_seconds,
    }


def _unload_name(request: HttpRequest, from_query: str | None) -> str:
    if from_query and not request.body.strip():
        return from_query
    named = validate(UnloadBody, parse_object(request.body)).model_id
    if from_query and from_query != named:
        raise InvalidRequest("model_id differs between query and body", param="model_id")
    return named
