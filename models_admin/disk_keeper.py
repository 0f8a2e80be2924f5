"""``DiskKeeper``: verifies, deletes, and says what takes space. Implements ``inference.models_on_disk.Keeper``."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from asgiref.sync import sync_to_async
from django.db import DatabaseError

from inference.catalog import ModelRef
from inference.fetching import JobStatus
from inference.models_on_disk import DiskUse, Duplicate, FileOnDisk, Hidden, Reclaimed, Removal
from models_admin import store
from models_admin.busy import Busy
from models_admin.catalog import DiskCatalog
from models_admin.delete import Remover
from models_admin.disk_ledger import Own, look
from models_admin.duplicates import duplicates
from models_admin.hidden import HiddenModels
from models_admin.jobs import Jobs
from models_admin.manifest import NAME as MANIFEST
from models_admin.reclaim import Reclaimer
from models_admin.verify import Verifier

log = logging.getLogger(__name__)


class DiskKeeper:
    """``own`` says what is ours on the disk; ``status`` tells of a job, ``in_use`` of the models that run,
    by directory, ``running`` of the same by id, ``fetched`` of repositories (lower case) whose downloads go on."""

    def __init__(
        self,
        jobs: Jobs,
        catalog: DiskCatalog,
        busy: Busy,
        *,
        own: Own,
        status: Callable[[int], Awaitable[JobStatus]],
        in_use: Callable[[], Iterable[tuple[Path, str]]],
        running: Callable[[], Iterable[str]] = tuple,
        fetched: Callable[[], Awaitable[frozenset[str]]],
    ) -> None:
        self._verifier = Verifier(jobs, catalog, busy, status)
        self._remover = Remover(catalog, busy, own.models, in_use, fetched)
        self._hidden = HiddenModels(catalog)
        self._catalog, self._busy, self._own = catalog, busy, own
        self._running = running
        self._fetched = fetched
        self._reclaimer = Reclaimer(own, busy, self._look, self._known, fetched)
        self._looking: asyncio.Task[DiskUse] | None = None

    async def verify(self, model_id: str, *, gate: Path | None = None) -> JobStatus:
        """See ``inference.models_on_disk.Keeper``; with a ``gate`` quietly (``models_admin.verify``)."""
        return await self._verifier.verify(model_id, gate)

    def is_quiet(self, model_id: str) -> bool:
        """Whether nobody waits for a verification of it."""
        return self._verifier.is_quiet(model_id)

    async def wait(self, job: int) -> JobStatus:
        """See ``inference.models_on_disk.Keeper``."""
        return await self._verifier.wait(job)

    async def delete(
        self, model_id: str, *, dry_run: bool = False, forget: bool = False, path: str | None = None
    ) -> Removal:
        """See ``inference.models_on_disk.Keeper``."""
        return await self._remover.delete(model_id, dry_run=dry_run, forget=forget, path=path)

    def hidden(self) -> list[Hidden]:
        """See ``inference.models_on_disk.Keeper``."""
        return self._hidden.all()

    async def restore(self, name: str, *, path: str | None = None) -> ModelRef:
        """See ``inference.models_on_disk.Keeper``."""
        return await self._hidden.restore(name, path=path)

    async def files(self, path: Path) -> list[FileOnDisk]:
        """See ``inference.models_on_disk.Keeper``."""
        found = await sync_to_async(store.load_files)(path)
        return [file for file in found if file.name != MANIFEST]  # what we wrote beside them is no file of the model

    async def disk(self) -> DiskUse:
        """See ``inference.models_on_disk.Keeper``."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(), name="disk ledger")
        return await asyncio.shield(self._looking)

    async def _look(self) -> DiskUse:
        models, busy, fetched = self._catalog.all(), self._busy, await self._fetched()
        # Who else finds some of its files again soon: a model off the list would be an orphan otherwise.
        found = await asyncio.to_thread(
            look,
            self._own,
            self._catalog.roots,
            models,
            lambda repo: busy.has(repo, "fetch") or repo.lower() in fetched,
            hidden=self.hidden(),
            running=tuple(self._running()),
        )
        return replace(found, duplicates=tuple(await sync_to_async(self._duplicates)(models)))

    def _duplicates(self, models: Sequence[ModelRef]) -> list[Duplicate]:
        try:
            return duplicates(models)
        except DatabaseError as error:
            log.warning("duplicates cannot be told: %s", error)
            return []

    def _known(self) -> list[str]:
        """The ids of the models whose prefix caches are of use."""
        return [*(ref.id for ref in self._catalog.all() if ref.disk_state != "absent"), *self._running()]

    async def reclaim(self, *, kind: str | None = None, path: str | None = None, dry_run: bool = False) -> Reclaimed:
        """See ``inference.models_on_disk.Keeper``."""
        return await self._reclaimer.reclaim(kind=kind, path=path, dry_run=dry_run)

    async def finish_deletions(self) -> None:
        """Delete what deletions that were cut off have left; for the start of a server."""
        await self._remover.finish()

    async def stop(self) -> None:
        """Return when nothing runs any more, after ``Jobs.stop``."""
        await self._verifier.stop()
