"""One fetch from its request to its end, and the line in which fetches wait. For the event loop alone."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from typing import Any, Literal

import msgspec

from inference.errors import LmxError
from models_admin.fetch_names import Wanted
from models_admin.job_protocol import Progress
from models_admin.jobs import End
from models_admin.models import Job
from models_admin.quota import place_of


class Fetch:
    """``row`` is None until it has a number; with one that goes on, the row it had.

    ``known`` is set with its size, when it waits for something, or at its end. ``end`` is what its owner wants of it.
    ``commit`` is empty until it is known; ``is_promised``: there is room for all of it, which nobody else may have.
    A fetch in ``line`` has no place, a ``running`` one has; ``loading``: all is there, and is being loaded.
    """

    def __init__(self, wanted: Wanted, row: Job | None = None, *, auto_load: bool = False) -> None:
        self.wanted, self.row = wanted, row
        self.auto_load = auto_load or (row is not None and row.params.get("auto_load") is True)
        self.stage: Literal["line", "running", "loading"] = "line"
        self.turn, self.known = asyncio.Event(), asyncio.Event()
        self.latest = Progress("resolve")
        self.files: list[list[Any]] = []
        if row is not None:
            self.latest, self.files = Progress("resolve", row.done, row.total), row.files
        commit = None if row is None else row.params.get("commit")
        self.commit = commit if isinstance(commit, str) else ""
        self.is_promised = False
        self.end: End | None = None
        self.result: dict[str, Any] | None = None
        self.failure: LmxError | None = None
        self.task: asyncio.Task[None] | None = None
        self.writing: set[asyncio.Task[None]] = set()

    @property
    def job(self) -> int | None:
        return None if self.row is None else self.row.pk

    @property
    def place(self) -> str:
        """Where it is fetched to; see ``quota.place_of``."""
        return place_of(self.wanted.repo, self.commit)

    def write(self, work: Coroutine[Any, Any, None]) -> None:
        """In the background; ``writing`` is awaited before the job ends."""
        task = asyncio.create_task(work)
        self.writing.add(task)
        task.add_done_callback(self.writing.discard)

    @property
    def missing(self) -> int:
        """Bytes that it still has to fetch, as far as is known."""
        return max(0, self.latest.total - self.latest.done)

    def on_progress(self, progress: Progress) -> None:
        if progress.total:
            self.latest = progress
        if progress.total and self.end is None:  # one that is being ended has its end to tell
            self.known.set()
        if not progress.total:  # what was known before stays
            self.latest = msgspec.structs.replace(self.latest, phase=progress.phase, note=progress.note)
        if progress.note:
            self.known.set()
        for file in self.files:
            if file[0] == progress.file:
                file[2] = progress.file_done


class Line:
    """The fetches that have not ended, by what they fetch, in the order of their turns; ``places`` run at once."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._fetches: dict[tuple[str, str], Fetch] = {}

    def __iter__(self) -> Iterator[Fetch]:
        return iter(list(self._fetches.values()))

    def get(self, wanted: Wanted) -> Fetch | None:
        return self._fetches.get(wanted.key)

    def of(self, job: int) -> Fetch | None:
        """The fetch with that number."""
        return next((fetch for fetch in self if fetch.job == job), None)

    def waiting(self) -> list[Fetch]:
        """Those without a place, the next first."""
        return [fetch for fetch in self if fetch.stage == "line"]

    def place(self, fetch: Fetch) -> int | None:
        """1 for the next; None for one that does not wait."""
        return self.waiting().index(fetch) + 1 if fetch.stage == "line" else None

    def promised(self, but: Fetch) -> int:
        """Bytes that those with a place still have to fetch, without one of them."""
        return sum(fetch.missing for fetch in self if fetch is not but and fetch.stage == "running")

    def held(self, but: Fetch) -> dict[str, int]:
        """Bytes that those with a place will have on the disk, by where; of one that is being ended what it has."""
        others = [fetch for fetch in self if fetch is not but and fetch.stage == "running" and fetch.is_promised]
        return {fetch.place: fetch.latest.total if fetch.end is None else fetch.latest.done for fetch in others}

    def add(self, fetch: Fetch) -> None:
        self._fetches[fetch.wanted.key] = fetch
        self._fill()

    def fetched(self, fetch: Fetch) -> None:
        """It needs its place no more; the next has its turn."""
        fetch.stage = "loading"
        self._fill()

    def remove(self, fetch: Fetch) -> None:
        self._fetches.pop(fetch.wanted.key, None)
        self._fill()

    def _fill(self) -> None:
        running = sum(fetch.stage == "running" for fetch in self)
        for fetch in self.waiting()[: max(0, self._places - running)]:
            fetch.stage = "running"
            fetch.turn.set()
