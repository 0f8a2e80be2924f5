"""What a ``HubFetcher`` needs of others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

from inference.catalog import ModelRef
from models_admin.row import Row

Load = Callable[[str], Awaitable[object]]


class Models(Protocol):
    """The catalog, as far as a fetch needs it."""

    async def refresh(self) -> None: ...

    def all(self) -> list[ModelRef]: ...

    def rows(self) -> list[Row]: ...

    def rows_of(self, repo: str) -> list[Row]: ...


class Arrivals(Protocol):
    """Who decides which revision has a model's name."""

    async def before(self, repo: str) -> None:
        """A revision of it is going to be fetched."""
        ...

    async def arrived(self, path: Path, asked: str, *, fetched: bool) -> None:
        """It lies in ``path`` and is listed; ``asked`` is the revision as it was asked for."""
        ...


Chooser = Callable[[str, str | None], Awaitable[str]]
"""The repository to fetch for one whose name has no quantization, and for the quantization asked for, if any."""
