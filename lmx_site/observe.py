"""Wraps Django from outside: gives every answer its ``x-request-id`` and writes one access line when it has ended.

The line names method, path without query, status, client, model when the API said which (``scope["lmx.model"]``) and
milliseconds until the last byte was handed over; never a body. The id is also on every log line written meanwhile.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any

from inference.errors import InternalError
from inference.protocols.errors import error_bytes, speaks_anthropic
from inference.request_id import request_id
from lmx_site.access import is_api

logger = logging.getLogger(__name__)
access_log = logging.getLogger("lmx.access")

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

_QUIET = ("/static/",)  # a page brings a dozen of these


class Observed:
    """``scope["lmx.request_id"]`` holds the id; views may read it and may set ``scope["lmx.model"]``."""

    def __init__(self, app: AsgiApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        identity = new_request_id()
        scope["lmx.request_id"] = identity
        scope["root_path"] = ""  # daphne takes it from a request header, and paths decide who may do what
        request_id.set(identity)
        status = 0

        async def sending(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = list(message.get("headers", ()))
                named = next((value for name, value in headers if name.lower() == b"x-request-id"), None)
                if named is None:
                    message["headers"] = [*headers, *((name, identity.encode()) for name in _id_headers(scope))]
                else:
                    scope["lmx.request_id"] = named.decode("latin1")
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception:
            logger.exception("%s %s failed outside every view", scope["method"], scope["path"])
            if status:
                raise  # the server cuts the connection: an answer that is half sent must not look whole
            await _apologise(scope["path"], sending)
        finally:
            log_access(scope, status, time.perf_counter() - started)


def _id_headers(scope: Scope) -> tuple[bytes, ...]:
    """Anthropic's clients look for the id under a name of its own."""
    sent = any(name == b"anthropic-version" for name, _ in scope.get("headers", ()))
    return (b"x-request-id", b"request-id") if sent or speaks_anthropic(scope["path"]) else (b"x-request-id",)


async def _apologise(path: str, send: Send) -> None:
    error = InternalError("something went wrong on the server; its log has the details under this request's id")
    body, kind = (error_bytes(error, path), b"application/json") if is_api(path) else (b"server error\n", b"text/plain")
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 500, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def new_request_id() -> str:
    return "req_" + secrets.token_hex(12)


def log_access(scope: Scope, status: int, seconds: float) -> None:
    """The access line of a request; ``scope`` has at least its method, path and id."""
    path: str = scope["path"]
    if status < 400 and path.startswith(_QUIET):
        return
    principal = scope.get("lmx.principal")
    access_log.info(
        "%s %s %s",
        scope["method"],
        path,
        status or "gone",  # the client left before there was an answer
        extra={
            "fields": {
                "request": scope["lmx.request_id"],
                "method": scope["method"],
                "path": path,
                "status": status,
                "client": principal.id if principal is not None else None,
                "model": scope.get("lmx.model"),
                "ms": round(seconds * 1000, 1),
            }
        },
    )
