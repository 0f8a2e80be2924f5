"""Unknown paths, wrong methods, rights, and the OpenAPI documents."""

from __future__ import annotations

import orjson
import pytest
from django.http import HttpRequest

from inference.api import admin, deps, v1
from inference.errors import Forbidden, Unauthorized
from inference.principal import Principal
from tests.api.conftest import CHAT, Api, chat


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/nothing"), ("POST", "/v1/chat/completion"), ("GET", "/v1"), ("GET", "/admin/x"), ("GET", "/api/v9")],
)
async def test_an_unknown_path_is_a_json_404(api: Api, method: str, path: str) -> None:
    status, headers, content = await api.send(method, path)
    assert status == 404
    assert headers["content-type"] == "application/json"
    assert orjson.loads(content)["error"]["type"] == "invalid_request_error"


async def test_an_unknown_path_names_the_nearest(api: Api) -> None:
    _, _, content = await api.send("POST", "/v1/chat/completion")
    assert b"did you mean /v1/chat/completions?" in content


async def test_anthropic_paths_have_its_shape(api: Api) -> None:
    _, _, content = await api.send("POST", "/v1/messages/nothing")
    body = orjson.loads(content)
    assert (body["type"], body["error"]["type"]) == ("error", "not_found_error")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("GET", CHAT, "POST"), ("POST", "/v1/models", "GET"), ("PUT", "/admin/status", "GET")],
)
async def test_a_wrong_method_is_a_json_405(api: Api, method: str, path: str, allowed: str) -> None:
    status, headers, content = await api.send(method, path)
    assert status == 405
    assert allowed in headers["Allow"]
    assert orjson.loads(content)["error"]["code"] == "method_not_allowed"


async def test_head_is_answered_where_get_is(api: Api) -> None:
    assert (await api.send("HEAD", "/v1/models"))[0] == 200


async def test_a_wrong_query_is_a_400_that_names_it(api: Api) -> None:
    status, body = await api.get("/admin/events?since=yesterday")
    assert status == 400
    assert body["error"]["param"] == "since"


async def test_a_starting_server_says_so(api: Api) -> None:
    deps.configure()
    status, body = await api.get("/v1/models")
    assert status == 503
    assert body["error"]["code"] == "model_unavailable"


def test_rights() -> None:
    request = HttpRequest()
    with pytest.raises(Unauthorized):
        deps.require(request, "inference")
    request.principal = Principal("key", "bot", frozenset({"inference"}))  # type: ignore[attr-defined]
    deps.require(request, "inference")
    with pytest.raises(Forbidden):
        deps.require(request, "admin")
    request.principal = Principal("anonymous", "x", frozenset())  # type: ignore[attr-defined]
    with pytest.raises(Unauthorized):
        deps.require(request, "admin")


async def test_strict_mode_comes_from_the_configuration(api: Api) -> None:
    deps.configure(strict=True)
    status, body = await api.post(CHAT, chat(banana=1))
    assert status == 400
    assert body["error"]["code"] == "unknown_parameter"


async def test_openapi_documents_are_whole(api: Api) -> None:
    for one in (v1.api, admin.api):
        status, document = await api.get(f"{one.prefix}openapi.json")
        assert status == 200
        paths = {
            path.removeprefix(one.prefix.rstrip("/")).replace("{model_id}", "{path:model_id}")
            for path in document["paths"]
        }
        assert paths == set(one.routes)
        text = orjson.dumps(document).decode()
        known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
        assert {ref.split('"')[0] for ref in text.split('"$ref":"')[1:]} <= known
        names = [operation["operationId"] for item in document["paths"].values() for operation in item.values()]
        assert len(names) == len(set(names))


async def test_what_two_protocols_call_alike_is_described_twice(api: Api) -> None:
    _, document = await api.get("/v1/openapi.json")
    schemas = document["components"]["schemas"]
    assert "function" in schemas["ChatRequest.Tool"]["properties"]
    assert "input_schema" in schemas["MessageRequest.Tool"]["properties"]


async def test_the_documentation_needs_no_network(api: Api) -> None:
    _, _, page = await api.send("GET", "/v1/docs")
    assert b"https://" not in page
