"""The shapes of what the routes about the Hub answer, as the OpenAPI document tells them; see ``inference.finding``."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from inference.api.answers import Count
from inference.finding import ModelFormat, Word


class HubModelAnswer(BaseModel):
    """0 and "" where the Hub says nothing. ``updated_at`` in seconds since 1970; ``here`` are revisions on disk."""

    model_id: str
    author: str
    revision: str
    format: ModelFormat
    architecture: str
    quantization: str
    parameters: Count
    weight_bytes: Count
    downloads: Count
    likes: Count
    updated_at: float
    licence: str
    gated: Literal["", "auto", "manual"]
    task: str
    tags: list[str]
    here: list[str]


class SearchAnswer(BaseModel):
    """``cursor`` asks for the next page; "" on the last."""

    models: list[HubModelAnswer]
    cursor: str
    looked_at: Count


class PlaceAnswer(BaseModel):
    """``max_context`` is the most tokens that fit, 0 where not even the weights do, null where that is not known."""

    free_bytes: Count
    fits: bool
    max_context: Count | None


class MemoryFitAnswer(BaseModel):
    """``now``: beside what is loaded; ``alone``: beside other programs only; ``unload`` makes the room."""

    context: Count
    needed_bytes: Count
    reserve_bytes: Count
    limit_bytes: Count
    others_bytes: Count
    now: PlaceAnswer
    alone: PlaceAnswer
    unload: list[str]
    loaded: bool


class DiskRoomAnswer(BaseModel):
    """``have_bytes`` are here from a download that was cut off; ``needed_bytes`` are still to come."""

    needed_bytes: Count
    have_bytes: Count
    free_bytes: Count
    keep_free_bytes: Count
    fits: bool


class HereAnswer(BaseModel):
    """``current`` is false where the Hub has another revision, null where that is not known."""

    model_id: str
    path: str
    revision: str
    disk_state: str
    current: bool | None


class FitAnswer(BaseModel):
    """``sentence`` is for people. ``memory`` and ``disk`` are null where they were not worked out."""

    model_id: str
    source: Literal["disk", "hub"]
    verdict: Word
    sentence: str
    revision: str
    format: ModelFormat
    architecture: str
    quantization: str
    weight_bytes: Count
    kv_bytes_per_token: Count
    context_length: Count
    supported: bool
    problem: str
    memory: MemoryFitAnswer | None
    disk: DiskRoomAnswer | None
    gated: Literal["", "auto", "manual"]
    token: bool
    readable: bool | None
    here: list[HereAnswer]
    newer: str


class FileAnswer(BaseModel):
    """``fetched``: a download takes it; ``part``: bytes of it that are here from one that was cut off."""

    name: str
    size: Count
    fetched: bool
    part: Count


class VariantAnswer(BaseModel):
    model_id: str
    quantization: str
    weight_bytes: Count
    verdict: Word
    sentence: str
    here: bool
    chosen: bool


class CardAnswer(BaseModel):
    """HTML without scripts, styles, pictures or forms."""

    html: str
    cut: bool


class ModelAnswer(BaseModel):
    """``chosen`` is the variant that ``models.quantization_preference`` picks, ``why`` says so."""

    model: HubModelAnswer
    verdict: FitAnswer
    files: list[FileAnswer]
    more_files: Count
    fetched_bytes: Count
    card: CardAnswer
    variants: list[VariantAnswer]
    chosen: str
    why: str
    address: str
