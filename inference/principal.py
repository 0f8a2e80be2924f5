"""Who is asking."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

Scope = Literal["inference", "admin"]


@dataclass(frozen=True, slots=True)
class Principal:
    """The asker of one request: ``owner`` (loopback without keys, or the admin key), ``key`` or ``anonymous``.

    ``id`` is the name used for fairness, ledger, logs and pages (a key's name, the bearer text a client sends when
    no key is set, ``X-Client``, or user agent and address). ``priority`` is -1 (low), 0 or 1 (high): of requests that
    wait for the same model the higher go first; a request may have lowered it. ``patience_s`` is after how many seconds
    the client gives up on this request, None if it did not say.
    """

    kind: Literal["owner", "key", "anonymous"]
    id: str
    scopes: frozenset[Scope]
    priority: int = 0
    patience_s: float | None = None

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes


acting: ContextVar[Principal | None] = ContextVar("acting", default=None)
"""On whose behalf something is done; None for what the server does by itself. What a request starts inherits it."""
