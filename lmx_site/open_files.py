"""How many connections and files the process may have open at once."""

from __future__ import annotations

import resource
from contextlib import suppress

WANTED = 8192
"""macOS gives 256 to begin with: fewer than the clients that one model's queue takes."""


def raise_limit(wanted: int = WANTED) -> int:
    """Raise the soft limit to ``wanted``, or as far as the system lets us; never lower it. Returns what holds now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < target:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
