"""What Django's admin can do to models: it asks the running server, as the API does, and edits no table."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from django.contrib import messages
from django.db.models import QuerySet
from django.http import HttpRequest

from inference.api.deps import catalog, keeper
from inference.catalog import ModelRef
from inference.engine import get_engine
from inference.errors import LmxError, ModelUnavailable
from models_admin.models import ModelRecord

log = logging.getLogger(__name__)

MOST = 100
"""So many at once; the rest is told to be left."""

_loads: set[asyncio.Task[None]] = set()
_loop: asyncio.AbstractEventLoop | None = None


def set_loop(loop: asyncio.AbstractEventLoop | None) -> None:
    """The server's event loop, to which catalog, keeper and engine belong; None where there is no server (any more)."""
    global _loop
    _loop = loop


def each(
    request: HttpRequest, records: QuerySet[ModelRecord], work: Callable[[ModelRef], Awaitable[object]], done: str
) -> None:
    """Do ``work`` with the model of every record, and say what became of each. On a thread of Django's."""
    chosen = list(records[: MOST + 1])
    request.audited = [str(record) for record in chosen[:MOST]]  # type: ignore[attr-defined]
    fine = 0
    for record in chosen[:MOST]:
        try:
            _on_the_loop(_one(record.path, work))
        except LmxError as error:
            messages.error(request, f"{record}: {error.message}")
        else:
            fine += 1
    if fine:
        messages.success(request, f"{done}: {fine} {'model' if fine == 1 else 'models'}")
    if len(chosen) > MOST:
        messages.warning(request, f"No more than {MOST} at once; the others were left as they are.")


def _on_the_loop(work: Coroutine[Any, Any, None]) -> None:
    """Wait on this thread for what the server's loop does.

    In a context of its own: in the request's, whatever it does with the database would wait for this very thread.
    """
    if _loop is None:
        work.close()
        raise ModelUnavailable("the server is starting or stopping")
    contextvars.Context().run(asyncio.run_coroutine_threadsafe, work, _loop).result()


async def _one(path: str, work: Callable[[ModelRef], Awaitable[object]]) -> None:
    ref = next((ref for ref in catalog().all() if str(ref.path) == path), None)
    if ref is None:
        raise _NotListed("it is not on the list: gone from the disk for long, or taken off")
    await work(ref)


class _NotListed(LmxError):
    status, code = 404, "model_not_found"


async def verify(ref: ModelRef) -> None:
    """Begin to read its files."""
    await keeper().verify(ref.id)


async def forget(ref: ModelRef) -> None:
    """Take it off the list."""
    await keeper().delete(ref.id, path=str(ref.path), forget=True)


async def pin(ref: ModelRef) -> None:
    """Load it if need be and keep it; nobody waits for that here."""
    if ref.problem is not None:
        raise _NotListed(ref.problem)
    task = asyncio.create_task(_load(ref.id), name=f"load {ref.id}")
    _loads.add(task)
    task.add_done_callback(_loads.discard)


async def _load(name: str) -> None:
    try:
        await get_engine().load(name, context=None, slots=None, pin=True)
    except LmxError as error:
        log.warning("loading %s failed: %s", name, error.message)
