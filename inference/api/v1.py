"""``/v1``: chat and text completions, embeddings, tokens, models, as OpenAI's and vLLM's clients ask for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import orjson
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from inference.api import answers, openapi
from inference.api.base import JsonApi, json_response
from inference.api.deps import catalog, principal, services
from inference.api.describe import model_object
from inference.engine import get_engine
from inference.engine.contract import ModelStatus
from inference.principal import Principal
from inference.protocols.openai import chat_call, completion_call
from inference.protocols.openai.embeddings import EmbeddingRequest, embedding_call
from inference.protocols.openai.requests import ChatRequest, CompletionRequest
from inference.protocols.openai.tokens import (
    DetokenizeRequest,
    TokenCall,
    TokenizeRequest,
    detokenize_call,
    tokenize_call,
)
from inference.protocols.serving import Call, ignored_header, respond
from inference.records import RequestRecord

api = JsonApi(
    prefix="/v1/",
    title="Opta-LMX inference API",
    description="OpenAI-compatible inference on the models of this machine.",
)

ANTHROPIC_VERSION = openapi.parameter(
    "anthropic-version", {"type": "string"}, "With it the answer has Anthropic's shape.", place="header"
)


@api.route(
    "POST",
    "/chat/completions",
    scope="inference",
    operation_id="create_chat_completion",
    summary="Answer a conversation",
    tag="inference",
    body=ChatRequest,
    answers={200: answers.ChatAnswer},
    streams=answers.ChatChunk,
    refuses=[openapi.WORK, openapi.ANSWER],
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
    answers={200: answers.TextAnswer},
    streams=answers.TextChunk,
    refuses=[openapi.WORK, openapi.ANSWER],
)
async def completions(request: HttpRequest) -> HttpResponseBase:
    return await _serve(request, completion_call)


@api.route(
    "POST",
    "/embeddings",
    scope="inference",
    operation_id="create_embedding",
    summary="Vectors of texts",
    tag="inference",
    body=EmbeddingRequest,
    answers={200: answers.EmbeddingAnswer},
    refuses=[openapi.WORK],
)
async def embeddings(request: HttpRequest) -> HttpResponseBase:
    call = embedding_call(request.body, principal(request), strict=services().strict)
    with _noted(request, call.record):
        return json_response(await call.answer(), headers=ignored_header(call.ignored))


@api.route(
    "POST",
    "/tokenize",
    scope="inference",
    operation_id="tokenize",
    summary="Tokens of a text or a conversation",
    tag="inference",
    body=TokenizeRequest,
    answers={200: answers.TokenizeAnswer},
    refuses=[openapi.WORK],
)
async def tokenize(request: HttpRequest) -> HttpResponseBase:
    return await _tokens(request, tokenize_call)


@api.route(
    "POST",
    "/detokenize",
    scope="inference",
    operation_id="detokenize",
    summary="Text of tokens",
    tag="inference",
    body=DetokenizeRequest,
    answers={200: answers.DetokenizeAnswer},
    refuses=[openapi.WORK],
)
async def detokenize(request: HttpRequest) -> HttpResponseBase:
    return await _tokens(request, detokenize_call)


@api.route(
    "GET",
    "/models",
    scope="inference",
    operation_id="list_models",
    summary="Models to choose from",
    tag="models",
    answers={200: (answers.ModelList, answers.ModelPage)},
    parameters=[
        ANTHROPIC_VERSION,
        openapi.parameter("limit", {"type": "integer", "minimum": 1, "maximum": 1000}, "Of Anthropic's pages: 20."),
        openapi.parameter("after_id", {"type": "string"}, "Anthropic's pages go on after this model."),
        openapi.parameter("before_id", {"type": "string"}, "Anthropic's pages end before this model."),
    ],
    errors=("Error", "AnthropicError"),
)
async def list_models(request: HttpRequest) -> HttpResponseBase:
    states = _states()
    listed = [(ref, states.get(ref.id)) for ref in catalog().all()]
    data = [model_object(ref, status) for ref, status in listed if ref.problem is None or _is_loaded(status)]
    if (shape := _shape(request)) is not None:
        return shape.listed(request, data)
    return json_response(orjson.dumps({"object": "list", "data": data}))


def _is_loaded(status: ModelStatus | None) -> bool:
    return status is not None and status.state == "ready"


@api.route(
    "GET",
    "/models/{path:model_id}",
    scope="inference",
    operation_id="retrieve_model",
    summary="One model by name or alias",
    tag="models",
    answers={200: (answers.Model, answers.ModelInfo)},
    parameters=[ANTHROPIC_VERSION],
    refuses=[openapi.NAMED],
    errors=("Error", "AnthropicError"),
)
async def retrieve_model(request: HttpRequest, model_id: str) -> HttpResponseBase:
    name = model_id.rstrip("/")
    ref = catalog().resolve(name)
    found = model_object(ref, _states().get(ref.id), name)
    if (shape := _shape(request)) is not None:
        return shape.single(request, found)
    return json_response(orjson.dumps(found))


@dataclass(frozen=True, slots=True)
class ModelsShape:
    """How another protocol words ``/v1/models``: from ``model_object``'s dictionaries."""

    listed: Callable[[HttpRequest, list[dict[str, Any]]], HttpResponseBase]
    single: Callable[[HttpRequest, dict[str, Any]], HttpResponseBase]


_shapes: dict[str, ModelsShape] = {}


def models_shape(header: str, shape: ModelsShape) -> None:
    """Word the models by ``shape`` for requests that have ``header``."""
    _shapes[header] = shape


def _shape(request: HttpRequest) -> ModelsShape | None:
    return next((shape for header, shape in _shapes.items() if header in request.headers), None)


async def _serve(request: HttpRequest, parse: Callable[..., Call]) -> HttpResponseBase:
    asker: Principal = principal(request)
    call = parse(request.body, asker, strict=services().strict)
    with _noted(request, call.record):
        return await respond(call)


async def _tokens(request: HttpRequest, parse: Callable[..., TokenCall]) -> HttpResponseBase:
    call = parse(request.body, principal(request), strict=services().strict)
    with _noted(request, call.record):
        return json_response(await call.answer(_context_of), headers=ignored_header(call.ignored))


@contextmanager
def _noted(request: HttpRequest, record: RequestRecord) -> Iterator[None]:
    """Tell the access line which model it was, whatever becomes of the request."""
    try:
        yield
    finally:
        scope = getattr(request, "scope", None)
        if scope is not None:
            scope["lmx.model"] = record.model or record.model_asked


def _context_of(model_id: str) -> int:
    """The most tokens that the model takes as it is loaded, else as it could be."""
    status = _states().get(model_id)
    return status.context if status and status.context else catalog().resolve(model_id).context_length


def _states() -> dict[str, ModelStatus]:
    return {status.id: status for status in get_engine().models()}
