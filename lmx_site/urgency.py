"""How urgent one request is: its client's priority, which a header may lower, and how long the client will wait.

``X-Priority: low | normal | high``. A client cannot make itself more important than its owner's configuration made it:
a higher one than its own has no effect. ``X-Timeout: SECONDS`` from the arrival of the request; what is not done by
then is refused or ended. The SDKs' ``x-stainless-timeout`` is not read: it is how long a client waits for the *next
bytes* of its connection, ten minutes unless somebody set it, and says nothing of how long an answer may take.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from inference.errors import InvalidRequest
from inference.principal import Principal

PRIORITIES = {"low": -1, "normal": 0, "high": 1}
_LONGEST_S = 86400.0


def with_urgency(principal: Principal, headers: Mapping[str, str]) -> Principal:
    """``principal`` for this one request; ``headers`` have lower-case names. Raises ``InvalidRequest``."""
    wanted, patience = headers.get("x-priority"), headers.get("x-timeout")
    if wanted is None and patience is None:
        return principal
    priority = principal.priority if wanted is None else min(principal.priority, _priority(wanted))
    return replace(principal, priority=priority, patience_s=None if patience is None else _seconds(patience))


def _priority(text: str) -> int:
    try:
        return PRIORITIES[text.strip().lower()]
    except KeyError:
        raise InvalidRequest("X-Priority must be low, normal or high", param="X-Priority") from None


def _seconds(text: str) -> float:
    try:
        seconds = float(text.strip()) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= _LONGEST_S:
        raise InvalidRequest(
            f"X-Timeout must be a number of seconds greater than 0 and at most {_LONGEST_S:.0f}", param="X-Timeout"
        )
    return seconds
