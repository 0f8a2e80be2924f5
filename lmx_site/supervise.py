"""Background tasks that must not die quietly."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

logger = logging.getLogger(__name__)

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0


async def keep_running(name: str, work: Callable[[], Awaitable[None]], first_pause_s: float = FIRST_PAUSE_S) -> None:
    """Run ``work`` until it returns or this task is cancelled; log what it raises and begin again, ever more slowly."""
    pause = first_pause_s
    loop = asyncio.get_running_loop()
    while True:
        began = loop.time()
        try:
            await work()
        except Exception:
            if loop.time() - began > LONGEST_PAUSE_S:
                pause = first_pause_s  # it worked for a while: this is a new misfortune
            logger.exception("%s failed; it starts again in %.0f s", name, pause)
        else:
            return
        await asyncio.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE_S)
