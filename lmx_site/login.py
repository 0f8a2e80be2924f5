"""The login form: takes the admin key, gives a signed cookie."""

from __future__ import annotations

import asyncio
import logging
from weakref import WeakValueDictionary

from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_http_methods, require_POST

from lmx_site import access

logger = logging.getLogger(__name__)

_FAILURE_DELAY_S = 0.5  # guessing a key over the network costs time, one try after the other
_guessing: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()


def guessing(address: str) -> asyncio.Lock:
    """Held while a key from that address is tried: a stranger who guesses does not keep the owner waiting."""
    lock = _guessing.get(address)
    if lock is None:
        lock = _guessing[address] = asyncio.Lock()
    return lock


@require_http_methods(["GET", "POST"])
async def login(request: HttpRequest) -> HttpResponseBase:
    """The form, and what it sends: ``key`` and ``next`` (a path of this site)."""
    keys = access.get_keys()
    target = _safe_target(request, request.POST.get("next") or request.GET.get("next") or "/")
    if keys.login is None:
        return HttpResponseRedirect(target)
    if request.method == "GET":
        return render(request, "login.html", {"next": target, "wrong": False})
    async with guessing(str(request.META.get("REMOTE_ADDR"))):
        if not access.login_matches(request.POST.get("key", "").strip(), keys):
            await asyncio.sleep(_FAILURE_DELAY_S)
            logger.warning("wrong key at the login form from %s", request.META.get("REMOTE_ADDR"))
            return render(request, "login.html", {"next": target, "wrong": True}, status=403)
    response = HttpResponseRedirect(target)
    response.set_cookie(
        access.COOKIE,
        access.make_cookie(keys),
        max_age=access.COOKIE_DAYS * 86400,
        httponly=True,
        samesite="Strict",
        secure=request.is_secure(),
    )
    return response


@require_POST
async def logout(request: HttpRequest) -> HttpResponse:
    response = HttpResponseRedirect("/login")
    response.delete_cookie(access.COOKIE, samesite="Strict")
    return response


def _safe_target(request: HttpRequest, target: str) -> str:
    ours = url_has_allowed_host_and_scheme(target, allowed_hosts=None) and target.startswith("/")
    return target if ours and not target.startswith("/login") else "/"
