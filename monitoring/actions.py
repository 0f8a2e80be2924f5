"""Loading and unloading on behalf of the page: in the background, once per model, with the outcome kept in words.

A load takes up to minutes and a browser tab may be gone by then, so the page's request only starts it. What went wrong
stays as a notice (hub topic ``notices``) until it is dismissed or the model is tried again. Belongs to the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Sequence
from typing import Any

from inference.engine import get_engine
from inference.errors import LmxError
from monitoring.hub import get_hub
from monitoring.payloads import NOTICES, Action, Notice

log = logging.getLogger(__name__)

GRACE_S = 0.3
NOTICES_KEPT = 50


class Actions:
    """``GRACE_S`` is how long a request waits for an early outcome, so that most refusals show at once."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._notices: dict[str, Notice] = {}

    def notices(self) -> list[Notice]:
        return sorted(self._notices.values(), key=lambda notice: notice["at"])

    async def load(self, model: str, evict: Sequence[str] = ()) -> None:
        """Start loading ``model``, after unloading those in ``evict``."""
        await self._begin(model, "load", self._load(model, evict))

    async def unload(self, model: str) -> None:
        await self._begin(model, "unload", self._unload(model))

    async def pin(self, model: str, *, on: bool) -> None:
        """Keep ``model`` in memory, loading it if need be, or let it leave again."""
        await self._begin(model, "pin", self._pin(model, on=on))

    def refused(self, model: str, action: Action, message: str) -> None:
        """Keep in words what another part refused."""
        self._note(model, action, message, [])

    def dismiss(self, model: str) -> None:
        if self._notices.pop(model, None) is not None:
            self._publish()

    async def settled(self) -> None:
        """Return when nothing is under way."""
        while self._tasks:
            await asyncio.wait(set(self._tasks.values()))

    # ------------------------------------------------------------------------------------------------------ inside

    async def _begin(self, model: str, action: Action, work: Coroutine[Any, Any, None]) -> None:
        """A second click while the first is under way does nothing."""
        if model in self._tasks:
            work.close()
            return
        self.dismiss(model)
        task = asyncio.create_task(self._run(model, action, work), name=f"{action} {model}")
        self._tasks[model] = task
        task.add_done_callback(lambda _: self._tasks.pop(model, None))
        await asyncio.wait({task}, timeout=GRACE_S)

    async def _run(self, model: str, action: Action, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except LmxError as error:
            self._note(model, action, error.message, evictable(error))
        except Exception:
            log.exception("%s of %s failed", action, model)
            self._note(model, action, f"{model}: the {action} failed; the server's log says why.", [])

    async def _load(self, model: str, evict: Sequence[str]) -> None:
        for other in evict:
            await get_engine().unload(other)
        await get_engine().load(model, context=None, slots=None, pin=None)

    async def _pin(self, model: str, *, on: bool) -> None:
        await get_engine().load(model, context=None, slots=None, pin=on)

    async def _unload(self, model: str) -> None:
        await get_engine().unload(model)

    def _note(self, model: str, action: Action, message: str, evict: list[str]) -> None:
        while len(self._notices) >= NOTICES_KEPT:
            self._notices.pop(next(iter(self._notices)))
        self._notices[model] = {
            "model": model,
            "action": action,
            "message": message,
            "evict": evict,
            "at": time.time(),
        }
        self._publish()

    def _publish(self) -> None:
        get_hub().publish(NOTICES, self.notices())


def evictable(error: LmxError) -> list[str]:
    """The loaded models that a 507 names as those whose unloading would make room."""
    return [str(model) for model in error.details.get("unload") or ()]


_actions = Actions()


def get_actions() -> Actions:
    return _actions
