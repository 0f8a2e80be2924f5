"""One loop that runs messages one after the other, and the tasks that post to it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

log = logging.getLogger(__name__)

Message = Callable[[], None]


class Mailbox:
    """Messages run in order in one task; ``settle`` is awaited after each batch of them.

    A message that raises is logged and costs nobody else anything. Tasks begun with ``spawn`` end by posting.
    """

    def __init__(self, name: str, settle: Callable[[], Awaitable[None]]) -> None:
        self._name = name
        self._settle = settle
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop_task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._loop_task = asyncio.create_task(self._run(), name=self._name)

    def post(self, message: Message) -> None:
        self._inbox.put_nowait(message)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _run(self) -> None:
        while True:
            message = await self._inbox.get()
            try:
                message()
                if self._inbox.empty():
                    await self._settle()
            except Exception:
                log.exception("a message to %s failed", self._name)

    async def finish(self, limit_s: float, too_late: Callable[[], None]) -> None:
        """Wait for all tasks and messages, then end the loop; past the limit, ``too_late`` is called repeatedly."""
        deadline = time.monotonic() + limit_s
        while self._tasks or not self._inbox.empty():
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=max(0.1, deadline - time.monotonic()))
            await asyncio.sleep(0)
            if time.monotonic() > deadline:
                too_late()
        if self._loop_task is not None:
            self._loop_task.cancel()
            await asyncio.wait({self._loop_task})
            self._loop_task = None
