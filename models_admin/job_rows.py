"""The rows of jobs, in short transactions. Blocking: for Django's own thread."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil
from django.db.models import F, Q

from models_admin.job_protocol import Progress
from models_admin.models import Job, JobState

LEASE_S = 60.0
INTERRUPTED = "interrupted: the server ended while it ran"
MOST_FRUITLESS = 10
"""So many servers in a row may end before a job that goes on has got further; then its owner must want it to."""

STANDS_STILL = (
    f"it did not get further while the server ended {MOST_FRUITLESS} times in a row, and may be what ended it; "
    "what was fetched is kept"
)
RESUMABLE = frozenset({"fetch"})
"""The kinds of jobs that go on where they stopped when their server has ended, and can be paused."""

WAITS = {"interrupted_often", "hub_unreachable", "insufficient_storage"}
"""The codes of results with which such a job is paused, in place of having failed."""

_OPEN = Q(state=JobState.RUNNING) | Q(state=JobState.QUEUED)


def create(kind: str, subject: str, params: dict[str, Any], state: JobState) -> int:
    """The number of a new job, in that state: running here, or queued."""
    now = datetime.now(UTC)
    leased = _lease(now) | {"started_at": now} if state is JobState.RUNNING else {"queued_at": now}
    return Job.objects.create(kind=kind, subject=subject, params=params, state=state, **leased).pk


def requeue(job_id: int) -> None:
    """A job that had ended or was paused waits for its turn, behind those that wait already."""
    Job.objects.filter(pk=job_id).update(
        state=JobState.QUEUED,
        queued_at=datetime.now(UTC),
        error="",
        result={},
        finished_at=None,
        fruitless=0,
        resumed_from=None,
    )


def reopen(job_id: int, params: dict[str, Any]) -> Job:
    """A queued job runs here now; the row as it was before."""
    now = datetime.now(UTC)
    before = Job.objects.get(pk=job_id)
    more = {} if before.started_at is not None else {"started_at": now}
    Job.objects.filter(pk=job_id).update(params=params, state=JobState.RUNNING, **_lease(now), **more)
    return before


def save_progress(job_id: int, progress: Progress) -> None:
    """Where nobody knows a total, what was known before stays."""
    known = {"done": progress.done, "total": progress.total, "unit": progress.unit} if progress.total else {}
    Job.objects.filter(pk=job_id, state=JobState.RUNNING).update(
        phase=progress.phase, heartbeat_at=datetime.now(UTC), **known
    )


def began(job_id: int, done: int, total: int) -> None:
    """The run does something, with ``done`` of ``total`` done before: whether the last run got further shows now."""
    Job.objects.filter(Q(resumed_from=None) | Q(resumed_from__lt=done), pk=job_id).update(fruitless=0)
    Job.objects.filter(pk=job_id).update(resumed_from=done, done=done, total=total)


def finish(job_id: int, state: JobState, error: str, result: dict[str, Any]) -> None:
    over = state not in (JobState.QUEUED, JobState.PAUSED)
    Job.objects.filter(pk=job_id).update(
        state=state, error=error, result=result, finished_at=datetime.now(UTC) if over else None, lease_pid=None
    )


def note(job_id: int, *, params: dict[str, Any] | None = None, result: dict[str, Any] | None = None) -> None:
    """Add to what is known of a job."""
    job = Job.objects.get(pk=job_id)
    job.params |= params or {}
    job.result |= result or {}
    job.save(update_fields=["params", "result"])


def keep_files(job_id: int, files: list[list[Any]]) -> None:
    Job.objects.filter(pk=job_id).update(files=files)


def waiting(kind: str) -> list[Job]:
    """In the order of their turns."""
    jobs = Job.objects.filter(state=JobState.QUEUED, kind=kind)
    return list(jobs.order_by(F("queued_at").asc(nulls_first=True), "pk"))


def paused() -> list[Job]:
    """The oldest first."""
    return list(Job.objects.filter(state=JobState.PAUSED).order_by("pk"))


def settle_interrupted() -> list[int]:
    """A lease is lost when its process is gone, or has not been heard of for so long that its id means another."""
    now = datetime.now(UTC)
    lost = [job for job in Job.objects.filter(_OPEN) if not _is_leased(job, now)]
    ran = [job.pk for job in lost if job.kind in RESUMABLE and job.state == JobState.RUNNING]
    over = [job.pk for job in lost if job.kind not in RESUMABLE]
    Job.objects.filter(pk__in=ran).update(state=JobState.QUEUED, lease_pid=None, fruitless=F("fruitless") + 1)
    Job.objects.filter(pk__in=ran, fruitless__gt=MOST_FRUITLESS).update(
        state=JobState.PAUSED, error=STANDS_STILL, result={"code": "interrupted_often", "details": {}}
    )
    Job.objects.filter(pk__in=over).update(state=JobState.FAILED, error=INTERRUPTED, finished_at=now, lease_pid=None)
    return over


def _lease(now: datetime) -> dict[str, Any]:
    return {"lease_pid": os.getpid(), "heartbeat_at": now}


def _is_leased(job: Job, now: datetime) -> bool:
    if job.lease_pid is None or job.heartbeat_at is None or job.lease_pid == os.getpid():
        return False
    return now - job.heartbeat_at < timedelta(seconds=LEASE_S) and psutil.pid_exists(job.lease_pid)
