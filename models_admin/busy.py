"""Who works on the files of which model, so that no two kinds of work meet. For the event loop alone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from inference.errors import Conflict

_WORDS = {
    "fetch": "is being downloaded",
    "verify": "is being verified",
    "delete": "is being deleted",
    "update": "is being tried before it takes its name",
    "convert": "is being converted",
}


class Busy:
    """Work of one kind on one repository may overlap (two revisions are fetched at once), work of two kinds may not."""

    def __init__(self) -> None:
        self._held: dict[str, list[str]] = {}
        self._waiting: list[asyncio.Event] = []

    def check(self, repo: str, kind: str) -> None:
        """Raise ``Conflict`` if work of another kind is under way; a deletion shares with none, neither
        in its directory nor below or above it."""
        key = repo.lower()
        for other, held in self._held.items():
            related = other.startswith(f"{key}/") or key.startswith(f"{other}/")
            if (other == key and (held[0] != kind or kind == "delete")) or (related and "delete" in (kind, held[0])):
                name = repo if other == key else other
                raise Conflict(f"{name} {_WORDS[held[0]]}; wait for it, or cancel its job", code="model_busy")

    def has(self, repo: str, kind: str) -> bool:
        """Whether work of that kind is under way."""
        return kind in self._held.get(repo.lower(), ())

    @contextlib.contextmanager
    def work(self, repo: str, kind: str) -> Iterator[None]:
        """Hold the repository for one piece of work. Raises ``Conflict``."""
        self.check(repo, kind)
        key = repo.lower()
        self._held.setdefault(key, []).append(kind)
        try:
            yield
        finally:
            self._held[key].remove(kind)
            if not self._held[key]:
                del self._held[key]
            for event in self._waiting:
                event.set()

    async def free(self, repo: str) -> None:
        """Return when no work of any kind is under way."""
        while repo.lower() in self._held:
            event = asyncio.Event()
            self._waiting.append(event)
            try:
                await event.wait()
            finally:
                self._waiting.remove(event)
