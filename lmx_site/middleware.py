"""Django's page middleware without its thread hops, and only where there are pages.

Each of these does pure computation (sessions and messages live in signed cookies), so they run on the event loop
itself; Django's own async adapter would send every hook to a thread. API paths pass straight through: they know no
cookie, no CSRF token and no user.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.messages.middleware import MessageMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.middleware.csrf import CsrfViewMiddleware
from django.utils.functional import SimpleLazyObject

from inference.principal import Principal
from lmx_site.access import is_api

OWNER_NAME = "owner"
_AsyncResponse = Callable[[HttpRequest], Awaitable[HttpResponseBase]]


class _Pages:
    """Runs a middleware's hooks on the loop, for page requests only."""

    get_response: Any

    async def __acall__(self, request: HttpRequest) -> HttpResponseBase:
        forward = cast("_AsyncResponse", self.get_response)
        if is_api(request.path_info):
            return await forward(request)
        process_request = getattr(self, "process_request", None)
        early = process_request(request) if process_request else None
        response: HttpResponseBase = early or await forward(request)
        process_response = getattr(self, "process_response", None)
        return process_response(request, response) if process_response else response


class Sessions(_Pages, SessionMiddleware):
    pass


class Messages(_Pages, MessageMiddleware):
    pass


class Csrf(_Pages, CsrfViewMiddleware):
    async def process_view(  # type: ignore[override]  # Django awaits an async hook and threads a sync one
        self, request: HttpRequest, callback: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> HttpResponseBase | None:
        return None if is_api(request.path_info) else super().process_view(request, callback, args, kwargs)


class OwnerUser(_Pages, AuthenticationMiddleware):
    """Gives Django's admin the user it expects: the owner, whenever the edge let an admin through."""

    def process_request(self, request: HttpRequest) -> None:
        request.user = SimpleLazyObject(lambda: _user_for(request))  # type: ignore[assignment]


def _user_for(request: HttpRequest) -> User | AnonymousUser:
    principal: Principal | None = getattr(request, "principal", None)
    if principal is None or not principal.may("admin"):
        return AnonymousUser()
    user, _ = User.objects.get_or_create(
        username=OWNER_NAME, defaults={"is_staff": True, "is_superuser": True, "password": "!"}
    )
    return user
