"""From a request's bytes to a ``Call`` ready to be served."""

from __future__ import annotations

from functools import partial

from msgspec import structs

from inference.ipc import GenerateRequest
from inference.principal import Principal
from inference.protocols.jsonbody import parse_object
from inference.protocols.openai.batch import BatchGeneration
from inference.protocols.openai.chat_wording import ChatWording
from inference.protocols.openai.completion_wording import CompletionWording
from inference.protocols.openai.naming import client_name
from inference.protocols.openai.params import CommonParams, StreamOptions, ignored
from inference.protocols.openai.parts import BestPart, Part
from inference.protocols.openai.reasoning import thoughts
from inference.protocols.openai.requests import (
    ChatRequest,
    CompletionRequest,
    chat_request,
    completion_requests,
)
from inference.protocols.owner import settings_for, with_defaults
from inference.protocols.serving import Call
from inference.protocols.validation import validate
from inference.records import RequestRecord, new_record

CHAT_PATH = "/v1/chat/completions"
COMPLETION_PATH = "/v1/completions"


def chat_call(body: bytes, principal: Principal, *, endpoint: str = CHAT_PATH, strict: bool = False) -> Call:
    """A chat completion. ``InvalidRequest`` names the parameter at fault; ``strict`` refuses unknown ones."""
    params = validate(ChatRequest, parse_object(body))
    unknown = ignored(params, strict=strict)
    request = with_defaults(chat_request(params), params, settings_for(params.model))
    record = new_record("openai", "chatcmpl-", params.model, principal, endpoint, stream=bool(params.stream))
    options = _stream_options(params)
    wording = ChatWording(
        record.id,
        record.model_asked,
        request.n,
        include_usage=bool(options.include_usage),
        continuous=_is_continuous(options),
        logprobs=bool(params.logprobs),
        reasoning=thoughts(params).shown,
        legacy=bool(params.functions),
        path=endpoint,
    )
    return _call(params, request, record, wording, unknown)


def completion_call(
    body: bytes, principal: Principal, *, endpoint: str = COMPLETION_PATH, strict: bool = False
) -> Call:
    """A text completion. ``InvalidRequest`` names the parameter at fault; ``strict`` refuses unknown ones."""
    params = validate(CompletionRequest, parse_object(body))
    unknown = ignored(params, strict=strict)
    settings = settings_for(params.model)
    requests = [with_defaults(request, params, settings) for request in completion_requests(params)]
    record = new_record("openai", "cmpl-", params.model, principal, endpoint, stream=bool(params.stream))
    options, n = _stream_options(params), params.n or 1
    wording = CompletionWording(
        record.id,
        record.model_asked,
        n * len(requests),
        include_usage=bool(options.include_usage),
        continuous=_is_continuous(options),
        logprobs=params.logprobs is not None,
        path=endpoint,
    )
    first = requests[0]
    call = _call(params, structs.replace(first, n=n * len(requests)), record, wording, unknown)
    if len(requests) > 1 or first.n > n or first.max_tokens == 0 or first.prompt_logprobs is not None:
        parts = _parts(requests, n, shown=params.logprobs is not None)
        choices = n * len(requests)
        shown = partial(client_name, params)
        call.source = lambda: BatchGeneration(call.model, requests, parts, choices, record, params.ttl, shown)
    return call


def _parts(requests: list[GenerateRequest], n: int, *, shown: bool) -> list[Part]:
    """How the requests' choices are numbered: those of one prompt follow each other."""
    return [
        BestPart(request, n * at, n, shown=shown) if request.n > n else Part(request, n * at)
        for at, request in enumerate(requests)
    ]


def _stream_options(params: CommonParams) -> StreamOptions:
    return params.stream_options or StreamOptions()


def _is_continuous(options: StreamOptions) -> bool:
    return bool(options.include_usage and options.continuous_usage_stats)


def _call(
    params: ChatRequest | CompletionRequest,
    request: GenerateRequest,
    record: RequestRecord,
    wording: ChatWording | CompletionWording,
    unknown: list[str],
) -> Call:
    return Call(
        model=record.model_asked,
        request=request,
        record=record,
        wording=wording,
        stream=record.stream,
        ignored=unknown,
        ttl_s=params.ttl,
        named=partial(client_name, params),
    )
