"""The edge, through Django's own request cycle: host, origin, content type, size, keys, error shapes, headers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.conf import settings
from django.http import HttpResponseBase
from django.test import AsyncClient

from lmx_site import access, policy
from lmx_site.access import Keys

SITE = "http://testserver"


@pytest.fixture
def client() -> AsyncClient:
    return AsyncClient(raise_request_exception=False)


async def post(client: AsyncClient, path: str, body: str = "{}", kind: str = "application/json", **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await client.post(path, data=body, content_type=kind, headers=named)


def code(response: HttpResponseBase) -> str:
    content = json.loads(response.content)  # type: ignore[attr-defined]
    return str(content["error"].get("code") or content["error"]["type"])


@pytest.mark.parametrize("path", ["/v1/nope", "/v1/nope/", "/api/x", "/admin/x", "/v1", "/admin/"])
async def test_unknown_paths_are_json(client: AsyncClient, path: str) -> None:
    response = await client.get(path)
    assert response.status_code == 404
    assert response.headers["Content-Type"] == "application/json"
    assert "error" in json.loads(response.content)


async def test_a_wrong_method_is_json_and_names_the_right_one(client: AsyncClient) -> None:
    response = await client.get("/v1/chat/completions")
    assert response.status_code == 405
    assert code(response) == "method_not_allowed"
    assert "POST" in response.headers["Allow"]


async def test_messages_speak_anthropic(client: AsyncClient) -> None:
    response = await post(client, "/v1/messages/none", kind="text/plain")
    assert response.status_code == 415
    assert json.loads(response.content)["type"] == "error"


@pytest.mark.parametrize("path", ["/v1/models", "/admin/status", "/", "/static/x.css", "/login"])
async def test_a_foreign_host_is_refused_everywhere(client: AsyncClient, path: str) -> None:
    response = await client.get(path, headers={"Host": "evil.example"})
    assert response.status_code == 403
    assert b"server.allowed_hosts" in response.content


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ({}, False),
        ({"Origin": SITE}, False),
        ({"Origin": SITE, "Sec-Fetch-Site": "same-origin"}, False),
        ({"Sec-Fetch-Site": "none"}, False),
        ({"Origin": "https://testserver"}, True),
        ({"Origin": "http://testserver:81"}, True),
        ({"Origin": "http://evil.example"}, True),
        ({"Origin": "null"}, True),
        ({"Sec-Fetch-Site": "cross-site"}, True),
        ({"Sec-Fetch-Site": "same-site"}, True),
        ({"Origin": "http://friend.example", "Sec-Fetch-Site": "cross-site"}, False),
    ],
)
async def test_another_origin_may_not_post(client: AsyncClient, headers: dict[str, str], refused: bool) -> None:
    policy.set_policy(policy.Policy(frozenset({"testserver"}), frozenset({"http://friend.example"})))
    for path in ("/v1/nope", "/admin/nope"):
        response = await client.post(path, data="{}", content_type="application/json", headers=headers)
        assert response.status_code == (403 if refused else 404)
        if refused:
            assert code(response) == "origin_not_allowed"
    response = await client.delete("/admin/nope", headers=headers)
    assert response.status_code == (403 if refused else 404)


@pytest.mark.parametrize("path", ["/admin/nope", "/v1/nope"])
async def test_another_origins_page_causes_no_reading_of_the_owners(client: AsyncClient, path: str) -> None:
    """It could not see the answer, but a picture's address is enough to have the disks walked over."""
    policy.set_policy(policy.Policy(frozenset({"testserver"}), frozenset({"http://friend.example"})))
    owners = path.startswith("/admin")
    for headers in (
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "http://evil.example"},
    ):
        assert (await client.get(path, headers=headers)).status_code == (403 if owners else 404)
        assert (await client.head(path, headers=headers)).status_code == (403 if owners else 404)
    for headers in (
        {},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "http://friend.example", "Sec-Fetch-Site": "cross-site"},
    ):
        assert (await client.get(path, headers=headers)).status_code == 404


async def test_a_key_does_not_help_another_origin(client: AsyncClient) -> None:
    access.set_keys(Keys.of("api", None, trust_lan=False))
    response = await post(client, "/v1/nope", Origin="http://evil.example", Authorization="Bearer api")
    assert response.status_code == 403


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "application/jsonx"],
)
async def test_the_api_takes_json_only(client: AsyncClient, kind: str) -> None:
    response = await client.generic("POST", "/v1/chat/completions", "{}", content_type=kind)
    assert response.status_code == 415
    assert code(response) == "unsupported_media_type"


async def test_json_with_a_charset_is_json(client: AsyncClient) -> None:
    assert (await post(client, "/v1/nope", kind="application/json; charset=utf-8")).status_code == 404


async def test_a_delete_without_body_needs_no_type(client: AsyncClient) -> None:
    response = await client.delete("/admin/nope?model_id=x")
    assert response.status_code == 404
    response = await client.delete("/admin/nope", data="model_id=x", content_type="application/x-www-form-urlencoded")
    assert response.status_code == 415


async def test_a_body_over_the_limit_is_413(client: AsyncClient) -> None:
    assert policy.MAX_BODY_BYTES == settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    assert (await post(client, "/v1/nope", "x" * 33_000_000)).status_code == 413, "33 MB, however one counts"
    response = await post(client, "/v1/nope", "x" * (policy.MAX_BODY_BYTES + 1))
    assert response.status_code == 413
    assert code(response) == "request_too_large"
    assert (await post(client, "/v1/nope", "x" * policy.MAX_BODY_BYTES)).status_code == 404


async def test_keys_guard_the_api(client: AsyncClient) -> None:
    access.set_keys(Keys.of("api", "adm", trust_lan=False))
    response = await client.get("/v1/models")
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert response.headers["x-should-retry"] == "false"
    assert (await client.get("/v1/nope", headers={"x-api-key": "api"})).status_code == 404
    assert (await client.get("/admin/nope", headers={"Authorization": "Bearer api"})).status_code == 403
    assert (await client.get("/admin/nope", headers={"Authorization": "Bearer adm"})).status_code == 404


async def test_refusals_come_in_order_host_origin_type_key(client: AsyncClient) -> None:
    access.set_keys(Keys.of("api", None, trust_lan=False))
    wrong = {"Host": "evil.example", "Origin": "http://evil.other"}
    assert code(await client.generic("POST", "/v1/x", "", "text/plain", headers=wrong)) == "host_not_allowed"
    del wrong["Host"]
    assert code(await client.generic("POST", "/v1/x", "", "text/plain", headers=wrong)) == "origin_not_allowed"
    assert code(await client.generic("POST", "/v1/x", "", "text/plain")) == "unsupported_media_type"
    assert code(await client.generic("POST", "/v1/x", "{}", "application/json")) == "missing_api_key"


async def test_a_preflight_is_answered_for_named_origins_without_a_key(client: AsyncClient) -> None:
    access.set_keys(Keys.of("api", None, trust_lan=False))
    policy.set_policy(policy.Policy(frozenset({"testserver"}), frozenset({"http://friend.example"})))
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    response = await client.options("/v1/chat/completions", headers={"Origin": "http://friend.example", **asks})
    assert response.status_code == 204
    assert response.headers["Access-Control-Allow-Origin"] == "http://friend.example"
    assert response.headers["Access-Control-Allow-Headers"] == "authorization,content-type"
    assert "POST" in response.headers["Access-Control-Allow-Methods"]
    assert response.headers["Vary"] == "Origin"
    for path, origin in (("/v1/models", "http://evil.example"), ("/", "http://friend.example")):
        response = await client.options(path, headers={"Origin": origin, **asks})
        assert response.status_code == 403
        assert "Access-Control-Allow-Origin" not in response.headers


async def test_answers_and_errors_carry_cors_headers_for_named_origins_only(client: AsyncClient) -> None:
    policy.set_policy(policy.Policy(frozenset({"testserver"}), frozenset({"http://friend.example"})))
    response = await client.get("/v1/nope", headers={"Origin": "http://friend.example"})
    assert response.headers["Access-Control-Allow-Origin"] == "http://friend.example"
    response = await client.get("/v1/nope", headers={"Origin": "http://other.example"})
    assert response.status_code == 404
    assert "Access-Control-Allow-Origin" not in response.headers


async def test_pages_send_a_stranger_to_the_login(client: AsyncClient) -> None:
    access.set_keys(Keys.of(None, "adm", trust_lan=False))
    response = await client.get("/models?x=1")
    assert response.status_code == 302
    assert response.headers["Location"] == "/login?next=/models%3Fx%3D1"
    fragment = await client.get("/", headers={"HX-Request": "true"})
    assert (fragment.status_code, fragment.headers["HX-Redirect"]) == (401, "/login?next=/")
    assert (await client.post("/x", data={"a": 1})).status_code == 401


async def test_pages_refuse_framing_and_sniffing(client: AsyncClient) -> None:
    response = await client.get("/static/none.css")
    assert response.status_code == 404
    assert response.headers["X-Frame-Options"] == "DENY"
    assert response.headers["X-Content-Type-Options"] == "nosniff"


async def test_a_length_is_always_sent(client: AsyncClient) -> None:
    response = await client.get("/v1/nope")
    assert int(response.headers["Content-Length"]) == len(response.content)
