"""``DiskKeeper``: verifies, deletes, and says what takes space. Implements ``inference.models_on_disk.Keeper``."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from asgiref.sync import sync_to_async

from inference.catalog import ModelRef
from inference.fetching import JobStatus
from inference.models_on_disk import DiskUse, FileOnDisk, Hidden, Removal
from models_admin import store
from models_admin.busy import Busy
from models_admin.catalog import DiskCatalog
from models_admin.delete import Remover
from models_admin.disk_ledger import Own, look
from models_admin.hidden import HiddenModels
from models_admin.jobs import Jobs
from models_admin.verify import Verifier


class DiskKeeper:
    """``own`` says what is ours on the disk; ``status`` tells of a job, ``in_use`` of the models that run."""

    def __init__(
        self,
        jobs: Jobs,
        catalog: DiskCatalog,
        busy: Busy,
        *,
        own: Own,
        status: Callable[[int], Awaitable[JobStatus]],
        in_use: Callable[[], Iterable[tuple[Path, str]]],
    ) -> None:
        self._verifier = Verifier(jobs, catalog, busy, status)
        self._remover = Remover(catalog, busy, own.models, in_use)
        self._hidden = HiddenModels(catalog)
        self._catalog, self._busy, self._own = catalog, busy, own
        self._looking: asyncio.Task[DiskUse] | None = None

    async def verify(self, model_id: str) -> JobStatus:
        """See ``inference.models_on_disk.Keeper``."""
        return await self._verifier.verify(model_id)

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
        return await sync_to_async(store.load_files)(path)

    async def disk(self) -> DiskUse:
        """See ``inference.models_on_disk.Keeper``."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(), name="disk ledger")
        return await asyncio.shield(self._looking)

    async def _look(self) -> DiskUse:
        models, busy = self._catalog.all(), self._busy
        return await asyncio.to_thread(
            look, self._own, self._catalog.roots, models, lambda repo: busy.has(repo, "fetch")
        )

    async def finish_deletions(self) -> None:
        """Delete what deletions that were cut off have left; for the start of a server."""
        await self._remover.finish()

    async def stop(self) -> None:
        """Return when nothing runs any more, after ``Jobs.stop``."""
        await self._verifier.stop()
