"""What the database and the catalog know that a download asks them for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from asgiref.sync import sync_to_async

from inference.errors import NotFound
from models_admin.fetch_names import Wanted
from models_admin.fetch_told import wanted_of
from models_admin.models import Job, JobState
from models_admin.row import Row


async def row_of(job: int) -> Job:
    """The job of that number. Raises ``NotFound``."""
    row = await Job.objects.filter(pk=job).afirst() if 0 < job < 2**63 else None
    if row is None:
        raise NotFound(f"there is no job {job}", code="job_not_found", param="job")
    return row


async def paused_fetch(wanted: Wanted) -> Job | None:
    """A paused fetch of the same, the newest."""
    rows = Job.objects.filter(kind="fetch", state=JobState.PAUSED, subject__iexact=wanted.repo)
    return next((row for row in await sync_to_async(lambda: list(rows))() if _key(row) == wanted.key), None)


def _key(row: Job) -> tuple[str, str] | None:
    wanted = wanted_of(row)
    return None if wanted is None else wanted.key


def checked(rows: Iterable[Row]) -> dict[str, dict[str, dict[str, Any]]]:
    """What reading the files of models has shown: a fetch repairs what is bad, and need not read what is good."""
    return {
        str(row.found.path): {
            check.name: {"size": check.size, "mtime_ns": check.mtime_ns, "sound": check.sound}
            for check in row.checks.values()
            if check.basis == "published"
        }
        for row in rows
    }
