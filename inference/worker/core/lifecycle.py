"""From a request's submission to its last event, of which each choice, or the whole request, gets exactly one."""

from __future__ import annotations

from collections.abc import Iterable

from inference.worker.core.admission import Admission
from inference.worker.core.rows import Row, Running
from inference.worker.core.types import ChoiceFinished, CoreEvent, FinishReason, RequestFailed


class Lifecycle:
    """The requests that are open, and the events of the step under way.

    ``open_keys`` are those submitted and not ended, ``running`` those the stepping thread has taken in. ``generation``
    changes whenever a row dies; ``changed`` says that what is counted for statistics did.
    """

    def __init__(self, queue: Admission) -> None:
        self._queue = queue
        self.open_keys: set[str] = set()
        self.running: dict[str, Running] = {}
        self.events: list[CoreEvent] = []
        self.generation = 0
        self.changed = True

    def finish(self, row: Row, reason: FinishReason, delivered: int) -> None:
        """Give a row its last event; the request is over with its last row."""
        running = row.owner
        row.alive = False
        key = row.ref.key
        self.events.append(ChoiceFinished(key, row.ref.choice, reason, int(running.prompt.size), delivered))
        running.open_rows -= 1
        self._died()
        if not running.open_rows:
            self._forget(running)

    def fail(self, running: Running, code: str, message: str, param: str | None = None) -> None:
        """Give a request its one last event, unless it had it."""
        if not running.open_rows:
            return
        for row in running.rows:
            row.alive = False
        running.open_rows = 0
        running.failed = True
        self.events.append(RequestFailed(running.request.key, code, message, param))
        self._died()
        self._forget(running)

    def fail_rows(self, rows: Iterable[Row], error: Exception) -> None:
        """Fail every request that has one of these rows, after its decode step raised."""
        for running in {row.owner for row in rows if row.alive}:
            self.fail(running, "internal_error", f"the decode step failed: {error}")

    def _died(self) -> None:
        self.generation += 1
        self.changed = True

    def _forget(self, running: Running) -> None:
        key = running.request.key
        self._queue.remove(running)
        self.running.pop(key, None)
        self.open_keys.discard(key)
