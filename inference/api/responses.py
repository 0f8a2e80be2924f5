"""``/v1/responses``: create, fetch, stream again, cancel, delete; what went into one; what a prompt costs in tokens."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import orjson
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase

from inference.api import answers, openapi
from inference.api.base import json_response
from inference.api.deps import catalog, principal, responses, services
from inference.api.v1 import api
from inference.engine import get_engine
from inference.errors import InvalidRequest, LmxError, NotFound
from inference.protocols.responses.background import Run, replayed
from inference.protocols.responses.calls import Asked, Parsed, asked, parsed
from inference.protocols.responses.requests import ResponsesRequest
from inference.protocols.responses.store import Stored, owner_of
from inference.protocols.responses.wording import named
from inference.protocols.serving import rename, respond
from inference.protocols.validation import refuse

MOST_ITEMS = 100
_DEFAULT_ITEMS = 20
MOST_NUMBER = 999_999_999
_STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


@api.route(
    "POST",
    "/responses",
    scope="inference",
    operation_id="create_response",
    summary="Answer, and keep the answer to go on from",
    tag="responses",
    body=ResponsesRequest,
    answers={200: answers.Response},
    streams=answers.ResponseEvent,
    refuses=[openapi.WORK, openapi.ANSWER],
)
async def create_response(request: HttpRequest) -> HttpResponseBase:
    one = asked(await _parsed(request), responses().store)
    try:
        return _begun(one) if one.background else await respond(one.call)
    finally:
        _note_model(request, one.call.record.model or one.call.model)


@api.route(
    "POST",
    "/responses/input_tokens",
    scope="inference",
    operation_id="count_response_input_tokens",
    summary="How many tokens a request's prompt has",
    tag="responses",
    body=ResponsesRequest,
    answers={200: answers.InputTokens},
    refuses=[openapi.WORK],
)
async def count_input_tokens(request: HttpRequest) -> HttpResponseBase:
    call = asked(await _parsed(request), responses().store).call
    try:
        tokens = await get_engine().count(call.model, call.request, call.record)
    except LmxError as error:
        rename(error, named)
        raise
    finally:
        _note_model(request, call.record.model or call.model)
    body = orjson.dumps({"object": "response.input_tokens", "input_tokens": tokens})
    return HttpResponse(body, content_type="application/json", headers=call.headers())


@api.route(
    "GET",
    "/responses/{response_id}",
    scope="inference",
    operation_id="retrieve_response",
    summary="A stored response, or the stream of a background one again",
    tag="responses",
    answers={200: answers.Response},
    streams=answers.ResponseEvent,
    parameters=[
        openapi.parameter("stream", {"type": "boolean"}, "Its events, from the first or from starting_after on."),
        openapi.parameter(
            "starting_after",
            {"type": "integer", "minimum": 0, "maximum": MOST_NUMBER},
            "The sequence_number of the last event that is not wanted again; only with stream.",
        ),
    ],
    refuses=[openapi.NAMED],
)
async def retrieve_response(request: HttpRequest, response_id: str) -> HttpResponseBase:
    owner = owner_of(principal(request))
    streaming, after = _flag(request, "stream"), _number(request, "starting_after", 0, None)
    if after is not None and not streaming:
        raise refuse("starting_after", "is only allowed when stream is true")
    run = responses().running(response_id, owner)
    if run is not None:
        return _followed(run, after) if streaming else json_response(orjson.dumps(run.asked.wording.response))
    entry = await _stored(response_id, owner)
    if not streaming:
        return json_response(orjson.dumps(entry.whole()))
    return _streamed(replayed(entry, -1 if after is None else after))


@api.route(
    "DELETE",
    "/responses/{response_id}",
    scope="inference",
    operation_id="delete_response",
    summary="Forget a response; one that runs is ended",
    tag="responses",
    answers={200: answers.DeletedResponse},
    refuses=[openapi.NAMED],
)
async def delete_response(request: HttpRequest, response_id: str) -> HttpResponseBase:
    owner = owner_of(principal(request))
    run = responses().running(response_id, owner)
    if run is not None:
        await run.cancel()
    if not await responses().store.delete(response_id, owner):
        raise _missing(response_id)
    return json_response(orjson.dumps({"id": response_id, "object": "response", "deleted": True}))


@api.route(
    "POST",
    "/responses/{response_id}/cancel",
    scope="inference",
    operation_id="cancel_response",
    summary="End a background response",
    tag="responses",
    answers={200: answers.Response},
    refuses=[openapi.NAMED],
)
async def cancel_response(request: HttpRequest, response_id: str) -> HttpResponseBase:
    owner = owner_of(principal(request))
    run = responses().running(response_id, owner)
    if run is not None:
        await run.cancel()
        return json_response(orjson.dumps(run.asked.wording.response))
    entry = await _stored(response_id, owner)
    response = entry.whole()
    if not response["background"]:
        raise InvalidRequest("only a response that was created with background: true can be cancelled")
    return json_response(orjson.dumps(response))


@api.route(
    "GET",
    "/responses/{response_id}/input_items",
    scope="inference",
    operation_id="list_response_input_items",
    summary="What went into a response",
    tag="responses",
    answers={200: answers.ItemList},
    parameters=[
        openapi.parameter("limit", {"type": "integer", "minimum": 1, "maximum": MOST_ITEMS, "default": _DEFAULT_ITEMS}),
        openapi.parameter("order", {"type": "string", "enum": ["asc", "desc"], "default": "desc"}),
        openapi.parameter("after", {"type": "string"}, "The id of the last item that is not wanted again."),
    ],
    refuses=[openapi.NAMED],
)
async def list_input_items(request: HttpRequest, response_id: str) -> HttpResponseBase:
    limit = _number(request, "limit", 1, MOST_ITEMS)
    order = request.GET.get("order", "desc")
    if order not in ("asc", "desc"):
        raise refuse("order", "must be 'asc' or 'desc'")
    entry = await _stored(response_id, owner_of(principal(request)))
    items: list[dict[str, Any]] = orjson.loads(entry.inputs)
    if order == "desc":
        items.reverse()
    page = _after(items, request.GET.get("after"))
    shown = page[: limit or _DEFAULT_ITEMS]
    return json_response(
        orjson.dumps(
            {
                "object": "list",
                "data": shown,
                "first_id": shown[0]["id"] if shown else "",
                "last_id": shown[-1]["id"] if shown else "",
                "has_more": len(page) > len(shown),
            }
        )
    )


async def _parsed(request: HttpRequest) -> Parsed:
    return await parsed(request.body, principal(request), responses().store, strict=services().strict)


def _begun(one: Asked) -> HttpResponseBase:
    """A background response: the object as it is queued, or its events from the first on."""
    call, response = one.call, one.wording.response
    response["model"] = response["model"] or catalog().resolve(call.model).id
    catalog().resolve(call.model)  # what nobody can answer is refused now, not found to have failed later
    run = responses().begin(one)
    if one.parsed.params.stream:
        return _followed(run, None, call.headers())
    return HttpResponse(orjson.dumps(response), content_type="application/json", headers=call.headers())


def _followed(run: Run, after: int | None, headers: dict[str, str] | None = None) -> StreamingHttpResponse:
    return _streamed(run.follow(-1 if after is None else after), headers)


def _streamed(frames: AsyncGenerator[bytes, None], headers: dict[str, str] | None = None) -> StreamingHttpResponse:
    return StreamingHttpResponse(
        _guarded(frames), content_type="text/event-stream", headers={**_STREAM_HEADERS, **(headers or {})}
    )


async def _guarded(frames: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    """Closes the reader with the response; the response that it reads runs on."""
    try:
        async for chunk in frames:
            yield chunk
    finally:
        await frames.aclose()


async def _stored(response_id: str, owner: str) -> Stored:
    entry = await responses().store.get(response_id, owner)
    if entry is None:
        raise _missing(response_id)
    return entry


def _missing(response_id: str) -> NotFound:
    return NotFound(f"Response with id {response_id[:80]!r} not found", code="response_not_found")


def _after(items: list[dict[str, Any]], item_id: str | None) -> list[dict[str, Any]]:
    if not item_id:
        return items
    for position, item in enumerate(items):
        if item["id"] == item_id:
            return items[position + 1 :]
    raise refuse("after", f"is {item_id[:80]!r}, which is no item of this response")


def _flag(request: HttpRequest, name: str) -> bool:
    value = request.GET.get(name, "false").lower()
    if value not in ("true", "false", "1", "0"):
        raise refuse(name, "must be true or false")
    return value in ("true", "1")


def _number(request: HttpRequest, name: str, least: int, most: int | None) -> int | None:
    text = request.GET.get(name)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise refuse(name, f"must be an integer of at least {least}")
    value = int(text)
    if value < least or (most is not None and value > most):
        raise refuse(name, f"must be between {least} and {most}, not {value}" if most else f"must be at least {least}")
    return value


def _note_model(request: HttpRequest, model: str) -> None:
    scope = getattr(request, "scope", None)
    if scope is not None:
        scope["lmx.model"] = model  # for the access line
