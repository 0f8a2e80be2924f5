"""What the database and the catalog know that a download asks them for."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from asgiref.sync import sync_to_async

from inference.errors import NotFound
from models_admin import synced
from models_admin.fetch_names import COMMIT, Wanted
from models_admin.fetch_told import wanted_of
from models_admin.models import Job, JobState
from models_admin.row import Row
from models_admin.second_names import plain_size


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


async def recounted(models: Path, row: Job) -> Job:
    """The row with what the disk has of it, whatever was written down: a machine that went down took some away."""
    done, files = await asyncio.to_thread(_on_disk, models, row)
    if (done, files) != (row.done, row.files):
        row.done, row.files = done, files
        await Job.objects.filter(pk=row.pk).aupdate(done=done, files=files)
    return row


def _on_disk(models: Path, row: Job) -> tuple[int, list[list[Any]]]:
    wanted, commit = wanted_of(row), row.params.get("commit")
    if wanted is None or not isinstance(commit, str) or not COMMIT.fullmatch(commit):
        return 0, []  # nothing comes before it is known what
    partial = models / wanted.repo / f".{commit}.partial"
    have = {path.relative_to(partial).as_posix(): path for path in partial.rglob("*") if not path.is_symlink()}
    sizes = {
        name.removesuffix(".part"): synced.trusted(path) if name.endswith(".part") else plain_size(path) or 0
        for name, path in have.items()
        if not name.endswith((synced.SUFFIX, synced.SUFFIX + ".new"))
    }
    files = [[name, size, min(size, sizes.get(name, 0))] for name, size, _ in row.files]
    return min(sum(sizes.values()), row.total or sys.maxsize), files


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
