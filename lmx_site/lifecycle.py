"""The stop of the server: what ends when.

The order: jobs are cancelled; the engine refuses new requests and lets running ones finish; what is left after the
drain limit is cancelled by the engine, so that every stream still gets its last frames; then the tasks that answer
requests are given a moment to end, cancelled if they do not, and awaited; only then the rest of the runtime goes.
Cancelling the outer task alone leaves Django's inner one alive, and CPython 3.11 then crashes at exit.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from lmx_site.runtime import Runtime

logger = logging.getLogger(__name__)

LAST_FRAMES_S = 2.0  # from the engine's last event to the last byte in the socket
CANCEL_S = 5.0


async def stop_everything(runtime: Runtime, answering: Iterable[asyncio.Task[Any]]) -> None:
    """Stop in the documented order. ``answering`` are the tasks that run ASGI applications. Never raises."""
    keep = runtime.tasks() | {current for current in [asyncio.current_task()] if current is not None}
    await _whatever_happens(runtime.drain)
    await settle(answering, LAST_FRAMES_S)
    rest = [task for task in asyncio.all_tasks() if task not in keep and not task.done()]
    for task in rest:
        task.cancel()
    await settle(rest, CANCEL_S)
    await _whatever_happens(runtime.stop)


async def _whatever_happens(step: Callable[[], Awaitable[None]]) -> None:
    try:
        await step()
    except Exception:
        logger.exception("a part did not stop cleanly; the others are stopped all the same")


async def settle(tasks: Iterable[asyncio.Task[Any]], limit_s: float) -> None:
    """Wait until all are done, at most ``limit_s`` seconds."""
    waiting = [task for task in tasks if not task.done()]
    if waiting:
        await asyncio.wait(waiting, timeout=limit_s)
