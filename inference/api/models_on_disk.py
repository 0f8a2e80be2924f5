"""``/admin/model/verify``, ``/admin/model/delete`` and ``/admin/disk``: what is on the disk."""

from __future__ import annotations

from typing import Any

import orjson
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from pydantic import Field

from inference.api import admin_answers as answers
from inference.api import disk_answers, openapi
from inference.api.admin import AdminBody, api
from inference.api.base import json_response
from inference.api.deps import catalog, keeper
from inference.api.jobs import told
from inference.errors import from_code
from inference.fetching import JobStatus
from inference.protocols.jsonbody import parse_object
from inference.protocols.validation import validate


class VerifyBody(AdminBody):
    """``model_id`` is any name of a model on disk."""

    model_id: str = Field(min_length=1, max_length=512)
    wait: bool | None = None


@api.route(
    "POST",
    "/model/verify",
    scope="admin",
    operation_id="verify_model",
    summary="Read every file of a model as a job and compare it with what it should be",
    tag="models",
    body=VerifyBody,
    answers={200: answers.VerifyAnswer, 202: answers.VerifyAnswer},
    refuses=[openapi.VERIFY],
)
async def verify_model(request: HttpRequest) -> HttpResponseBase:
    wanted = validate(VerifyBody, parse_object(request.body))
    job = await keeper().verify(wanted.model_id)
    if wanted.wait:
        job = await keeper().wait(job.job)
        if job.state in ("failed", "cancelled"):
            raise from_code(job.code, job.message, details={"job": job.job})
    return _json(_verify_answer(wanted.model_id, job), 202 if job.state in ("queued", "running") else 200)


class DeleteBody(AdminBody):
    """``dry_run`` deletes nothing and says what would be freed; ``forget`` only takes the model off the list.

    ``model_id`` is the model's id or an alias. ``path``, of a dry run's answer, must still be where that model lies.
    """

    model_id: str = Field(min_length=1, max_length=512)
    dry_run: bool | None = None
    forget: bool | None = None
    path: str | None = Field(default=None, min_length=1, max_length=4096)


@api.route(
    "POST",
    "/model/delete",
    scope="admin",
    operation_id="delete_model",
    summary="Delete a model from the disk, or say what that would free",
    tag="models",
    body=DeleteBody,
    answers={200: answers.DeleteAnswer},
    refuses=[openapi.DELETE],
)
async def delete_model(request: HttpRequest) -> HttpResponseBase:
    wanted = validate(DeleteBody, parse_object(request.body))
    done = await keeper().delete(
        wanted.model_id, dry_run=bool(wanted.dry_run), forget=bool(wanted.forget), path=wanted.path
    )
    return _json(done)


@api.route(
    "GET",
    "/disk",
    scope="admin",
    operation_id="get_disk",
    summary="What takes space on the disks, and what of it nobody needs",
    tag="server",
    answers={200: disk_answers.DiskAnswer},
)
async def disk(request: HttpRequest) -> HttpResponseBase:
    found = await keeper().disk()
    sizes = dict[str, int]()
    for use in (*(model for root in found.roots for model in root.models), *found.others):
        sizes[use.kind] = sizes.get(use.kind, 0) + use.bytes
    reclaimable = [use for use in found.others if use.reclaimable]
    about = {"roots": found.roots, "others": found.others, "volumes": found.volumes, "bytes": sizes}
    about |= {"duplicates": found.duplicates, "quotas": found.quotas}
    return _json(about | {"reclaimable": reclaimable, "reclaimable_bytes": sum(use.reclaimable for use in reclaimable)})


class ReclaimBody(AdminBody):
    """``kind`` or ``path`` of what the ledger lists as reclaimable; without either all of it."""

    kind: str | None = Field(default=None, min_length=1, max_length=64)
    path: str | None = Field(default=None, min_length=1, max_length=4096)
    dry_run: bool | None = None


@api.route(
    "POST",
    "/disk/reclaim",
    scope="admin",
    operation_id="reclaim_disk",
    summary="Delete what nobody needs, or say what that would free",
    tag="server",
    body=ReclaimBody,
    answers={200: disk_answers.ReclaimAnswer},
    refuses=[openapi.RECLAIM],
)
async def reclaim(request: HttpRequest) -> HttpResponseBase:
    wanted = validate(ReclaimBody, parse_object(request.body))
    return _json(await keeper().reclaim(kind=wanted.kind, path=wanted.path, dry_run=bool(wanted.dry_run)))


def _verify_answer(name: str, job: JobStatus) -> dict[str, Any]:
    ref = catalog().resolve(name)
    about = {"model_id": ref.id, "disk_state": ref.disk_state, "bad_files": list(ref.bad_files)}
    return about | {"verified_at": ref.verified_at, "job": told(job)}


def _json(value: Any, status: int = 200) -> HttpResponseBase:
    return json_response(orjson.dumps(value), status)
