"""Every case is true, every parameter has one, and the document says the same."""

from __future__ import annotations

import re
from typing import Any

import orjson
import pytest

from tests.api.conftest import Api
from tests.api.fake_engine import FakeEngine
from tests.conformance.cases import Case, Endpoint, protocols, top, with_param
from tests.conformance.document import FILE, document
from tests.conformance.strict import check

PROTOCOLS = protocols()
ENDPOINTS = {endpoint.route: endpoint for protocol in PROTOCOLS for endpoint in protocol.endpoints}
CASES = [case for protocol in PROTOCOLS for case in protocol.cases]

# What differs between two answers to one request: ids and times.
_PASSING = re.compile(
    rb'"(?:id|item_id|response_id|created|created_at|completed_at|load_time_seconds)": ?(?:"[^"]*"|[0-9.]+)'
)


async def asked(api: Api, engine: FakeEngine, case: Case, body: dict[str, Any]) -> tuple[int, Any, bytes, list[Any]]:
    """Status, headers, body and what reached the engine."""
    engine.asked.clear()
    endpoint = ENDPOINTS[case.endpoint]
    status, headers, content = await api.send(endpoint.method, endpoint.path, body, headers=endpoint.headers)
    return status, headers, content, list(engine.asked)


@pytest.mark.parametrize("case", CASES, ids=str)
async def test_a_parameter_does_what_is_told_of_it(api: Api, engine: FakeEngine, case: Case) -> None:
    base = {**ENDPOINTS[case.endpoint].base, **case.beside}
    status, headers, content, reached = await asked(api, engine, case, with_param(base, case.param, case.value))
    if case.outcome == "refused":
        assert (status, reached) == (case.status, []), content
        _check_refusal(orjson.loads(content)["error"], case)
        return
    assert status == 200, content
    assert top(case.param) not in headers.get("x-lmx-ignored", "")
    _check_answer(headers["content-type"], content, ENDPOINTS[case.endpoint])
    # A required parameter has no answer without it; with another value than the base it is at least another request.
    before = await asked(api, engine, case, base)
    assert before[0] == 200, before[2]
    same = reached == before[3] and _PASSING.sub(b"", content) == _PASSING.sub(b"", before[2])
    assert same == (case.outcome == "accepted")


def _check_answer(kind: str, content: bytes, endpoint: Endpoint) -> None:
    """Whatever is asked, the answer is of the published type."""
    if kind.startswith("application/json") and endpoint.answer is not None:
        check(orjson.loads(content), endpoint.answer, endpoint.allowance)
    elif kind.startswith("text/event-stream") and endpoint.event is not None:
        for payload in re.findall(rb"^data: (.*)$", content, re.MULTILINE):
            if payload != b"[DONE]":
                check(orjson.loads(payload), endpoint.event, endpoint.allowance)


def _check_refusal(error: dict[str, Any], case: Case) -> None:
    told = error.get("details", error)  # Anthropic's errors have a place of their own for it
    named = case.named or case.param
    assert told.get("code", told.get("error_code")) == case.code, error
    assert told["param"] == named, error


@pytest.mark.parametrize("endpoint", ENDPOINTS.values(), ids=lambda endpoint: endpoint.route)
def test_every_parameter_has_a_case(endpoint: Endpoint) -> None:
    told = {top(case.param) for case in CASES if case.endpoint == endpoint.route}
    assert endpoint.fields - told == set()


def test_every_case_is_of_an_endpoint_that_is_listed() -> None:
    assert {case.endpoint for case in CASES} <= ENDPOINTS.keys()


def test_the_document_is_made_from_the_cases() -> None:
    assert FILE.read_text(encoding="utf-8") == document(), "run python -m tests.conformance --write"
