"""From a request's bytes to a ``Call`` ready to be served."""

from __future__ import annotations

import secrets

from inference.ipc import GenerateRequest
from inference.principal import Principal
from inference.protocols.jsonbody import parse_object
from inference.protocols.openai.chat_wording import ChatWording
from inference.protocols.openai.completion_wording import CompletionWording
from inference.protocols.openai.params import CommonParams, ignored
from inference.protocols.openai.requests import (
    ChatRequest,
    CompletionRequest,
    chat_request,
    completion_request,
)
from inference.protocols.serving import Call
from inference.protocols.validation import validate
from inference.records import RequestRecord

CHAT_PATH = "/v1/chat/completions"
COMPLETION_PATH = "/v1/completions"


def chat_call(body: bytes, principal: Principal, *, endpoint: str = CHAT_PATH, strict: bool = False) -> Call:
    """A chat completion. ``InvalidRequest`` names the parameter at fault; ``strict`` refuses unknown ones."""
    params = validate(ChatRequest, parse_object(body))
    unknown = ignored(params, strict=strict)
    request = chat_request(params)
    record = _record("chatcmpl-", params, principal, endpoint)
    wording = ChatWording(
        record.id,
        record.model_asked,
        request.n,
        include_usage=_include_usage(params),
        logprobs=bool(params.logprobs),
        path=endpoint,
    )
    return _call(params, request, record, wording, unknown)


def completion_call(
    body: bytes, principal: Principal, *, endpoint: str = COMPLETION_PATH, strict: bool = False
) -> Call:
    """A text completion. ``InvalidRequest`` names the parameter at fault; ``strict`` refuses unknown ones."""
    params = validate(CompletionRequest, parse_object(body))
    unknown = ignored(params, strict=strict)
    request = completion_request(params)
    record = _record("cmpl-", params, principal, endpoint)
    wording = CompletionWording(
        record.id,
        record.model_asked,
        request.n,
        include_usage=_include_usage(params),
        logprobs=params.logprobs is not None,
        path=endpoint,
    )
    return _call(params, request, record, wording, unknown)


def _record(prefix: str, params: CommonParams, principal: Principal, endpoint: str) -> RequestRecord:
    return RequestRecord(
        id=prefix + secrets.token_hex(12),
        protocol="openai",
        endpoint=endpoint,
        principal=principal,
        model_asked=params.model or "",
        stream=bool(params.stream),
    )


def _include_usage(params: CommonParams) -> bool:
    return params.stream_options is not None and bool(params.stream_options.include_usage)


def _call(
    params: CommonParams,
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
    )
