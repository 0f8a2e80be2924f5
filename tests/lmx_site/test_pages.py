"""Static files, the login, and Django's admin behind the owner."""

from __future__ import annotations

import pytest
from django.test import AsyncClient

from lmx_site import access
from lmx_site.access import Keys
from lmx_site.login import guessing

CSS = "/static/admin/css/base.css"


@pytest.fixture
def client() -> AsyncClient:
    return AsyncClient(enforce_csrf_checks=True)


async def test_a_static_file_comes_with_a_tag_and_is_not_sent_twice(client: AsyncClient) -> None:
    first = await client.get(CSS)
    assert first.status_code == 200
    assert first.headers["Content-Type"] == "text/css; charset=utf-8"
    assert first.headers["Cache-Control"] == "no-cache"
    again = await client.get(CSS, headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert (await client.get(CSS, headers={"If-None-Match": '"other"'})).status_code == 200


@pytest.mark.parametrize(
    "path", ["none.css", "admin/css", "../settings.py", "admin/../../x", "/etc/passwd", "a%00b", ""]
)
async def test_what_is_no_static_file_is_404(client: AsyncClient, path: str) -> None:
    assert (await client.get(f"/static/{path}")).status_code == 404


async def test_static_files_are_read_only(client: AsyncClient) -> None:
    assert (await client.post(CSS, headers={"Origin": "http://testserver"})).status_code in (403, 405)


async def test_without_a_key_there_is_nothing_to_log_in_to(client: AsyncClient) -> None:
    response = await client.get("/login?next=/models")
    assert (response.status_code, response.headers["Location"]) == (302, "/models")


async def test_the_login_needs_the_csrf_token_and_the_right_key_and_gives_a_cookie(client: AsyncClient) -> None:
    access.set_keys(Keys.of(None, "adm", trust_lan=False))
    assert (await client.post("/login", {"key": "adm"})).status_code == 403
    page = await client.get("/login?next=/x%3Fy")
    assert page.status_code == 200
    form = {"csrfmiddlewaretoken": client.cookies["lmx_csrf"].value, "next": "/x?y"}
    wrong = await client.post("/login", {**form, "key": "guess"})
    assert wrong.status_code == 403
    assert access.COOKIE not in wrong.cookies
    right = await client.post("/login", {**form, "key": " adm "})
    assert (right.status_code, right.headers["Location"]) == (302, "/x?y")
    cookie = right.cookies[access.COOKIE]
    assert (cookie["httponly"], cookie["samesite"]) == (True, "Strict")
    assert access.valid_cookie(cookie.value, access.get_keys())


@pytest.mark.parametrize(
    "target", ["//evil.example", "http://evil.example", "/\\evil.example", "javascript:alert(1)", "/login"]
)
async def test_the_login_leads_nowhere_else(client: AsyncClient, target: str) -> None:
    response = await client.get("/login", {"next": target})
    assert response.headers["Location"] == "/"


async def test_a_stranger_who_guesses_does_not_keep_the_owner_waiting(client: AsyncClient) -> None:
    access.set_keys(Keys.of(None, "adm", trust_lan=False))
    await client.get("/login")
    form = {"csrfmiddlewaretoken": client.cookies["lmx_csrf"].value, "key": "adm"}
    async with guessing("10.0.0.9"):
        assert (await client.post("/login", form)).status_code == 302
    async with guessing("10.0.0.9"):
        assert guessing("10.0.0.9").locked(), "one try after the other for one who guesses"


async def test_a_logout_forgets_the_cookie(client: AsyncClient) -> None:
    access.set_keys(Keys.of(None, "adm", trust_lan=False))
    client.cookies[access.COOKIE] = access.make_cookie(access.get_keys())
    await client.get("/login")
    token = client.cookies["lmx_csrf"].value
    response = await client.post("/logout", headers={"X-CSRFToken": token})
    assert response.status_code == 302
    assert response.cookies[access.COOKIE].value == ""


@pytest.mark.django_db(transaction=True)
async def test_the_owner_is_djangos_administrator_and_a_stranger_is_not(client: AsyncClient) -> None:
    response = await client.get("/inventory/")
    assert response.status_code == 200
    access.set_keys(Keys.of(None, "adm", trust_lan=False))
    assert (await client.get("/inventory/")).headers["Location"].startswith("/login?next=")
    client.cookies[access.COOKIE] = access.make_cookie(access.get_keys())
    assert (await client.get("/inventory/")).status_code == 200
