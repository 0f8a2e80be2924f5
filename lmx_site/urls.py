"""Where each part of the site is mounted."""

from __future__ import annotations

from django.contrib import admin
from django.urls import URLPattern, URLResolver, include, path

from lmx_site import login, static_files

urlpatterns: list[URLPattern | URLResolver] = [
    path("static/<path:path>", static_files.serve, name="static"),
    path("login", login.login, name="login"),
    path("logout", login.logout, name="logout"),
    path("inventory/", admin.site.urls),
    path("", include("inference.api.urls")),
    path("", include("monitoring.urls")),
]
