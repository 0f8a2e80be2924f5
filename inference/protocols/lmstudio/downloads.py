"""Fetch jobs in LM Studio's words."""

from __future__ import annotations

import re
from copy import copy
from datetime import UTC, datetime, timedelta
from typing import Any

from inference.errors import LmxError, NotFound
from inference.fetching import JobStatus

# What a cancelled fetch has brought is kept, and asking again goes on from there: that is LM Studio's "paused".
_WORDS = {
    "queued": "downloading",
    "running": "downloading",
    "done": "completed",
    "already_downloaded": "completed",
    "failed": "failed",
    "cancelled": "paused",
    "paused": "paused",
}
_JOB = re.compile(r"(?:job_)?([0-9]{1,15})", re.ASCII)
STATES = ("downloading", "completed", "failed", "paused")


def job_number(job_id: str) -> int:
    """Our number of LM Studio's ``job_12``. Raises ``NotFound``."""
    found = _JOB.fullmatch(job_id)
    if found is None:
        raise no_such(job_id)
    return int(found[1])


def no_such(job_id: str) -> NotFound:
    return NotFound(f"there is no download {job_id[:80]!r}", code="job_not_found", param="job_id")


def refusal(error: LmxError) -> LmxError:
    """The same refusal with LM Studio's name for what was asked: ``model`` holds a revision too."""
    told = copy(error)  # others may have been refused with it as well
    told.param = "model" if error.param in ("model_id", "revision") else error.param
    return told


def started(job: JobStatus) -> dict[str, Any]:
    """The answer to a request to download."""
    return {"status": "already_downloaded"} if job.state == "already_downloaded" else download(job)


def download(job: JobStatus) -> dict[str, Any]:
    """A download as it is now. Times are ISO 8601 in UTC; an unknown time is left out."""
    told: dict[str, Any] = {
        "job_id": f"job_{job.job}",
        "status": _WORDS[job.state],
        "total_size_bytes": job.total,
        "downloaded_bytes": job.total if job.state in ("done", "already_downloaded") else job.done,
    }
    if job.started_at is not None:
        told["started_at"] = _iso(datetime.fromtimestamp(job.started_at, UTC))
    if told["status"] == "downloading":
        told["bytes_per_second"] = job.bytes_per_second
        if job.seconds_left is not None:
            told["estimated_completion"] = _iso(datetime.now(UTC) + timedelta(seconds=min(job.seconds_left, 1e8)))
    elif told["status"] == "completed" and job.finished_at is not None:
        told["completed_at"] = _iso(datetime.fromtimestamp(job.finished_at, UTC))
    elif told["status"] == "failed":
        told["error"] = {"message": job.message, "code": job.code}
    return told


def by_state(jobs: list[JobStatus]) -> dict[str, list[dict[str, Any]]]:
    """All downloads, in one list for each state."""
    found: dict[str, list[dict[str, Any]]] = {state: [] for state in STATES}
    for job in jobs:
        told = download(job)
        found[told["status"]].append(told)
    return found


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
