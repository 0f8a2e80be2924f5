"""The websocket routes."""

from __future__ import annotations

from typing import Any

from channels.routing import URLRouter
from django.urls import re_path

from monitoring.consumers import LiveConsumer


async def _unknown(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Refuse the handshake of any other path."""
    await receive()
    await send({"type": "websocket.close"})


# ASGI applications are not views to the type checker, but URLRouter takes them in this place.
_routes: list[Any] = [
    re_path(r"^ws$", LiveConsumer.as_asgi()),  # type: ignore[arg-type]
    re_path(r"", _unknown),  # type: ignore[arg-type]
]
websocket_application: Any = URLRouter(_routes)
