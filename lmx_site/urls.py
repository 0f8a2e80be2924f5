"""Where each part of the site is mounted."""

from __future__ import annotations

from importlib.util import find_spec

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path

from lmx_site import login, static_files

# Parts that are still being written are mounted as soon as they are there.
_PARTS = [name for name in ("inference.api.urls", "monitoring.urls") if find_spec(name)]

urlpatterns: list[URLPattern | URLResolver] = [
    path("static/<path:path>", static_files.serve, name="static"),
    path("login", login.login, name="login"),
    path("logout", login.logout, name="logout"),
    path("inventory/", admin.site.urls),
    *(path("", include(name)) for name in _PARTS),
]
