"""``Keeping``: the parts of a server that keep its models up to date, whole, and in the form that is wanted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from inference.engine.contract import Engine
from inference.records import EventSink
from models_admin.busy import Busy
from models_admin.catalog import DiskCatalog
from models_admin.convert import ModelConverter
from models_admin.decisions import Decisions
from models_admin.disk_keeper import DiskKeeper
from models_admin.fetch import HubFetcher
from models_admin.jobs import Jobs
from models_admin.revisions import Revisions
from models_admin.schedule import Schedule, Wishes
from models_admin.updates import Updates


class Keeping:
    """``models`` is where this server puts models; ``gate`` is a file that quiet children wait at.

    ``start`` it once the engine runs, ``stop`` it after the jobs.
    """

    def __init__(
        self,
        jobs: Jobs,
        catalog: DiskCatalog,
        decisions: Decisions,
        busy: Busy,
        fetcher: HubFetcher,
        keeper: DiskKeeper,
        engine: Engine,
        *,
        events: EventSink,
        models: Path,
        gate: Path,
        wishes: Wishes,
    ) -> None:
        self.revisions = fetcher.arrivals = Revisions(catalog, decisions, busy, events, engine)
        self.updates = Updates(jobs, catalog, decisions, self.revisions, fetcher, keeper, events)
        self.converter = ModelConverter(
            jobs, catalog, busy, models, status=fetcher.status, memory=engine.memory_plan, keep_free=wishes.keep_free
        )

        self.schedule = Schedule(catalog, decisions, self.revisions, self.updates, keeper, engine, events, gate, wishes)

    def start(self) -> None:
        """Go on with what an earlier server has left."""
        self.revisions.begin_all()

    def chores(self) -> dict[str, Callable[[], Awaitable[None]]]:
        """What is to be done beside everything else, by name."""
        return {
            "unfinished conversions": self.converter.sweep,
            "scheduled verification": self.schedule.verifying,
            "looking after models": self.schedule.looking,
        }

    async def stop(self) -> None:
        """Return when nothing of it runs any more."""
        await asyncio.gather(self.revisions.stop(), self.converter.stop())
