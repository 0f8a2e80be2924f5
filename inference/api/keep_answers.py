"""The shapes of what the routes of updates and conversions answer; see ``inference.api.admin_answers``."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from inference.api.admin_answers import AvailableUpdate, DeleteAnswer, JobAnswer
from inference.keeping import UpdateWord


class CheckedModel(BaseModel):
    """``problem`` says why it is not known whether there is an update; empty otherwise."""

    model_id: str
    update: AvailableUpdate | None
    problem: str


class CheckAnswer(BaseModel):
    models: list[CheckedModel]


class UpdateAnswer(BaseModel):
    """With status 202 while the job runs. ``revision`` is the new one; ``kept`` what deleting the old would free.

    ``failed``: by the job, or by the smoke prompt, and then the model is what it was. ``waiting``: it could not be
    asked yet, and ``reason`` says why.
    """

    model_id: str
    outcome: UpdateWord
    revision: str
    previous: str
    reason: str
    kept: DeleteAnswer | None
    job: JobAnswer


class RollbackAnswer(BaseModel):
    """``model_id`` means ``revision`` now; what it meant before is called ``previous_id``."""

    model_id: str
    revision: str
    path: str
    previous: str
    previous_id: str


class ConvertAnswer(BaseModel):
    """With status 202 while the job runs. ``model_id`` is what the result is called."""

    model_id: str
    path: str
    origin: dict[str, Any]
    job: JobAnswer
