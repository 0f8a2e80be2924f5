"""Runs a mix: begins each request at its moment, ends those that are to be ended, and gathers what each client saw."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from tests.isolation.plans import Ask, Moment
from tests.isolation.seen import Seen

PATIENCE_S = 120.0


class Board:
    """How many events each request of a mix has had, and who waits for a moment. Belongs to one event loop."""

    def __init__(self, count: int) -> None:
        self._counts = [0] * count
        self._over = [False] * count
        self._waiting: list[tuple[Moment, asyncio.Future[None]]] = []

    def event(self, at: int) -> None:
        self._counts[at] += 1
        self._look()

    def over(self, at: int) -> None:
        self._over[at] = True
        self._look()

    async def reached(self, moment: Moment) -> None:
        if not self._is_reached(moment):
            waiting = asyncio.get_running_loop().create_future()
            self._waiting.append((moment, waiting))
            await waiting

    def _is_reached(self, moment: Moment) -> bool:
        return self._over[moment.of] or self._counts[moment.of] >= moment.count

    def _look(self) -> None:
        """Who waits goes on within this turn of the loop or the next, before the request has had many more events."""
        for moment, waiting in self._waiting:
            if not waiting.done() and self._is_reached(moment):
                waiting.set_result(None)
        self._waiting = [entry for entry in self._waiting if not entry[1].done()]


class Layer(Protocol):
    """A way to ask a model. ``seen`` is filled as an answer comes, and ``board`` told of each of its events."""

    def ask(self, at: int, ask: Ask, board: Board, seen: Seen) -> Coroutine[Any, Any, None]: ...

    async def cancel(self, at: int) -> None:
        """End number ``at`` of the mix as the owner would. It may be over already."""
        ...


async def run(mix: list[Ask], layer: Layer) -> list[Seen]:
    """What each client saw, in the order of the mix."""
    board = Board(len(mix))
    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
        tasks = [group.create_task(_one(at, ask, board, layer)) for at, ask in enumerate(mix)]
    return [task.result() for task in tasks]


async def _one(at: int, ask: Ask, board: Board, layer: Layer) -> Seen:
    await board.reached(ask.begins)
    seen = Seen()
    asking = asyncio.create_task(layer.ask(at, ask, board, seen))
    ending = asyncio.create_task(_end(at, ask, board, layer, asking, seen))
    try:
        await asyncio.wait({asking})
    finally:
        board.over(at)
        if not seen.cut:
            ending.cancel()
        await asyncio.wait({ending})
    if not ending.cancelled():
        ending.result()
    if not asking.cancelled():
        asking.result()
    else:
        assert seen.cut == "leave", "it was cancelled by nobody"
    return seen


async def _end(at: int, ask: Ask, board: Board, layer: Layer, asking: asyncio.Task[None], seen: Seen) -> None:
    if ask.ends is None:
        return
    await board.reached(ask.ends.moment)
    for _ in range(ask.ends.turns + 1):  # one at least: a task that has not begun would never have asked
        await asyncio.sleep(0)
    if asking.done():
        return
    seen.cut = ask.ends.how
    if ask.ends.how == "leave":
        asking.cancel()
    else:
        await layer.cancel(at)


@contextmanager
def patient_loop() -> Iterator[asyncio.Runner]:
    """What else runs on this machine is no concern of its."""
    with asyncio.Runner() as runner:
        runner.get_loop().slow_callback_duration = PATIENCE_S
        yield runner
