"""The parts of a server that work on the files of models, on a directory of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from inference.fetching import JobStatus
from models_admin.busy import Busy
from models_admin.catalog import DiskCatalog
from models_admin.disk_ledger import Own
from models_admin.fetch import HubFetcher
from models_admin.jobs import Jobs
from models_admin.keep import DiskKeeper


class Board:
    """Keeps what is said."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def emit(self, kind: str, /, **fields: object) -> None:
        self.events.append(kind)

    def publish(self, topic: str, payload: dict[str, object] | None, *, key: str | None = None) -> None:
        pass


class Site:
    """``models`` is our own directory, ``others`` are further roots."""

    def __init__(self, models: Path, *others: Path) -> None:
        models.mkdir(exist_ok=True)
        self.models = models
        self.jobs = Jobs(Board())
        self.catalog = DiskCatalog([models, *others])
        self.busy = Busy()
        self.fetcher = HubFetcher(self.jobs, self.catalog, models, keep_free=0, busy=self.busy)
        self.run_states: dict[str, str] = {}
        self.keeper = DiskKeeper(
            self.jobs,
            self.catalog,
            self.busy,
            own=Own([models], models.parent / "prefix", {}),
            status=self.fetcher.status,
            in_use=self.run_states.get,
        )

    async def verify(self, model_id: str) -> JobStatus:
        return await self.keeper.wait((await self.keeper.verify(model_id)).job)

    async def fetch(self, repo: str, revision: str | None = None) -> JobStatus:
        return await self.fetcher.wait((await self.fetcher.start(repo, revision)).job)

    async def stop(self) -> None:
        """As a server that stops; the files and the database stay."""
        await self.jobs.stop()
        await self.fetcher.stop()
        await self.keeper.stop()
        self.catalog.close()


@asynccontextmanager
async def site_on(models: Path, *others: Path) -> AsyncIterator[Site]:
    """A site that has looked at its disk; started again on the same directory, it is a server that was restarted."""
    site = Site(models, *others)
    try:
        await site.catalog.refresh()
        yield site
    finally:
        await site.stop()
