"""The websocket routes."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from channels.routing import URLRouter
from django.urls import re_path

websocket_urlpatterns: list[Any] = []
if find_spec("monitoring.consumers"):
    from monitoring.consumers import LiveConsumer

    websocket_urlpatterns.append(re_path(r"^ws$", LiveConsumer.as_asgi()))

websocket_application = URLRouter(websocket_urlpatterns)
