"""The judge of ``test_openapi`` finds what it is there for: each wrong answer below is one that a server could give."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import hypothesis
import pytest
import requests
import schemathesis
from hypothesis import Phase
from schemathesis import Case, Response
from schemathesis.core.failures import FailureGroup
from urllib3 import HTTPResponse

from inference.errors import InternalError, InvalidRequest, LmxError, Unsupported, WorkerDied
from inference.protocols.errors import error_bytes, error_headers
from inference.request_id import request_id
from tests.fuzz.cases import DOCUMENTS, cases
from tests.fuzz.judge import judge

JSON, EVENTS = "application/json", "text/event-stream"
CHAT, TOKENS, LISTED = "/v1/chat/completions", "/v1/messages/count_tokens", "/v1/models"
CHUNK = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "system_fingerprint": None}


@pytest.fixture(autouse=True)
def _named() -> Iterator[None]:
    token = request_id.set("req_1")
    yield
    request_id.reset(token)


@functools.cache
def schema() -> Any:
    # As it goes over the wire: in Python its statuses are numbers.
    return schemathesis.openapi.from_dict(json.loads(json.dumps(DOCUMENTS["/v1/"].get_openapi_schema())))


def asked(path: str, method: str = "POST") -> Case:
    case: Case = schema()[path][method].Case(headers={}, media_type=JSON, body={})
    return case


def answered(case: Case, content: bytes, headers: dict[str, str] | None = None, status: int = 200) -> Response:
    answer = requests.Response()
    answer.status_code = status
    given = {"content-type": JSON, "x-request-id": "req_1", **(headers or {})}
    answer.raw = HTTPResponse(BytesIO(content), headers=given, status=status, preload_content=False)
    answer.headers.update(given)
    answer.request = requests.Request(case.method, f"http://127.0.0.1{case.path}").prepare()
    answer._content = content
    return Response.from_requests(answer, verify=True)


def refused(case: Case, error: LmxError) -> Response:
    return answered(case, error_bytes(error, case.path), error_headers(error), error.status)


def streamed(case: Case, *frames: Any, end: str = "data: [DONE]\n\n") -> Response:
    text = "".join(f"data: {json.dumps(frame)}\n\n" for frame in frames) + end
    return answered(case, text.encode(), {"content-type": EVENTS})


def test_what_is_right_is_let_pass() -> None:
    tokens, chat = asked(TOKENS), asked(CHAT)
    judge(tokens, answered(tokens, b'{"input_tokens": 1}'))
    judge(tokens, refused(tokens, InvalidRequest("no")))
    judge(tokens, refused(tokens, Unsupported("this model cannot")))
    judge(chat, streamed(chat, {**CHUNK, "choices": []}))


@pytest.mark.parametrize(
    "error", [InternalError("broken"), WorkerDied("its worker died"), LmxError("unknown")], ids=lambda one: one.code
)
def test_a_failure(error: LmxError) -> None:
    case = asked(TOKENS)
    with pytest.raises(AssertionError, match=error.code):
        judge(case, refused(case, error))


def test_a_refusal_that_the_route_does_not_tell() -> None:
    case = asked(LISTED, "GET")
    with pytest.raises((FailureGroup, AssertionError), match="Undocumented status code"):
        judge(case, refused(case, Unsupported("this model cannot")))


@pytest.mark.parametrize(
    ("content", "headers", "words"),
    [
        (b'{"input_tokens": "1"}', {}, "violates schema"),
        (b"{}", {}, "violates schema"),
        (b"<html>", {"content-type": "text/html"}, "Undocumented Content-Type"),
        (b'{"input_tokens": 1}', {"x-request-id": ""}, None),
    ],
)
def test_an_answer_of_another_shape(content: bytes, headers: dict[str, str], words: str | None) -> None:
    case = asked(TOKENS)
    response = answered(case, content, headers)
    if words is None:
        del response.headers["x-request-id"]
        words = "Missing required response headers"
    with pytest.raises((FailureGroup, AssertionError), match=words):
        judge(case, response)


def test_what_is_forbidden_and_answered() -> None:
    @hypothesis.settings(max_examples=3, deadline=None, database=None, derandomize=True, phases=[Phase.generate])
    @hypothesis.given(case=cases(schema()[TOKENS]["POST"], "breaking", {}))
    def ask(case: Case) -> None:
        with pytest.raises(FailureGroup, match="Schema-violating request accepted"):
            judge(case, answered(case, b'{"input_tokens": 1}'))

    ask()


@pytest.mark.parametrize(
    ("frames", "end", "words"),
    [
        ([{**CHUNK, "choices": [{"index": 0}]}], "data: [DONE]\n\n", "violates"),
        ([{**CHUNK, "choices": []}], "", "ends with"),
        ([{**CHUNK, "choices": []}], "data: [DONE]", "cut off"),
        ([{**CHUNK, "choices": []}], "data: {\n\ndata: [DONE]\n\n", "violates"),
    ],
)
def test_a_stream_that_is_not_well_formed(frames: list[Any], end: str, words: str) -> None:
    case = asked(CHAT)
    with pytest.raises((FailureGroup, AssertionError), match=words):
        judge(case, streamed(case, *frames, end=end))
