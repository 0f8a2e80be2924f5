"""How a request is sent and its answer judged.

Judged are: that it ends in time, streams included; no status from 500 on but those by design; status, content type,
headers and JSON as the document of the route has them; that what the document forbids is refused; events of a stream
well-formed and ended as the protocol ends.
"""

from __future__ import annotations

import json
import time
from typing import Any

import requests
from schemathesis import Case, Response
from schemathesis.checks import CheckFunction
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

LIMIT_S = 60.0
"""No answer here takes a tenth of it: what is not whole by then hangs."""

CHECKS: list[CheckFunction] = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
# Its query is for those that speak Anthropic's protocol; to others it means nothing.
LENIENT = {"/v1/models"}
BY_DESIGN = {
    501: {"unsupported"},
    503: {"hub_unreachable", "hub_error"},
    507: {"insufficient_memory", "insufficient_storage"},
}
"""What a request may be refused for on a server that is well; a worker that died is a defect."""

ENDLESS = "/admin/events"
_LAST = (
    "data: [DONE]",
    "event: message_stop",
    "event: error",
    "event: response.completed",
    "event: response.incomplete",
    "event: response.failed",
)


def send(case: Case, base_url: str, session: requests.Session) -> Response:
    """The whole answer; of the one stream without an end its first bytes. ``AssertionError`` when it takes too long."""
    deadline = time.monotonic() + LIMIT_S
    told = case.as_transport_kwargs(base_url)
    with session.request(**told, stream=True, timeout=LIMIT_S, allow_redirects=False) as answer:
        content = bytearray()
        endless = case.path == ENDLESS and answer.status_code == 200
        for chunk in answer.iter_content(None):
            content += chunk
            assert time.monotonic() < deadline, f"{told['method']} {told['url']} is not done after {LIMIT_S:.0f} s"
            if endless and (b"\ndata: " in content or not _from_a_number(answer.request)):
                break
        answer._content = bytes(content)
        return Response.from_requests(answer, verify=True)


def _from_a_number(request: requests.PreparedRequest) -> bool:
    """Whether events are asked for from a number on: then a load of a model at least is told, else only what comes."""
    return "since=" in (request.url or "") or "Last-Event-ID" in request.headers


def judge(case: Case, response: Response) -> None:
    """Raise for whatever is wrong with that answer."""
    if response.status_code >= 500:
        _check_refusal(case, response)
    case.validate_response(response, checks=CHECKS if case.path in LENIENT else [*CHECKS, negative_data_rejection])
    [kind] = response.headers["content-type"]
    if kind.startswith("text/event-stream"):
        _check_stream(case, response.content.decode())


def _check_refusal(case: Case, response: Response) -> None:
    code = _code(response)
    by_design = code in BY_DESIGN.get(response.status_code, ())
    in_a_hurry = response.status_code == 504 and code == "timeout" and "X-Timeout" in case.headers
    assert by_design or in_a_hurry, f"{response.status_code} {code}: {response.text}\nto\n{case.as_curl_command()}"


def _code(response: Response) -> Any:
    error = response.json()["error"]
    return error["code"] if "code" in error else error["details"]["error_code"]


def _check_stream(case: Case, text: str) -> None:
    assert text.endswith("\n\n"), f"a stream that is cut off:\n{text[-500:]}"
    for line in text.splitlines():
        assert line.startswith(("data: ", "event: ", "id: ", ":")) or not line, line
        if line.startswith("data: ") and line != "data: [DONE]":
            json.loads(line.removeprefix("data: "))
    last = text.rstrip("\n").split("\n\n")[-1].splitlines()[0]
    assert case.path == ENDLESS or last in _LAST, f"a stream that ends with\n{last}"
