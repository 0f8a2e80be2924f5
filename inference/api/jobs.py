"""``/admin/model/download`` and ``/admin/jobs``: fetch a model from the Hub; see and end what runs beside."""

from __future__ import annotations

from typing import Any

import orjson
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from pydantic import Field

from inference.api import admin_answers as answers
from inference.api import openapi
from inference.api.admin import AdminBody, api
from inference.api.base import json_response
from inference.api.deps import fetcher
from inference.api.fetched import ended
from inference.errors import InvalidRequest
from inference.fetching import JobStatus
from inference.protocols.jsonbody import parse_object
from inference.protocols.validation import validate

_MIB = 1 << 20
_MOST_LISTED = 1000


class DownloadBody(AdminBody):
    """``model_id`` is ``org/name``, ``org/name@revision`` or the model's address at the Hub.

    ``auto_load`` loads it when it is there.
    """

    model_id: str = Field(min_length=1, max_length=512)
    quantization: str | None = Field(None, min_length=1, max_length=64)
    revision: str | None = Field(None, min_length=1, max_length=128)
    auto_load: bool | None = None
    wait: bool | None = None


@api.route(
    "POST",
    "/model/download",
    scope="admin",
    operation_id="download_model",
    summary="Fetch a model from the Hub as a job",
    tag="models",
    body=DownloadBody,
    answers={200: answers.DownloadAnswer, 202: answers.DownloadAnswer},
    refuses=[openapi.FETCH],
)
async def download_model(request: HttpRequest) -> HttpResponseBase:
    wanted = validate(DownloadBody, parse_object(request.body))
    job = await fetcher().start(
        wanted.model_id, wanted.revision, wanted.quantization, auto_load=wanted.auto_load is True
    )
    if wanted.wait:
        job = await ended(job.job)
    return _json(_download_answer(job), 202 if job.state in ("queued", "running") else 200)


@api.route(
    "GET",
    "/jobs",
    scope="admin",
    operation_id="list_jobs",
    summary="Jobs, the newest first",
    tag="jobs",
    answers={200: answers.JobList},
)
async def list_jobs(request: HttpRequest, limit: int = 100) -> HttpResponseBase:
    if not 1 <= limit <= _MOST_LISTED:
        raise InvalidRequest(f"limit must be from 1 to {_MOST_LISTED}", param="limit")
    return _json({"jobs": [told(job) for job in await fetcher().jobs(limit)]})


@api.route(
    "GET",
    "/jobs/{job}",
    scope="admin",
    operation_id="get_job",
    summary="One job",
    tag="jobs",
    answers={200: answers.JobAnswer},
    refuses=[openapi.NAMED],
)
async def get_job(request: HttpRequest, job: int) -> HttpResponseBase:
    return _json(told(await fetcher().status(job)))


@api.route(
    "POST",
    "/jobs/{job}/cancel",
    scope="admin",
    operation_id="cancel_job",
    summary="End a job; what a fetch has brought so far is kept",
    tag="jobs",
    answers={200: answers.JobAnswer},
    refuses=[openapi.NAMED, openapi.STATE],
)
async def cancel_job(request: HttpRequest, job: int) -> HttpResponseBase:
    return _json(told(await fetcher().cancel(job)))


@api.route(
    "POST",
    "/jobs/{job}/pause",
    scope="admin",
    operation_id="pause_job",
    summary="Have a download wait until it is resumed, also over a restart",
    tag="jobs",
    answers={200: answers.JobAnswer},
    refuses=[openapi.NAMED, openapi.STATE],
)
async def pause_job(request: HttpRequest, job: int) -> HttpResponseBase:
    return _json(told(await fetcher().pause(job)))


@api.route(
    "POST",
    "/jobs/{job}/resume",
    scope="admin",
    operation_id="resume_job",
    summary="Have a download that is paused, has failed or was cancelled go on under its number",
    tag="jobs",
    answers={200: answers.JobAnswer},
    refuses=[openapi.NAMED, openapi.STATE, openapi.LINE],
)
async def resume_job(request: HttpRequest, job: int) -> HttpResponseBase:
    return _json(told(await fetcher().resume(job)))


def told(job: JobStatus) -> dict[str, Any]:
    """A job as the API tells of it."""
    return {
        "id": job.job,
        "kind": job.kind,
        "subject": job.subject,
        "state": job.state,
        "phase": job.phase,
        "done": job.done,
        "total": job.total,
        "unit": job.unit,
        "bytes_per_second": round(job.bytes_per_second),
        "seconds_left": job.seconds_left,
        "message": job.message,
        "code": job.code,
        "place": job.place,
        "queued_at": job.queued_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "result": job.result,
        "files": [{"name": file.name, "size": file.size, "done": file.done} for file in job.files],
    }


def _download_answer(job: JobStatus) -> dict[str, Any]:
    took = job.finished_at - job.started_at if job.finished_at and job.started_at else None
    return {
        "model_id": job.result.get("repo", job.subject),
        "path": job.result.get("path"),
        "size_mb": round(job.total / _MIB, 1),
        "time_sec": None if took is None else round(took, 1),
        "auto_loaded": job.result.get("auto_loaded") is True,
        "job": told(job),
    }


def _json(value: Any, status: int = 200) -> HttpResponseBase:
    return json_response(orjson.dumps(value), status)
