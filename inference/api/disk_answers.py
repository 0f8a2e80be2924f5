"""The shapes of what ``/admin/disk`` answers; see ``inference.api.admin_answers``."""

from __future__ import annotations

from pydantic import BaseModel

from inference.api.answers import Count


class SpaceUse(BaseModel):
    """``reclaimable`` bytes would be free if it were deleted; ``why`` nobody needs it."""

    kind: str
    path: str
    bytes: Count
    name: str
    reclaimable: Count
    why: str


class RootSpace(BaseModel):
    """``present`` is false where the directory is not mounted."""

    path: str
    owner: str
    present: bool
    bytes: Count
    models: list[SpaceUse]


class VolumeSpace(BaseModel):
    path: str
    total_bytes: Count
    free_bytes: Count
    places: list[str]


class DuplicateAnswer(BaseModel):
    """``bytes`` would be saved if one were kept; ``why``: ``content`` by hash, ``revision`` by name and revision."""

    models: list[str]
    paths: list[str]
    bytes: Count
    why: str


class QuotaAnswer(BaseModel):
    kind: str
    limit_bytes: Count
    used_bytes: Count


class SkippedAnswer(BaseModel):
    path: str
    why: str


class ReclaimAnswer(BaseModel):
    """``freed_bytes`` is what would be freed, where ``dry_run`` is true."""

    dry_run: bool
    freed_bytes: Count
    freed: list[SpaceUse]
    skipped: list[SkippedAnswer]


class DiskAnswer(BaseModel):
    """``bytes`` by kind of use; ``reclaimable`` are those of ``others`` that nobody needs."""

    duplicates: list[DuplicateAnswer]
    quotas: list[QuotaAnswer]

    roots: list[RootSpace]
    others: list[SpaceUse]
    volumes: list[VolumeSpace]
    bytes: dict[str, Count]
    reclaimable: list[SpaceUse]
    reclaimable_bytes: Count
