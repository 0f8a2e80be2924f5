"""``/v1/messages``: Anthropic's Messages and token counts; ``/v1/models`` for those that send ``anthropic-version``."""

from __future__ import annotations

from typing import Any

import orjson
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from inference.api import answers, openapi
from inference.api.base import json_response
from inference.api.deps import catalog, principal, services
from inference.api.v1 import ModelsShape, api, models_shape
from inference.errors import LmxError
from inference.protocols.anthropic import count_call, message_call
from inference.protocols.anthropic.models import model_info, model_page
from inference.protocols.anthropic.requests import CountRequest, MessageRequest
from inference.protocols.anthropic.wording import renamed
from inference.protocols.serving import ignored_header, respond
from inference.records import RequestRecord


@api.route(
    "POST",
    "/messages",
    scope="inference",
    operation_id="create_message",
    summary="Answer a conversation, as Anthropic's clients ask for it",
    tag="anthropic",
    body=MessageRequest,
    answers={200: answers.Message},
    streams=answers.MessageEvent,
    refuses=[openapi.WORK, openapi.ANSWER],
    errors=("AnthropicError",),
)
async def create_message(request: HttpRequest) -> HttpResponseBase:
    call = message_call(request.body, principal(request), strict=services().strict)
    try:
        return await respond(call)
    except LmxError as error:
        raise renamed(error) from None
    finally:
        _note_model(request, call.record)


@api.route(
    "POST",
    "/messages/count_tokens",
    scope="inference",
    operation_id="count_message_tokens",
    summary="How many tokens the prompt of a message has",
    tag="anthropic",
    body=CountRequest,
    answers={200: answers.MessageTokens},
    refuses=[openapi.WORK],
    errors=("AnthropicError",),
)
async def count_tokens(request: HttpRequest) -> HttpResponseBase:
    call = count_call(request.body, principal(request), strict=services().strict)
    try:
        return json_response(await call.answer(), headers=ignored_header(call.ignored))
    except LmxError as error:
        raise renamed(error) from None
    finally:
        _note_model(request, call.record)


def _listed(request: HttpRequest, models: list[dict[str, Any]]) -> HttpResponseBase:
    return json_response(orjson.dumps(model_page(catalog().all(), request.GET.dict())))


def _single(request: HttpRequest, model: dict[str, Any]) -> HttpResponseBase:
    return json_response(orjson.dumps(model_info(catalog().resolve(model["root"]), model["id"])))


models_shape("anthropic-version", ModelsShape(_listed, _single))


def _note_model(request: HttpRequest, record: RequestRecord) -> None:
    """Tell the access line which model it was, whatever became of the request."""
    scope = getattr(request, "scope", None)
    if scope is not None:
        scope["lmx.model"] = record.model or record.model_asked
