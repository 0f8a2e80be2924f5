"""Unknown paths, wrong methods, rights, and the OpenAPI documents."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from django.http import HttpRequest

from inference.api import admin, deps, lmstudio, v1
from inference.api.base import JsonApi
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


@pytest.mark.parametrize("one", [v1.api, admin.api, lmstudio.api], ids=lambda one: one.prefix)
async def test_openapi_documents_are_whole(api: Api, one: JsonApi) -> None:
    status, document = await api.get(f"{one.prefix}openapi.json")
    assert status == 200
    paths = {
        path.removeprefix(one.prefix.rstrip("/")).replace("{model_id}", "{path:model_id}") for path in document["paths"]
    }
    assert paths == set(one.routes)
    text = orjson.dumps(document).decode()
    known = {f"#/components/{kind}/{name}" for kind, parts in document["components"].items() for name in parts}
    assert {ref.split('"')[0] for ref in text.split('"$ref":"')[1:]} <= known
    names = [operation["operationId"] for item in document["paths"].values() for operation in item.values()]
    assert len(names) == len(set(names))


def operations_of(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {told["operationId"]: told for item in document["paths"].values() for told in item.values()}


async def test_documents_tell_what_is_sent_beside_the_body(api: Api) -> None:
    _, document = await api.get("/v1/openapi.json")
    sent = {
        name: {(one["in"], one["name"]) for one in told["parameters"]} for name, told in operations_of(document).items()
    }
    assert sent["retrieve_response"] >= {("query", "stream"), ("query", "starting_after")}
    assert sent["list_response_input_items"] >= {("query", "limit"), ("query", "order"), ("query", "after")}
    assert sent["list_models"] >= {("query", "limit"), ("query", "after_id"), ("query", "before_id")}
    for name, parameters in sent.items():
        assert parameters >= {("header", "X-Priority"), ("header", "X-Timeout")}, name
    assert document["components"]["securitySchemes"].keys() == {"bearer", "x-api-key"}


@pytest.mark.parametrize("one", [v1.api, admin.api, lmstudio.api], ids=lambda one: one.prefix)
async def test_documents_tell_every_answer(api: Api, one: JsonApi) -> None:
    _, document = await api.get(f"{one.prefix}openapi.json")
    for name, told in operations_of(document).items():
        answers = told["responses"]
        assert answers.keys() >= {"400", "401", "403", "500", "503"}, name
        if "requestBody" in told:
            assert answers.keys() >= {"413", "415"}, name
        for status, answer in answers.items():
            assert "x-request-id" in answer["headers"], (name, status)
            assert answer["content"], (name, status)


async def test_documents_tell_what_a_refusal_can_be_about(api: Api) -> None:
    _, document = await api.get("/v1/openapi.json")
    told = operations_of(document)
    chat, message = (told[name]["responses"] for name in ("create_chat_completion", "create_message"))
    assert chat["507"]["description"] == "Insufficient Storage: `insufficient_memory`"
    [shape, codes] = chat["501"]["content"]["application/json"]["schema"]["allOf"]
    assert shape["$ref"].endswith("/Error")
    assert codes["properties"]["error"]["properties"]["code"]["enum"] == ["unsupported"]
    assert message["400"]["content"]["application/json"]["schema"]["$ref"].endswith("/AnthropicError")
    assert chat["200"]["content"].keys() == {"application/json", "text/event-stream"}


async def test_what_two_protocols_call_alike_is_described_twice(api: Api) -> None:
    _, document = await api.get("/v1/openapi.json")
    schemas = document["components"]["schemas"]
    assert "function" in schemas["ChatRequest.Tool"]["properties"]
    assert "input_schema" in schemas["MessageRequest.Tool"]["properties"]


async def test_the_documentation_needs_no_network(api: Api) -> None:
    _, _, page = await api.send("GET", "/v1/docs")
    assert b"https://" not in page
