"""``DiskKeeper``: verifies and deletes. Implements ``inference.keeping.Keeper``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from inference.fetching import JobStatus
from inference.keeping import Removal
from models_admin.busy import Busy
from models_admin.catalog import DiskCatalog
from models_admin.jobs import Jobs
from models_admin.remove import Remover
from models_admin.verify import Verifier


class DiskKeeper:
    """``own`` are the directories of models that are ours; ``status`` tells of a job, ``in_use`` of a model's run."""

    def __init__(
        self,
        jobs: Jobs,
        catalog: DiskCatalog,
        busy: Busy,
        *,
        own: Sequence[Path],
        status: Callable[[int], Awaitable[JobStatus]],
        in_use: Callable[[str], str | None],
    ) -> None:
        self._verifier = Verifier(jobs, catalog, busy, status)
        self._remover = Remover(catalog, busy, own, in_use)

    async def verify(self, model_id: str) -> JobStatus:
        """See ``inference.keeping.Keeper``."""
        return await self._verifier.verify(model_id)

    async def wait(self, job: int) -> JobStatus:
        """See ``inference.keeping.Keeper``."""
        return await self._verifier.wait(job)

    async def delete(self, model_id: str, *, dry_run: bool = False, forget: bool = False) -> Removal:
        """See ``inference.keeping.Keeper``."""
        return await self._remover.delete(model_id, dry_run=dry_run, forget=forget)

    async def finish_deletions(self) -> None:
        """Delete what deletions that were cut off have left; for the start of a server."""
        await self._remover.finish()

    async def stop(self) -> None:
        """Return when nothing runs any more, after ``Jobs.stop``."""
        await self._verifier.stop()
