"""``/v1/models`` for those that send ``anthropic-version``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import anthropic
import orjson
import pytest
from anthropic.types import ModelInfo

from tests.anthropic.conftest import EXACTLY, MessagesApi, check_error
from tests.api.fake_engine import FakeEngine
from tests.conformance.strict import check

VERSION = {"anthropic-version": "2099-01-01"}


async def listed(api: MessagesApi, query: str = "") -> dict[str, Any]:
    status, _, content = await api.send("GET", "/v1/models" + query, headers=VERSION)
    body = orjson.loads(content)
    assert status == 200, body
    for one in body["data"]:
        check(one, ModelInfo, EXACTLY)
    return dict(body)


@pytest.fixture
def _three(engine: FakeEngine) -> None:
    """Two models, one of them with an alias; the broken and the embedding one are not listed."""
    tiny, broken = engine.catalog.all()
    newer = replace(tiny, id="newer", aliases=(), created=tiny.created + 1)
    vectors = replace(tiny, id="vectors", aliases=(), kind="embeddings")
    engine.catalog._refs = [tiny, broken, newer, vectors]


@pytest.mark.usefixtures("_three")
@pytest.mark.parametrize(
    ("query", "ids", "more"),
    [
        ("", ["newer", "acme/tiny", "small"], False),
        ("?limit=2", ["newer", "acme/tiny"], True),
        ("?limit=1&after_id=newer", ["acme/tiny"], True),
        ("?after_id=small", [], False),
        ("?limit=1&before_id=small", ["acme/tiny"], True),
        ("?before_id=acme/tiny", ["newer"], False),
    ],
)
async def test_pages(api: MessagesApi, query: str, ids: list[str], more: bool) -> None:
    body = await listed(api, query)
    assert ([one["id"] for one in body["data"]], body["has_more"]) == (ids, more)
    assert (body["first_id"], body["last_id"]) == ((ids[0], ids[-1]) if ids else (None, None))


async def test_a_model(api: MessagesApi) -> None:
    [model, alias] = (await listed(api))["data"]
    assert model == {
        "type": "model",
        "id": "acme/tiny",
        "display_name": "tiny",
        "created_at": "2023-11-14T22:13:20Z",
        "lifecycle": "active",
        "max_input_tokens": 2048,
        "max_tokens": 2048,
    }
    assert alias == {**model, "id": "small", "display_name": "small (tiny)"}


async def test_the_client_pages_and_retrieves(sdk: anthropic.AsyncAnthropic) -> None:
    assert [model.id async for model in sdk.models.list(limit=1)] == ["acme/tiny", "small"]
    assert (await sdk.models.retrieve("small")).id == "small"
    assert (await sdk.models.retrieve("acme/tiny")).created_at.year == 2023
    with pytest.raises(anthropic.NotFoundError) as missing:
        await sdk.models.retrieve("claude-nobody")
    assert missing.value.error_code == "model_not_found"


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=1001", "limit=x", "after_id=nobody", "before_id=nobody", "before_id=small&after_id=small"],
)
async def test_wrong_queries(api: MessagesApi, query: str) -> None:
    status, _, content = await api.send("GET", "/v1/models?" + query, headers=VERSION)
    error = check_error(orjson.loads(content))
    assert (status, error["type"]) == (400, "invalid_request_error")
    assert error["details"]["param"] == query.split("=")[0]


async def test_others_get_openais_list(api: MessagesApi) -> None:
    status, body = await api.get("/v1/models")
    assert (status, body["object"]) == (200, "list")
    status, body = await api.get("/v1/models/nobody")
    assert (status, body["error"]["code"]) == (404, "model_not_found")
