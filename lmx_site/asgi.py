"""The ASGI application: HTTP through Django, websockets through the edge.

Starting and stopping is ``lmx_site.server``'s.
"""

from __future__ import annotations

import os

import django
from channels.routing import ProtocolTypeRouter
from django.core.handlers.asgi import ASGIHandler

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "lmx_site.settings")
django.setup(set_prefix=False)

from lmx_site.edge import WebsocketEdge  # noqa: E402  # these import models, which need set-up apps
from lmx_site.observe import Observed  # noqa: E402
from lmx_site.routing import websocket_application  # noqa: E402

application = ProtocolTypeRouter(
    {
        "http": Observed(ASGIHandler()),
        "websocket": WebsocketEdge(websocket_application),
    }
)
