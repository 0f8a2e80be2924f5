"""The Django site: configuration, the edge, the server process and the place where all parts are put together."""

from __future__ import annotations

__version__ = "0.1.0"
