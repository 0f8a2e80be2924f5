"""Websocket addresses of this app."""

from __future__ import annotations

from django.urls import URLPattern, path

from monitoring.consumers import LiveConsumer

# An ASGI application is not a view to the type checker, but channels' URLRouter takes it in this place.
websocket_urlpatterns: list[URLPattern] = [path("ws", LiveConsumer.as_asgi())]  # type: ignore[arg-type]
