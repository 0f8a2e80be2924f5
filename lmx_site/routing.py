"""The websocket routes."""

from __future__ import annotations

from typing import Any

from channels.routing import URLRouter
from django.urls import re_path

from monitoring.routing import websocket_urlpatterns


async def _unknown(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Refuse the handshake of any other path."""
    await receive()
    await send({"type": "websocket.close"})


websocket_application = URLRouter([*websocket_urlpatterns, re_path(r"", _unknown)])
