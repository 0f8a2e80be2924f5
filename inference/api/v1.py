"""``/v1``: chat completions, text completions, models, as OpenAI's clients ask for them."""

from __future__ import annotations

from collections.abc import Callable

import orjson
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from inference.api.base import JsonApi, json_response
from inference.api.deps import catalog, principal, services
from inference.api.describe import model_object
from inference.engine import get_engine
from inference.engine.contract import ModelStatus
from inference.principal import Principal
from inference.protocols.openai import chat_call, completion_call
from inference.protocols.openai.requests import ChatRequest, CompletionRequest
from inference.protocols.serving import Call, respond

api = JsonApi(
    prefix="/v1/",
    title="Opta-LMX inference API",
    description="OpenAI-compatible inference on the models of this machine.",
)


@api.route(
    "POST",
    "/chat/completions",
    scope="inference",
    operation_id="create_chat_completion",
    summary="Answer a conversation",
    tag="inference",
    body=ChatRequest,
    streams=True,
)
async def chat_completions(request: HttpRequest) -> HttpResponseBase:
    return await _serve(request, chat_call)


@api.route(
    "POST",
    "/completions",
    scope="inference",
    operation_id="create_completion",
    summary="Continue a text",
    tag="inference",
    body=CompletionRequest,
    streams=True,
)
async def completions(request: HttpRequest) -> HttpResponseBase:
    return await _serve(request, completion_call)


@api.route(
    "GET", "/models", scope="inference", operation_id="list_models", summary="Models to choose from", tag="models"
)
async def list_models(request: HttpRequest) -> HttpResponseBase:
    states = _states()
    data = [model_object(ref, states.get(ref.id)) for ref in catalog().all() if ref.problem is None]
    return json_response(orjson.dumps({"object": "list", "data": data}))


@api.route(
    "GET",
    "/models/{path:model_id}",
    scope="inference",
    operation_id="retrieve_model",
    summary="One model by name or alias",
    tag="models",
)
async def retrieve_model(request: HttpRequest, model_id: str) -> HttpResponseBase:
    name = model_id.rstrip("/")
    ref = catalog().resolve(name)
    return json_response(orjson.dumps(model_object(ref, _states().get(ref.id), name)))


async def _serve(request: HttpRequest, parse: Callable[..., Call]) -> HttpResponseBase:
    asker: Principal = principal(request)
    call = parse(request.body, asker, strict=services().strict)
    try:
        return await respond(call)
    finally:
        scope = getattr(request, "scope", None)
        if scope is not None:
            scope["lmx.model"] = call.record.model or call.model  # for the access line


def _states() -> dict[str, ModelStatus]:
    return {status.id: status for status in get_engine().models()}
