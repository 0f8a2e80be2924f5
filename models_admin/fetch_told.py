"""What is told of a job: its row in the words of ``inference.fetching``, and its failure as a refusal."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import datetime
from typing import Any, cast

from inference.errors import (
    Conflict,
    InsufficientStorage,
    InvalidRequest,
    LmxError,
    ModelNotFound,
    ModelUnavailable,
    NotFound,
)
from inference.fetching import FileStatus, JobStatus, JobWord
from models_admin.fetch_line import Fetch
from models_admin.fetch_names import Wanted, parse_wanted
from models_admin.job_protocol import Progress
from models_admin.job_rate import Rate
from models_admin.job_runner import JobFailed
from models_admin.job_words import describe, in_line
from models_admin.models import Job

_REFUSALS: dict[str, Callable[..., LmxError]] = {
    "model_not_found": ModelNotFound,
    "revision_not_found": NotFound,
    "revision_gone": NotFound,
    "unsupported_model": InvalidRequest,
    "insufficient_storage": InsufficientStorage,
    "quota_exceeded": InsufficientStorage,
    "hub_unreachable": ModelUnavailable,
    "hub_error": ModelUnavailable,
    "busy": Conflict,
    "name_taken": Conflict,
    "job_cancelled": Conflict,
    "job_paused": Conflict,
    "interrupted": ModelUnavailable,
}
_CODES = {"failed": "job_failed", "cancelled": "job_cancelled", "paused": "job_paused"}


class ModelGated(LmxError):
    """The Hub gives the model only to those who accepted its terms."""

    status, code = 403, "model_gated"


def from_row(row: Job) -> JobStatus:
    """The row alone, as it was last written."""
    state: JobWord = cast("JobWord", str(row.state))
    result: dict[str, Any] = dict(row.result)
    files = told_files(row.files)
    if state == "done" and result.get("already_downloaded"):
        state = "already_downloaded"
    done, total = row.done, row.total
    if row.kind == "fetch" and "bytes" in result:
        done = total = result["bytes"]
        files = tuple(FileStatus(file.name, file.size, file.size) for file in files)
    return JobStatus(
        job=row.pk,
        kind=row.kind,
        subject=row.subject,
        state=state,
        phase=row.phase,
        done=done,
        total=total,
        unit=row.unit,
        message=row.error,
        code=result.get("code") or _CODES[state] if state in _CODES else "",
        queued_at=_seconds(row.queued_at),
        started_at=_seconds(row.started_at),
        finished_at=_seconds(row.finished_at),
        result=result,
        files=files,
    )


def told_now(row: Job, fetch: Fetch | None, place: int | None, rate: Rate, latest: Progress | None) -> JobStatus:
    """The row, with what is newer than it where the job is at work here: ``fetch``, ``place`` in line, ``latest``."""
    told = from_row(row)
    if told.state == "queued" and fetch is not None:
        return dataclasses.replace(told, place=place, message="" if place is None else in_line(place))
    if told.state != "running":
        return told
    if fetch is not None:
        progress, told = fetch.latest, dataclasses.replace(told, files=told_files(fetch.files))
    else:
        progress = latest or Progress(row.phase, row.done, row.total, row.unit)
    stands = progress.unit != "bytes" or bool(progress.note)
    return dataclasses.replace(
        told,
        phase=progress.phase,
        done=progress.done,
        total=progress.total,
        unit=progress.unit,
        message=describe(progress),
        bytes_per_second=0.0 if stands else rate.bytes_per_second,
        seconds_left=None if progress.note else rate.seconds_left,
    )


def told_files(files: list[list[Any]]) -> tuple[FileStatus, ...]:
    return tuple(FileStatus(name, size, done) for name, size, done in files)


def wanted_of(row: Job) -> Wanted | None:
    """What a row's parameters ask for; None where they are not of this version."""
    repo, revision = row.params.get("repo"), row.params.get("revision")
    if not isinstance(repo, str) or not isinstance(revision, str):
        return None
    try:
        return parse_wanted(repo, revision)
    except InvalidRequest:
        return None


def refusal(failure: JobFailed, job: int | None) -> LmxError:
    """The error that a failed fetch is for who asked for it; ``details`` names the job."""
    details = {**failure.details, **({} if job is None else {"job": job})}
    if failure.code == ModelGated.code:
        return ModelGated(failure.message, param="model_id", details=details)
    make = _REFUSALS.get(failure.code)
    if make is None:
        return failure
    param = "revision" if failure.code == "revision_not_found" else None
    if make in (ModelNotFound, InvalidRequest):
        param = "model_id"
    return make(failure.message, code=failure.code, param=param, details=details)


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()
