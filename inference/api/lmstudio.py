"""``/api/v1`` and ``/api/v0``: LM Studio's own API; what of it is not spoken here says what to use instead.

Loading needs no more than the inference scope, as a request to a model that is not loaded loads it too; unloading and
downloading need the admin scope.
"""

from __future__ import annotations

from typing import Any

import orjson
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.views.decorators.csrf import csrf_exempt

from inference.api import lmstudio_answers as answers
from inference.api import openapi
from inference.api.answers import ChatChunk, EmbeddingAnswer, TextChunk
from inference.api.base import JsonApi, json_response
from inference.api.deps import catalog, fetcher, principal, product_version, services
from inference.api.describe import LIVE_STATES
from inference.engine import get_engine
from inference.engine.contract import ModelStatus
from inference.errors import LmxError, NotFound, Unsupported
from inference.protocols.errors import error_response
from inference.protocols.jsonbody import parse_object
from inference.protocols.lmstudio import downloads
from inference.protocols.lmstudio.models import is_loaded, listed_v0, listed_v1, load_config
from inference.protocols.lmstudio.requests import (
    LOAD_NO_EFFECT,
    LOAD_REFUSED,
    InstanceLoad,
    InstanceUnload,
    ModelDownload,
)
from inference.protocols.lmstudio.stats import StatsWording
from inference.protocols.openai import chat_call, completion_call
from inference.protocols.openai.embeddings import EmbeddingRequest, embedding_call
from inference.protocols.openai.params import ignored
from inference.protocols.openai.requests import ChatRequest, CompletionRequest
from inference.protocols.serving import Call, ignored_header, respond
from inference.protocols.validation import validate
from inference.records import RequestRecord

api = JsonApi(
    prefix="/api/",
    title="Opta-LMX, LM Studio's API",
    description="What clients of LM Studio ask for beside OpenAI's routes.",
)

_MOST_JOBS = 1000
_INSTEAD = (
    "LM Studio's SDKs speak a websocket protocol that this server does not have; point an OpenAI client at /v1, "
    "or use LM Studio's REST routes under /api/v1/models and /api/v0"
)


@api.route(
    "GET",
    "/v1/models",
    scope="inference",
    operation_id="lms_list",
    summary="Models and their instances",
    tag="lmstudio",
    answers={200: answers.ListV1},
)
async def list_v1(request: HttpRequest) -> HttpResponseBase:
    states = _states()
    return _json({"models": [listed_v1(ref, states.get(ref.id)) for ref in catalog().all() if ref.problem is None]})


@api.route(
    "POST",
    "/v1/models/load",
    scope="inference",
    operation_id="lms_load",
    summary="Load a model, if it is not loaded with enough context",
    tag="lmstudio",
    body=InstanceLoad,
    answers={200: answers.LoadedInstance},
    refuses=[openapi.LOAD],
)
async def load(request: HttpRequest) -> HttpResponseBase:
    wanted = validate(InstanceLoad, parse_object(request.body))
    unknown = ignored(wanted, strict=services().strict, refused=LOAD_REFUSED, no_effect=LOAD_NO_EFFECT)
    ref = catalog().resolve(wanted.model)
    before = _states().get(ref.id)
    enough = before is not None and is_loaded(before) and before.context >= (wanted.context_length or 0)
    context = None if enough else wanted.context_length
    status = await get_engine().load(ref.id, context=context, slots=None, pin=None, ttl_s=wanted.ttl)
    told: dict[str, Any] = {
        "type": "embedding" if ref.kind == "embeddings" else "llm",
        "instance_id": ref.id,
        "load_time_seconds": 0.0 if enough else status.load_seconds or 0.0,
        "status": "loaded",
    }
    if wanted.echo_load_config:
        told["load_config"] = load_config(ref, status.context)
    return json_response(orjson.dumps(told), headers=ignored_header(unknown))


@api.route(
    "POST",
    "/v1/models/unload",
    scope="admin",
    operation_id="lms_unload",
    summary="Unload an instance and wait for its memory",
    tag="lmstudio",
    body=InstanceUnload,
    answers={200: answers.UnloadedInstance},
    refuses=[openapi.NAMED],
)
async def unload(request: HttpRequest) -> HttpResponseBase:
    wanted = validate(InstanceUnload, parse_object(request.body))
    unknown = ignored(wanted, strict=services().strict, refused={}, no_effect=())
    ref = catalog().resolve(wanted.instance_id)
    status = _states().get(ref.id)
    if status is None or status.state not in LIVE_STATES:
        raise NotFound(f"{ref.id} is not loaded", code="model_not_loaded", param="instance_id")
    await get_engine().unload(ref.id)
    return json_response(orjson.dumps({"instance_id": wanted.instance_id}), headers=ignored_header(unknown))


@api.route(
    "POST",
    "/v1/models/download",
    scope="admin",
    operation_id="lms_download",
    summary="Fetch a model from the Hub",
    tag="lmstudio",
    body=ModelDownload,
    answers={200: answers.Download},
    refuses=[openapi.FETCH],
)
async def download(request: HttpRequest) -> HttpResponseBase:
    wanted = validate(ModelDownload, parse_object(request.body))
    unknown = ignored(wanted, strict=services().strict, refused={}, no_effect=())
    try:
        job = await fetcher().start(wanted.model, None, wanted.quantization)
    except LmxError as error:
        raise downloads.refusal(error) from None
    return json_response(orjson.dumps(downloads.started(job)), headers=ignored_header(unknown))


@api.route(
    "GET",
    "/v1/models/download/status",
    scope="admin",
    operation_id="lms_downloads",
    summary="All downloads by their state",
    tag="lmstudio",
    answers={200: answers.Downloads},
)
async def download_list(request: HttpRequest) -> HttpResponseBase:
    jobs = await fetcher().jobs(_MOST_JOBS)
    return _json(downloads.by_state([job for job in jobs if job.kind == "fetch"]))


@api.route(
    "GET",
    "/v1/models/download/status/{job_id}",
    scope="admin",
    operation_id="lms_download_status",
    summary="One download",
    tag="lmstudio",
    answers={200: answers.DownloadJob},
    refuses=[openapi.NAMED],
)
async def download_status(request: HttpRequest, job_id: str) -> HttpResponseBase:
    job = await fetcher().status(downloads.job_number(job_id))
    if job.kind != "fetch":
        raise downloads.no_such(job_id)
    return _json(downloads.download(job))


@api.route(
    "POST",
    "/v1/chat",
    scope="inference",
    operation_id="lms_chat",
    summary="Not spoken here: 501",
    tag="lmstudio",
    refuses=[openapi.NOT_SPOKEN],
)
async def chat_v1(request: HttpRequest) -> HttpResponseBase:
    raise Unsupported(
        "/api/v1/chat is not spoken here; use POST /v1/responses, which keeps conversations by previous_response_id, "
        "POST /v1/chat/completions or POST /api/v0/chat/completions"
    )


@api.route(
    "GET",
    "/v0/models",
    scope="inference",
    operation_id="lms_list_v0",
    summary="Models and states",
    tag="lmstudio",
    answers={200: answers.ListV0},
)
async def list_v0(request: HttpRequest) -> HttpResponseBase:
    states = _states()
    data = [listed_v0(ref, states.get(ref.id)) for ref in catalog().all() if ref.problem is None]
    return _json({"object": "list", "data": data})


@api.route(
    "GET",
    "/v0/models/{path:model_id}",
    scope="inference",
    operation_id="lms_model_v0",
    summary="One model by name or alias",
    tag="lmstudio",
    answers={200: answers.ModelV0},
    refuses=[openapi.NAMED],
)
async def model_v0(request: HttpRequest, model_id: str) -> HttpResponseBase:
    name = model_id.rstrip("/")
    ref = catalog().resolve(name)
    return _json(listed_v0(ref, _states().get(ref.id), name))


@api.route(
    "POST",
    "/v0/chat/completions",
    scope="inference",
    operation_id="lms_chat_v0",
    summary="OpenAI's chat completions with statistics",
    tag="lmstudio",
    body=ChatRequest,
    answers={200: answers.ChatAnswerV0},
    streams=ChatChunk,
    refuses=[openapi.WORK, openapi.ANSWER],
)
async def chat_v0(request: HttpRequest) -> HttpResponseBase:
    path = "/api/v0/chat/completions"
    return await _serve(request, chat_call(request.body, principal(request), endpoint=path, strict=services().strict))


@api.route(
    "POST",
    "/v0/completions",
    scope="inference",
    operation_id="lms_completion_v0",
    summary="OpenAI's text completions with statistics",
    tag="lmstudio",
    body=CompletionRequest,
    answers={200: answers.TextAnswerV0},
    streams=TextChunk,
    refuses=[openapi.WORK, openapi.ANSWER],
)
async def completions_v0(request: HttpRequest) -> HttpResponseBase:
    call = completion_call(request.body, principal(request), endpoint="/api/v0/completions", strict=services().strict)
    return await _serve(request, call)


@api.route(
    "POST",
    "/v0/embeddings",
    scope="inference",
    operation_id="lms_embeddings_v0",
    summary="Vectors of texts",
    tag="lmstudio",
    body=EmbeddingRequest,
    answers={200: EmbeddingAnswer},
    refuses=[openapi.WORK],
)
async def embeddings_v0(request: HttpRequest) -> HttpResponseBase:
    path = "/api/v0/embeddings"
    call = embedding_call(request.body, principal(request), endpoint=path, strict=services().strict)
    try:
        return json_response(await call.answer(), headers=ignored_header(call.ignored))
    finally:
        _note_model(request, call.record)


@csrf_exempt
async def sdk(request: HttpRequest) -> HttpResponse:
    """Where LM Studio's SDKs look for their websockets: what to use instead."""
    return error_response(Unsupported(_INSTEAD), request.path_info)


async def _serve(request: HttpRequest, call: Call) -> HttpResponseBase:
    call.record.protocol = "lmstudio"
    call.wording = StatsWording(call.wording, call.request.n, _about)
    try:
        return await respond(call)
    finally:
        _note_model(request, call.record)


def _about(model: str) -> dict[str, Any]:
    """``model_info`` and ``runtime`` of a model that has just answered, and may have left the disk since."""
    ref = next((one for one in catalog().all() if one.id == model), None)
    status = _states().get(model)
    context = (status.context if status else 0) or (ref.context_length if ref else 0)
    return {
        "model_info": {
            "arch": ref.architecture if ref else None,
            "quant": ref.quantization if ref else None,
            "format": ref.format if ref else None,
            "context_length": context,
        },
        "runtime": {"name": "opta-lmx", "version": product_version(), "supported_formats": ["mlx"]},
    }


def _states() -> dict[str, ModelStatus]:
    return {status.id: status for status in get_engine().models()}


def _json(value: Any) -> HttpResponseBase:
    return json_response(orjson.dumps(value))


def _note_model(request: HttpRequest, record: RequestRecord) -> None:
    """Tell the access line which model it was, whatever became of the request."""
    scope = getattr(request, "scope", None)
    if scope is not None:
        scope["lmx.model"] = record.model or record.model_asked
