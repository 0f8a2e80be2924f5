"""The id of the HTTP request that is being served, as its answer's headers and the log have it."""

from __future__ import annotations

from contextvars import ContextVar

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""``req_…``; None where nobody gave one. What a request starts inherits it."""
