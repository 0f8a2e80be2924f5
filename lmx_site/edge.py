"""The edge: what is refused before any view runs, and what every answer carries.

In this order: host (DNS rebinding), preflight, origin (a web page must not drive the server), content type, body size,
then ``authorize``. ``EdgeMiddleware`` is the first in Django's chain, ``WebsocketEdge`` wraps the websocket routes;
both apply the same ``Policy``. Errors on API paths are JSON in the shape of the protocol of the path, whoever made
them; request ids come from ``lmx_site.observe``, which wraps this from outside.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import quote

from asgiref.sync import markcoroutinefunction
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase

from inference.errors import (
    BodyTooLarge,
    Forbidden,
    InternalError,
    InvalidRequest,
    LmxError,
    MethodNotAllowed,
    NotFound,
    Unauthorized,
    UnsupportedMediaType,
)
from inference.principal import acting
from inference.protocols.errors import error_response, spoken_path
from lmx_site import access
from lmx_site.policy import MAX_BODY_BYTES, Policy, get_policy

logger = logging.getLogger(__name__)

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_OWNERS = "/admin/"
"""What even to read is work that no page of another origin may cause: a walk over all disks, say."""
# Routes that take multipart uploads; every other API route takes JSON only.
UPLOAD_ROUTES: frozenset[str] = frozenset()
_FORM_TYPES = frozenset({"application/x-www-form-urlencoded", "multipart/form-data", "application/json"})
_EXPOSED = "x-request-id, request-id, x-lmx-ignored, x-should-retry, retry-after"
_PAGE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}

GetResponse = Callable[[HttpRequest], Awaitable[HttpResponseBase]]


class EdgeMiddleware:
    """Async only. Puts the ``Principal`` into ``request.principal``; the API and the pages trust it."""

    sync_capable = False
    async_capable = True

    def __init__(self, get_response: GetResponse) -> None:
        self._get_response = get_response
        markcoroutinefunction(self)

    async def __call__(self, request: HttpRequest) -> HttpResponseBase:
        policy = get_policy()
        try:
            response = _preflight(request, policy) or await self._checked(request, policy)
        except LmxError as refusal:
            response = _refuse(request, refusal)
        _finish(request, response, policy)
        return response

    async def _checked(self, request: HttpRequest, policy: Policy) -> HttpResponseBase:
        check_request(request, policy)
        principal = access.authorize(request)
        request.principal = principal  # type: ignore[attr-defined]
        acting.set(principal)
        scope = getattr(request, "scope", None)
        if scope is not None:
            scope["lmx.principal"] = principal
        response = await self._get_response(request)
        return _in_shape(request, response) if access.is_api(request.path_info) else response


def check_request(request: HttpRequest, policy: Policy) -> None:
    """Raise the refusal of a request whose host, origin, content type or size is not allowed."""
    check_host(request.META.get("HTTP_HOST"), policy)
    reads = request.method in _SAFE_METHODS
    if request.method == "OPTIONS" or (reads and not request.path_info.startswith(_OWNERS)):
        return
    own = f"{request.scheme}://{request.META.get('HTTP_HOST', '')}"
    check_origin(request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site"), own, policy)
    if reads:
        return
    _check_size(request)
    _check_content_type(request)
    _check_coding(request)


def check_host(host: str | None, policy: Policy) -> None:
    """A name that is not ours means a web page resolved its own name to this machine."""
    if host is not None and not policy.allows_host(host):
        raise Forbidden(
            f"the host name {host[:100]!r} is not one of this server's; add it to server.allowed_hosts if it is",
            code="host_not_allowed",
        )


def check_origin(origin: str | None, fetch_site: str | None, own: str, policy: Policy) -> None:
    """Refuse what a page of another origin sends; programs send neither header."""
    if origin is not None:
        if origin.lower() == own.lower() or policy.allows_origin(origin):
            return
        shown = origin[:100]
    elif fetch_site is None or fetch_site in ("same-origin", "none"):
        return
    else:
        shown = fetch_site[:100]
    raise Forbidden(
        f"a page of another origin ({shown}) may not use this server; security.cors_origins names those that may",
        code="origin_not_allowed",
    )


def _check_size(request: HttpRequest) -> None:
    """The server already stops reading at the limit; this holds for every other way a request can arrive."""
    declared = request.META.get("CONTENT_LENGTH") or "0"
    if not declared.isdecimal():
        raise InvalidRequest("Content-Length is not a number")
    if int(declared) > MAX_BODY_BYTES:
        raise BodyTooLarge(f"the body has {int(declared):,} bytes; the limit is {MAX_BODY_BYTES:,}")


def _check_content_type(request: HttpRequest) -> None:
    kind = (request.content_type or "").lower()
    path = request.path_info
    if not access.is_api(path):
        if kind and kind not in _FORM_TYPES:
            raise UnsupportedMediaType(f"this page takes a form, not {kind[:100]}")
        return
    if kind == "application/json" or (kind == "multipart/form-data" and path in UPLOAD_ROUTES):
        return
    if request.method == "DELETE" and not kind and int(request.META.get("CONTENT_LENGTH") or 0) == 0:
        return
    raise UnsupportedMediaType(f"send 'Content-Type: application/json' (this was {kind[:100] or 'without one'})")


def _check_coding(request: HttpRequest) -> None:
    coding = request.headers.get("Content-Encoding", "").strip()
    if coding.lower() not in ("", "identity"):
        raise UnsupportedMediaType(f"a body is taken as it is, without 'Content-Encoding: {coding[:100]}'")


# ----------------------------------------------------------------------------------------------------------- answers


def _preflight(request: HttpRequest, policy: Policy) -> HttpResponseBase | None:
    """The answer to a browser that asks before it sends; None when this is something else."""
    asked_method = request.headers.get("Access-Control-Request-Method")
    origin = request.headers.get("Origin")
    if request.method != "OPTIONS" or asked_method is None or origin is None:
        return None
    check_host(request.META.get("HTTP_HOST"), policy)
    if not access.is_api(request.path_info) or not policy.allows_origin(origin):
        raise Forbidden(
            f"a page of another origin ({origin[:100]}) may not use this server; "
            "security.cors_origins names those that may",
            code="origin_not_allowed",
        )
    response = HttpResponse(status=204)
    response.headers["Access-Control-Allow-Methods"] = "GET, POST, DELETE, OPTIONS"
    wanted = request.headers.get("Access-Control-Request-Headers", "content-type, authorization")
    response.headers["Access-Control-Allow-Headers"] = wanted
    response.headers["Access-Control-Max-Age"] = "600"
    if request.headers.get("Access-Control-Request-Private-Network") == "true":
        response.headers["Access-Control-Allow-Private-Network"] = "true"
    return response


def _finish(request: HttpRequest, response: HttpResponseBase, policy: Policy) -> None:
    origin = request.headers.get("Origin")
    if access.is_api(request.path_info):
        if policy.cors_origins:
            response.headers["Vary"] = "Origin"
        if origin is not None and policy.allows_origin(origin):
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Expose-Headers"] = _EXPOSED
        response.headers["X-Content-Type-Options"] = "nosniff"
    else:
        for name, value in _PAGE_HEADERS.items():
            response.headers.setdefault(name, value)
    if isinstance(response, HttpResponse) and "Content-Length" not in response.headers and response.status_code != 204:
        response.headers["Content-Length"] = str(len(response.content))


def _refuse(request: HttpRequest, refusal: LmxError) -> HttpResponseBase:
    path = request.path_info
    if access.is_api(path):
        return error_response(refusal, spoken_path(path, request.headers))
    if isinstance(refusal, Unauthorized):
        return _to_login(request)
    return HttpResponse(refusal.message + "\n", status=refusal.status, content_type="text/plain; charset=utf-8")


def _to_login(request: HttpRequest) -> HttpResponseBase:
    looks = request.method in ("GET", "HEAD")
    target = "/login?next=" + quote(request.get_full_path() if looks else "/")
    if request.headers.get("HX-Request") == "true":  # htmx would swap the login page into a fragment
        return HttpResponse(status=401, headers={"HX-Redirect": target})
    if looks:
        return HttpResponseRedirect(target)
    return HttpResponse("log in first\n", status=401, content_type="text/plain; charset=utf-8")


def _in_shape(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    """Turn Django's own HTML and text errors into the shape of the protocol."""
    kind = response.headers.get("Content-Type", "")
    if response.status_code < 400 or response.streaming or kind.startswith("application/json"):
        return response
    path, status = request.path_info, response.status_code
    error: LmxError
    if status == 404:
        error = NotFound(f"there is no {path[:200]} here")
    elif status == 405:
        allowed = response.headers.get("Allow", "")
        error = MethodNotAllowed(f"{request.method} is not for {path[:200]}" + (f"; use {allowed}" if allowed else ""))
    elif status == 413:
        error = BodyTooLarge(f"the body is larger than {MAX_BODY_BYTES:,} bytes")
    elif status < 500:
        error = InvalidRequest("the request cannot be read")
        error.status = status
    else:
        error = InternalError("something went wrong on the server; its log has the details under this request's id")
    shaped = error_response(error, spoken_path(path, request.headers))
    if "Allow" in response.headers:
        shaped.headers["Allow"] = response.headers["Allow"]
    return shaped


# --------------------------------------------------------------------------------------------------------- websocket

Scope = dict[str, Any]
AsgiApp = Callable[[Scope, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]


class WebsocketEdge:
    """The same rules for a websocket; a refusal closes it before it is accepted (HTTP 403 to the client).

    ``scope["principal"]`` holds the principal for the consumer.
    """

    def __init__(self, app: AsgiApp) -> None:
        self._app = app

    async def __call__(
        self, scope: Scope, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        scope["root_path"] = ""  # daphne takes it from a request header
        try:
            scope["principal"] = admit_websocket(scope, get_policy())
        except LmxError as refusal:
            logger.warning("websocket refused: %s", refusal.message)
            await receive()
            await send({"type": "websocket.close", "code": 4403})
            return
        await self._app(scope, receive, send)


def admit_websocket(scope: Scope, policy: Policy) -> Any:
    """The principal of a websocket; raises the refusal."""
    headers = {name.decode("latin1").lower(): value.decode("latin1") for name, value in scope.get("headers", [])}
    check_host(headers.get("host"), policy)
    scheme = "https" if scope.get("scheme") == "wss" else "http"
    own = f"{scheme}://{headers.get('host', '')}"
    check_origin(headers.get("origin"), headers.get("sec-fetch-site"), own, policy)
    client = scope.get("client") or ("", 0)
    cookies = _cookies(headers.get("cookie", ""))
    return access.decide(access.Credentials(scope["path"], str(client[0]), headers, cookies), access.get_keys())


def _cookies(header: str) -> dict[str, str]:
    try:
        return {name: morsel.value for name, morsel in SimpleCookie(header).items()}
    except CookieError:
        return {}
