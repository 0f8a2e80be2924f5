"""Every documented operation, asked at random: no failure, no hang, and each answer as the document says.

``FUZZ_EXAMPLES`` (per operation and kind) and ``FUZZ_SEED`` try more than this suite has time for, and
``FUZZ_BACKEND=real`` tries models that really run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase

from tests.fuzz.cases import DOCUMENTS, Kind, cases, operations
from tests.fuzz.judge import judge, send
from tests.fuzz.site import CHAT, REPO, VECTORS, fuzzed_site
from tests.live.process import LiveServer

pytestmark = pytest.mark.live
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "5"))
SEED = int(os.environ.get("FUZZ_SEED", "1"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with fuzzed_site(tmp_path_factory.mktemp("fuzz") / "home") as server:
        yield server


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as found:
        found.trust_env = False
        yield found


@pytest.fixture(scope="module")
def places(site: LiveServer, session: requests.Session) -> dict[str, list[Any]]:
    """Values of path parameters that are there, each beside one that is not."""
    made = []
    for more in ({}, {"background": True}, {"background": True, "stream": True}) * 2:
        body: dict[str, Any] = {"model": CHAT, "input": "Hi", **more}
        with session.post(f"{site.url}/v1/responses", json=body, timeout=60) as answer:
            assert answer.status_code == 200, answer.text
            text = answer.text
        made.append("resp_" + text.split('"id":"resp_')[1].split('"')[0])
    fetched: dict[str, Any] = {"model_id": REPO, "wait": True}
    with session.post(f"{site.url}/admin/model/download", json=fetched, timeout=60) as answer:
        number = answer.json()["job"]["id"]
    return {
        "response_id": [*made[:3], "resp_none"],
        "delete_response": [*made[3:], "resp_none"],
        "model_id": [CHAT, VECTORS, "no/such"],
        "job": [number, 10**6],
        "job_id": [f"job_{number}", "job_1000000", "none"],
    }


@pytest.fixture(scope="module")
def schemas(site: LiveServer, session: requests.Session) -> dict[str, Any]:
    """The documents as the server gives them out."""
    found = {}
    for prefix in DOCUMENTS:
        document = session.get(f"{site.url}{prefix}openapi.json", timeout=60).json()
        found[prefix] = schemathesis.openapi.from_dict(document)
    return found


@pytest.mark.parametrize(("prefix", "method", "path", "kind"), operations())
def test_asked_at_random(
    site: LiveServer,
    session: requests.Session,
    schemas: dict[str, Any],
    places: dict[str, list[Any]],
    prefix: str,
    method: str,
    path: str,
    kind: Kind,
) -> None:
    operation = schemas[prefix][path][method]
    url = site.url

    @hypothesis.seed(SEED)
    @hypothesis.settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],  # shrinking a request takes minutes, and each failure tells how to ask again
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(case=cases(operation, kind, places))
    def ask(case: schemathesis.Case) -> None:
        judge(case, send(case, url, session))

    ask()
