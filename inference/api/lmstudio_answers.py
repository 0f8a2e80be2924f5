"""The shapes of what ``/api`` answers, as its OpenAPI document tells them; see ``inference.api.answers``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from inference.api.answers import ChatAnswer, Count, Seconds, TextAnswer


class Quantization(BaseModel):
    name: str
    bits_per_weight: float | None


class Instance(BaseModel):
    id: str
    config: dict[str, Any]


class ListedV1(BaseModel):
    type: Literal["llm", "embedding"]
    publisher: str
    key: str
    display_name: str
    quantization: Quantization | None
    size_bytes: Count
    params_string: str | None
    loaded_instances: list[Instance]
    max_context_length: Count
    format: str


class ListV1(BaseModel):
    models: list[ListedV1]


class LoadedInstance(BaseModel):
    type: Literal["llm", "embedding"]
    instance_id: str
    load_time_seconds: Seconds
    status: Literal["loaded"]


class UnloadedInstance(BaseModel):
    instance_id: str


class Download(BaseModel):
    """Where everything is there already, ``status`` is all there is; times are ISO 8601."""

    status: Literal["downloading", "completed", "failed", "paused", "already_downloaded"]


class DownloadJob(BaseModel):
    job_id: str
    status: Literal["downloading", "completed", "failed", "paused"]
    total_size_bytes: Count
    downloaded_bytes: Count


class Downloads(BaseModel):
    downloading: list[DownloadJob]
    completed: list[DownloadJob]
    failed: list[DownloadJob]
    paused: list[DownloadJob]


class ModelV0(BaseModel):
    id: str
    object: Literal["model"]
    type: Literal["llm", "vlm", "embeddings"]
    publisher: str
    arch: str
    compatibility_type: str
    quantization: str | None
    state: Literal["loaded", "not-loaded"]
    max_context_length: Count


class ListV0(BaseModel):
    object: Literal["list"]
    data: list[ModelV0]


class Stats(BaseModel):
    """Times in seconds."""

    tokens_per_second: float
    time_to_first_token: Seconds
    generation_time: Seconds
    stop_reason: str


class ChatAnswerV0(ChatAnswer):
    """OpenAI's, with statistics."""

    stats: Stats
    model_info: dict[str, Any]
    runtime: dict[str, Any]


class TextAnswerV0(TextAnswer):
    """OpenAI's, with statistics."""

    stats: Stats
    model_info: dict[str, Any]
    runtime: dict[str, Any]
