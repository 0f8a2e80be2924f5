"""Who is asking, and what they may do: one answer for the API, the admin API, pages, the websocket and ``/inventory/``.

``api_key`` guards inference, ``admin_key`` guards everything and opens inference too; with only ``api_key`` set it
guards both. Without an admin key a client on this machine is the owner of the pages, no login. Keys come as bearer
or ``x-api-key``; pages know a signed cookie that the login form sets and that inference never accepts.

A *client* of the configuration has a priority, and may have a key of its own. That key opens inference from anywhere
and names who asks; it closes nothing, which is what ``api_key`` and ``admin_key`` are for. The name of a client with a
key is given to nobody who does not send it.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from django.core import signing
from django.http import HttpRequest

from inference.errors import Forbidden, LmxError, Unauthorized
from inference.principal import Principal, Scope
from inference.protocols.lmstudio import SDK_PATHS
from lmx_site.urgency import with_urgency

Area = Literal["public", "inference", "admin", "pages"]

COOKIE = "lmx_owner"
OWN_NAMES = frozenset({"owner", "api_key"})
"""Names of principals that no client can have a key for, or call itself by."""
COOKIE_DAYS = 30
_COOKIE_SALT = "lmx.owner"
_BOTH: frozenset[Scope] = frozenset({"inference", "admin"})
_INFERENCE: frozenset[Scope] = frozenset({"inference"})
_NONE: frozenset[Scope] = frozenset()
# A proxy on this machine makes the whole world look like 127.0.0.1.
_PROXY_HEADERS = frozenset({"forwarded", "via", "x-real-ip", "x-client-ip", "true-client-ip", "cf-connecting-ip"})
_PROXY_PREFIX = "x-forwarded"
_LONGEST_NAME = 64
# The SDK paths tell nothing but what to use instead; a redirect to the login would tell a program less.
_PUBLIC = frozenset({"/login", "/favicon.ico", *("/" + name for name in SDK_PATHS)})
_NEEDED: dict[Area, Scope | None] = {"public": None, "inference": "inference", "admin": "admin", "pages": "admin"}


@dataclass(frozen=True, slots=True)
class Credentials:
    """What ``authorize`` looks at. ``headers`` have lower-case names; ``address`` is the peer's."""

    path: str
    address: str
    headers: Mapping[str, str]
    cookies: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Client:
    """A client of the configuration; ``key`` is the SHA-256 of its own, None where it is known by name alone."""

    priority: int = 0
    key: bytes | None = None

    @classmethod
    def of(cls, priority: int, key: str | None) -> Client:
        return cls(priority, _digest(key) if key else None)


@dataclass(frozen=True, slots=True)
class Keys:
    """The configured keys as SHA-256 digests, never as text; ``trust_lan`` and ``clients`` as in the configuration."""

    api: bytes | None = None
    admin: bytes | None = None
    trust_lan: bool = False
    clients: Mapping[str, Client] = field(default_factory=dict)

    @classmethod
    def of(
        cls, api_key: str | None, admin_key: str | None, *, trust_lan: bool, clients: Mapping[str, Client] | None = None
    ) -> Keys:
        api, admin = (_digest(key) if key else None for key in (api_key, admin_key))
        return cls(api, admin, trust_lan, dict(clients or {}))

    def holder(self, digest: bytes) -> str | None:
        """The client whose key that is. Looks at all of them, so that the time it takes tells nothing."""
        found = None
        for name, client in self.clients.items():
            if client.key is not None and hmac.compare_digest(digest, client.key):
                found = name
        return found

    def has_key(self, name: str) -> bool:
        """Whether that client is known by a key of its own."""
        client = self.clients.get(name)
        return client is not None and client.key is not None

    @property
    def login(self) -> bytes | None:
        """The key that the login form takes."""
        return self.admin or self.api


_keys = Keys()


def set_keys(keys: Keys) -> None:
    global _keys
    _keys = keys


def get_keys() -> Keys:
    return _keys


def area(path: str) -> Area:
    """Which rule a path falls under."""
    if _under(path, "/v1") or _under(path, "/api"):
        return "inference"
    if _under(path, "/admin"):
        return "admin"
    return "public" if path in _PUBLIC or path.startswith("/static/") else "pages"


def is_api(path: str) -> bool:
    """Whether the path speaks JSON to programs: no cookies, no HTML, errors in the shape of its protocol."""
    return _under(path, "/v1") or _under(path, "/api") or _under(path, "/admin")


def authorize(request: HttpRequest) -> Principal:
    """The principal of a request; raises ``Unauthorized`` or ``Forbidden`` when it may not do what the path is for."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    address = str(request.META.get("REMOTE_ADDR") or "")
    return decide(Credentials(request.path_info, address, headers, request.COOKIES), get_keys())


def decide(asked: Credentials, keys: Keys) -> Principal:
    """The whole rule, without Django: who this is, or the refusal."""
    where = area(asked.path)
    principal = _identify(asked, keys, where)
    needed = _NEEDED[where]
    if needed is not None and not principal.may(needed):
        raise _refusal(asked, keys, principal, needed)
    if (client := keys.clients.get(principal.id)) is not None:
        principal = replace(principal, priority=client.priority)
    return with_urgency(principal, asked.headers) if where == "inference" else principal


def _identify(asked: Credentials, keys: Keys, where: Area) -> Principal:
    local = is_local(asked)
    if where in ("pages", "public"):
        if (keys.admin is None and local) or valid_cookie(asked.cookies.get(COOKIE, ""), keys):
            return Principal("owner", "owner", _BOTH)
        return Principal("anonymous", _client_name(asked, keys), _NONE)
    token = _token(asked.headers)
    digest = _digest(token) if token else b""
    if keys.admin is not None and hmac.compare_digest(digest, keys.admin):
        return Principal("owner", "owner", _BOTH)
    if keys.api is not None and hmac.compare_digest(digest, keys.api):
        return Principal("key", "api_key", _BOTH if keys.admin is None else _INFERENCE)
    if (holder := keys.holder(digest)) is not None:
        return Principal("key", holder, _BOTH if keys.login is None and local else _INFERENCE)
    name = _client_name(asked, keys)
    if keys.api is None and keys.admin is None and local:
        return Principal("owner", name, _BOTH)
    open_to_all = keys.api is None and (local or keys.trust_lan)
    return Principal("anonymous", name, _INFERENCE if open_to_all else _NONE)


def _refusal(asked: Credentials, keys: Keys, principal: Principal, needed: Scope) -> LmxError:
    if principal.kind == "key":
        return Forbidden("this key opens inference only; /admin takes the admin key", code="admin_key_required")
    if keys.login is None:
        setting = "security.admin_key" if needed == "admin" else "security.api_key, or security.trust_lan: true"
        return Forbidden(f"a request from another machine, or passed on by a proxy, needs a key: set {setting}")
    kind = "the admin key" if needed == "admin" and keys.admin is not None else "a key"
    if _token(asked.headers):
        return Unauthorized(f"the key that was sent is not valid here; this path takes {kind}")
    return Unauthorized(
        f"this path takes {kind}: send 'Authorization: Bearer KEY' or 'x-api-key: KEY'", code="missing_api_key"
    )


def is_local(asked: Credentials) -> bool:
    """Whether the peer is a process on this machine that speaks for itself."""
    passed_on = any(name in _PROXY_HEADERS or name.startswith(_PROXY_PREFIX) for name in asked.headers)
    return is_loopback(asked.address) and not passed_on


def is_loopback(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address.split("%", 1)[0])
    except ValueError:
        return address == "localhost"
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback


# ------------------------------------------------------------------------------------------------------- login cookie


def login_matches(text: str, keys: Keys) -> bool:
    """Whether ``text`` is the key that the login form takes."""
    return keys.login is not None and hmac.compare_digest(_digest(text), keys.login)


def make_cookie(keys: Keys) -> str:
    """A signed proof of having known the key. A changed key makes it worthless."""
    return signing.dumps(_cookie_content(keys), salt=_COOKIE_SALT)


def valid_cookie(cookie: str, keys: Keys) -> bool:
    if not cookie or keys.login is None:
        return False
    try:
        content = signing.loads(cookie, salt=_COOKIE_SALT, max_age=COOKIE_DAYS * 86400)
    except signing.BadSignature:
        return False
    return isinstance(content, str) and hmac.compare_digest(content, _cookie_content(keys))


def _cookie_content(keys: Keys) -> str:
    return hashlib.sha256(b"cookie:" + (keys.login or b"")).hexdigest()


# -------------------------------------------------------------------------------------------------------------- names


def _client_name(asked: Credentials, keys: Keys) -> str:
    """Bearer text, else ``X-Client``, else user agent and address: printable, short, and no secret."""
    token = _token(asked.headers)
    if token and keys.login is None and not _taken(name := _masked(token), keys):
        return name
    if (name := _clean(asked.headers.get("x-client", ""))) and not _taken(name, keys):
        return name
    agent = _clean(asked.headers.get("user-agent", "")).split(" ", 1)[0]
    return f"{agent or 'unknown'} at {asked.address or 'unknown'}"


def _taken(name: str, keys: Keys) -> bool:
    """Whether that name is proved by a key, and not just said."""
    return name in OWN_NAMES or keys.has_key(name)


def _masked(token: str) -> str:
    """A name is kept; what looks like a real key of some provider becomes a fingerprint, as names are logged."""
    clean = _clean(token)
    looks_secret = len(token) > 32 or re.search(r"[A-Za-z0-9]{20,}", token) is not None
    if clean and not looks_secret:
        return clean
    return "key-" + _digest(token).hex()[:8]


def _clean(text: str) -> str:
    return "".join(c for c in text if c.isprintable()).strip()[:_LONGEST_NAME]


def _token(headers: Mapping[str, str]) -> str:
    scheme, _, value = headers.get("authorization", "").strip().partition(" ")
    if scheme.lower() == "bearer" and value.strip():
        return value.strip()
    return headers.get("x-api-key", "").strip()


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def _under(path: str, root: str) -> bool:
    return path == root or path.startswith(root + "/")
