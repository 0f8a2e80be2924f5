"""Who is asking: every combination of keys, address, path and credential."""

from __future__ import annotations

import pytest

from inference.errors import Forbidden, Unauthorized
from lmx_site import access
from lmx_site.access import Credentials, Keys, decide

API, ADMIN, BOTH = (
    Keys.of("api", None, trust_lan=False),
    Keys.of(None, "adm", trust_lan=False),
    Keys.of("api", "adm", trust_lan=False),
)
NO_KEYS, LAN = Keys(), Keys(trust_lan=True)
HERE, THERE = "127.0.0.1", "192.168.1.7"


def asked(path: str, address: str = HERE, cookie: str = "", **headers: str) -> Credentials:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Credentials(path, address, named, {access.COOKIE: cookie} if cookie else {})


def outcome(keys: Keys, path: str, address: str, token: str | None) -> str:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    try:
        return decide(asked(path, address, **headers), keys).kind
    except Unauthorized:
        return "401"
    except Forbidden:
        return "403"


@pytest.mark.parametrize(
    ("keys", "path", "address", "token", "expected"),
    [
        # no key: this machine's clients are the owner, whatever bearer they send
        (NO_KEYS, "/v1/models", HERE, None, "owner"),
        (NO_KEYS, "/v1/models", "::1", "lm-studio", "owner"),
        (NO_KEYS, "/api/v0/models", "::ffff:127.0.0.1", None, "owner"),
        (NO_KEYS, "/admin/status", HERE, None, "owner"),
        (NO_KEYS, "/", HERE, None, "owner"),
        (NO_KEYS, "/ws", HERE, None, "owner"),
        (NO_KEYS, "/inventory/", HERE, None, "owner"),
        # a trusted network may ask models, not administrate
        (LAN, "/v1/models", THERE, None, "anonymous"),
        (LAN, "/admin/status", THERE, None, "403"),
        (LAN, "/", THERE, None, "403"),
        (LAN, "/admin/status", HERE, None, "owner"),
        (NO_KEYS, "/v1/models", THERE, None, "403"),
        # only the API key: it guards inference and /admin; pages of this machine need no login
        (API, "/v1/models", HERE, None, "401"),
        (API, "/v1/models", HERE, "wrong", "401"),
        (API, "/v1/models", THERE, "api", "key"),
        (API, "/admin/status", HERE, None, "401"),
        (API, "/admin/status", THERE, "api", "key"),
        (API, "/", HERE, None, "owner"),
        (API, "/", THERE, None, "401"),
        (API, "/", THERE, "api", "401"),
        # only the admin key: it guards /admin and pages, and opens inference
        (ADMIN, "/v1/models", HERE, None, "anonymous"),
        (ADMIN, "/v1/models", HERE, "adm", "owner"),
        (ADMIN, "/v1/models", THERE, None, "401"),
        (ADMIN, "/v1/models", THERE, "adm", "owner"),
        (ADMIN, "/admin/status", HERE, None, "401"),
        (ADMIN, "/admin/status", HERE, "bot-3", "401"),
        (ADMIN, "/admin/status", HERE, "adm", "owner"),
        (ADMIN, "/", HERE, None, "401"),
        (ADMIN, "/ws", HERE, None, "401"),
        (ADMIN, "/inventory/", HERE, None, "401"),
        # both: each opens its own, the admin key opens all
        (BOTH, "/v1/models", HERE, "api", "key"),
        (BOTH, "/v1/models", HERE, "adm", "owner"),
        (BOTH, "/v1/models", HERE, None, "401"),
        (BOTH, "/admin/status", HERE, "api", "403"),
        (BOTH, "/admin/status", HERE, "adm", "owner"),
        (BOTH, "/", HERE, "adm", "401"),
        # open to everyone
        (BOTH, "/login", THERE, None, "anonymous"),
        (BOTH, "/static/app.css", THERE, None, "anonymous"),
        # names that only look like an area
        (BOTH, "/v1x", HERE, "api", "401"),
        (BOTH, "/staticx", HERE, None, "401"),
    ],
)
def test_it_decides(keys: Keys, path: str, address: str, token: str | None, expected: str) -> None:
    assert outcome(keys, path, address, token) == expected


def test_x_api_key_is_as_good_as_bearer_and_other_schemes_are_nothing() -> None:
    assert decide(asked("/v1/models", x_api_key="api"), API).id == "api_key"
    assert decide(asked("/v1/models", authorization="bearer api"), API).id == "api_key"
    assert decide(asked("/v1/models", authorization="Basic eDp5", x_api_key="api"), API).id == "api_key"
    with pytest.raises(Unauthorized):
        decide(asked("/v1/models", authorization="api"), API)


def test_a_missing_key_and_a_wrong_one_are_told_apart() -> None:
    with pytest.raises(Unauthorized) as caught:
        decide(asked("/v1/models"), API)
    assert caught.value.code == "missing_api_key"
    with pytest.raises(Unauthorized) as caught:
        decide(asked("/v1/models", x_api_key="secret-guess"), API)
    assert caught.value.code == "invalid_api_key"
    assert "secret-guess" not in caught.value.message


@pytest.mark.parametrize(
    "header", ["forwarded", "x_forwarded_for", "x_forwarded_host", "x_real_ip", "via", "cf_connecting_ip"]
)
def test_a_proxy_on_this_machine_is_not_this_machine(header: str) -> None:
    with pytest.raises(Forbidden):
        decide(asked("/admin/status", **{header: "8.8.8.8"}), NO_KEYS)


def test_the_cookie_opens_pages_and_never_inference_or_admin() -> None:
    cookie = access.make_cookie(BOTH)
    for path in ("/", "/ws", "/inventory/", "/chat/stream"):
        assert decide(asked(path, THERE, cookie), BOTH).kind == "owner"
    for path in ("/v1/models", "/api/v0/models", "/admin/status"):
        with pytest.raises(Unauthorized):
            decide(asked(path, HERE, cookie), BOTH)


def test_a_cookie_is_worthless_when_forged_or_when_the_key_changed() -> None:
    cookie = access.make_cookie(ADMIN)
    assert access.valid_cookie(cookie, ADMIN)
    assert not access.valid_cookie(cookie, Keys.of(None, "new", trust_lan=False))
    assert not access.valid_cookie(cookie, NO_KEYS)
    assert not access.valid_cookie(cookie[:-2] + "xx", ADMIN)
    assert not access.valid_cookie("", ADMIN)


def test_the_login_takes_the_admin_key_and_the_api_key_where_there_is_no_other() -> None:
    assert access.login_matches("adm", BOTH)
    assert not access.login_matches("api", BOTH)
    assert access.login_matches("api", API)
    assert not access.login_matches("", NO_KEYS)


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ({"authorization": "Bearer bot-3", "x_client": "other"}, "bot-3"),
        ({"x_api_key": "bot-4"}, "bot-4"),
        ({"x_client": "  cli \n"}, "cli"),
        ({"user_agent": "OpenAI/Python 2.1"}, "OpenAI/Python at 127.0.0.1"),
        ({}, "unknown at 127.0.0.1"),
        ({"x_client": "n" * 500}, "n" * 64),
        ({"x_client": "a\x1b[31mb"}, "a[31mb"),
    ],
)
def test_a_client_without_keys_is_called_by_what_it_says(headers: dict[str, str], name: str) -> None:
    assert decide(asked("/v1/models", **headers), NO_KEYS).id == name


@pytest.mark.parametrize(
    "token",
    [
        "sk-proj-abcdefghijklmnopqrstuvwxyz0123456789",
        "6f1ed002-ab57-4c60-9d4b-1a2b3c4d5e6f",
        "hf_abcdefghijklmnopqrst",
    ],
)
def test_what_looks_like_a_real_key_does_not_become_a_name(token: str) -> None:
    name = decide(asked("/v1/models", authorization=f"Bearer {token}"), NO_KEYS).id
    assert name.startswith("key-")
    assert len(name) == 12


def test_where_a_key_is_set_bearer_text_is_no_name() -> None:
    assert decide(asked("/v1/models", authorization="Bearer bot-3", x_client="cli"), ADMIN).id == "cli"


@pytest.mark.parametrize(
    ("address", "loopback"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("::ffff:127.0.0.1", True), ("localhost", True),
     ("10.0.0.1", False), ("::", False), ("fe80::1%en0", False), ("", False), ("evil.example", False)],
)  # fmt: skip
def test_loopback(address: str, loopback: bool) -> None:
    assert access.is_loopback(address) is loopback
