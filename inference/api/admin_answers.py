"""The shapes of what ``/admin`` answers, as its OpenAPI document tells them; see ``inference.api.answers``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, RootModel

from inference.api.answers import Amount, Count, RunState, Seconds
from inference.fetching import JobWord
from inference.model_settings_fields import Kind

Health = Literal["healthy", "degraded", "error"]
SettingType = Kind
Priority = Literal["low", "normal", "high"]
AuditVia = Literal["api", "page", "inventory", "request", "server"]
AuditOutcome = Literal["done", "refused", "failed", "left"]


class LoadAnswer(BaseModel):
    model_id: str
    status: RunState | Literal["loaded"]
    memory_used_gb: Amount
    memory_used_bytes: Count
    weight_bytes: Count
    resolved_id: str
    context: Count | None
    slots: Count | None
    ttl: Seconds | None
    load_seconds: Seconds | None


class LoadBegun(BaseModel):
    """Of ``wait: false``: the load goes on."""

    model_id: str
    status: Literal["loading"]


class UnloadAnswer(BaseModel):
    model_id: str
    status: RunState
    memory_freed_gb: Amount
    memory_freed_bytes: Count


class LoadProgress(BaseModel):
    phase: str | None
    done: Count
    total: Count
    seconds: Seconds | None


class RunningModel(BaseModel):
    """Sizes are bytes; ``ttl`` idle seconds; ``loaded_at`` and ``last_used`` seconds since 1970."""

    model_id: str
    state: RunState
    reason: str | None
    pid: int | None
    pinned: bool
    context: Count | None
    slots: Count | None
    memory_used_bytes: Count
    memory_used_gb: Amount
    kv_bytes: Count
    load: LoadProgress
    loaded_at: float | None
    last_used: float | None
    ttl: Seconds | None
    running: Count
    queued: Count
    tokens_per_second: Amount
    prefix_cache: dict[str, Any] | None
    capabilities: list[str] | None
    reload_needed: bool


class UpdateFile(BaseModel):
    name: str
    bytes: Count
    change: Literal["changed", "new"]


class AvailableUpdate(BaseModel):
    """``bytes`` are those of ``files``; ``documents_only``: only README or licence differ, the model is the same."""

    commit: str
    bytes: Count
    files: list[UpdateFile]
    removed: list[str]
    documents_only: bool


class RevisionTrial(BaseModel):
    """A revision that waits for its smoke prompt, or did not answer it."""

    state: Literal["waiting", "failed"]
    reason: str
    at: float | None


class ListedModel(RunningModel):
    """What is on disk and how it runs; ``worker_output`` the last lines of a process that failed.

    ``bad_files`` are not what they should be; ``verified_at`` is when all files were last found sound. ``parameters``
    is their number and ``template_sha256`` the chat template's hash, both null when there is none to tell;
    ``capabilities`` of one that is not loaded are those that its files tell.
    ``bad_files`` are not what they should be; ``verified_at`` is when all files were last found sound.
    ``is_current``: it has its repository's bare name; ``superseded_at`` is when another revision took that from it.
    ``update`` is what the Hub had at ``checked_at``, null where it has nothing else or was not asked.
    """

    aliases: list[str]
    source: str
    revision: str | None
    variant: str | None
    format: str
    architecture: str
    quantization: str | None
    size_bytes: Count
    size_gb: Amount
    context_length: Count
    created: int
    path: str
    disk_state: str
    bad_files: list[str]
    verified_at: float | None
    parameters: Count | None
    licence: str | None
    template_sha256: str | None
    total_bytes: Count
    worker_output: list[str]
    is_current: bool
    update: AvailableUpdate | None
    checked_at: float | None
    trial: RevisionTrial | None
    superseded_at: float | None


class RunningModels(BaseModel):
    models: list[RunningModel]


class ListedModels(BaseModel):
    """The last three are there where a query asks for less than all: ``total`` fit it, ``next_offset`` is null at the
    end of them."""

    models: list[ListedModel]
    total: Count = 0
    offset: Count = 0
    next_offset: Count | None = None


class HiddenModel(BaseModel):
    name: str
    path: str
    source: str
    disk_state: str
    weight_bytes: Count


class HiddenModels(BaseModel):
    models: list[HiddenModel]


class RestoreAnswer(BaseModel):
    model_id: str
    path: str
    disk_state: str


class ModelFileAnswer(BaseModel):
    """``expected`` is the SHA-256 that was published or first seen, ``actual`` the one that was read, empty where
    nobody knows; ``sound`` is null where no one has read the file. ``verified_at`` in seconds since 1970."""

    name: str
    size: Count
    expected: str
    actual: str
    basis: str
    sound: bool | None
    verified_at: float | None


class FilesAnswer(BaseModel):
    model_id: str
    path: str
    files: list[ModelFileAnswer]


class FlyingRequest(BaseModel):
    """A request in flight, never its text; times in seconds since 1970."""

    id: str
    endpoint: str
    client: str
    phase: str
    priority: Priority
    queue_position: Count | None
    deadline: float | None


class Status(BaseModel):
    status: Health
    reasons: list[str]
    version: str
    uptime_s: Amount
    memory: dict[str, Any]
    models: list[RunningModel]
    requests: list[FlyingRequest]
    tokens_per_second: Amount


class HealthAnswer(BaseModel):
    """With status 503 where ``status`` is ``error``."""

    status: Health
    reasons: list[str]


class Happened(RootModel[dict[str, Any] | None]):
    """The fields of what happened; null of a ``gap``."""


class Cancelled(BaseModel):
    id: str
    status: Literal["cancelled"]


class JobFile(BaseModel):
    """``done`` of ``size`` bytes are here."""

    name: str
    size: Count
    done: Count


class JobAnswer(BaseModel):
    """``done`` of ``total`` in ``unit``; times in seconds since 1970; ``code`` why it failed or is paused.

    ``place`` is 1 for the queued one that is next; ``files`` are the largest ones of a fetch, with bytes.
    """

    id: Annotated[int, Field(ge=1)]
    kind: str
    subject: str
    state: JobWord
    phase: str
    done: Count
    total: Count
    unit: str
    bytes_per_second: Count
    seconds_left: Seconds | None
    message: str
    code: str
    place: Annotated[int, Field(ge=1)] | None
    queued_at: float | None
    started_at: float | None
    finished_at: float | None
    result: dict[str, Any]
    files: list[JobFile]


class JobList(BaseModel):
    jobs: list[JobAnswer]


class DownloadAnswer(BaseModel):
    """With status 202 while the job runs or waits."""

    model_id: str
    path: str | None
    size_mb: Amount
    time_sec: Seconds | None
    auto_loaded: bool
    job: JobAnswer


class VerifyAnswer(BaseModel):
    """With status 202 while the job runs. What is told of the model is what is known at that moment."""

    model_id: str
    disk_state: str
    bad_files: list[str]
    verified_at: float | None
    job: JobAnswer


class DeleteAnswer(BaseModel):
    """What is freed, or would be: ``deleted`` is false for a dry run and where a model was only forgotten."""

    model_id: str
    path: str
    deleted: bool
    forgotten: bool
    files: Count
    freed_bytes: Count
    shared_bytes: Count
    shared_with: list[str]


class SettingField(BaseModel):
    """One setting, enough to make a form of: null where a bound does not apply or no default is fixed.

    ``type``: ``seconds`` is a number or ``never``, ``strings`` a list of texts, ``choice`` one of ``choices``.
    ``max_length`` counts characters of a text, texts of a list. ``source`` says where the value in force is from:
    ``model`` (set here), ``config`` (config.yaml) or ``default``. ``reload``: it holds from the next load on.
    """

    name: str
    type: SettingType
    group: str
    label: str
    help: str
    minimum: float | None
    exclusive_minimum: float | None
    maximum: float | None
    max_length: int | None
    choices: list[str] | None
    reload: bool
    default: Any
    source: Literal["model", "config", "default"]


class SettingsAnswer(BaseModel):
    """What is kept for a model. ``settings`` was set here, ``configured`` stands in config.yaml, ``effective`` holds.

    They belong to ``identity``, whatever its revision. ``present`` is false where only they are left of the model.
    """

    model_id: str
    identity: str
    present: bool
    settings: dict[str, Any]
    configured: dict[str, Any]
    effective: dict[str, Any]
    fields: list[SettingField]
    reload_needed: bool


class SettingsChanged(SettingsAnswer):
    """``changed`` names what is another now than before."""

    changed: list[str]


class AuditEntry(BaseModel):
    """``at`` in epoch seconds; ``status`` of the answer; ``reason``: the refusal's code, or why the server did it."""

    id: Count
    at: Amount
    who: str
    who_kind: str
    address: str
    via: AuditVia
    action: str
    subject: str
    outcome: AuditOutcome
    status: Count | None
    reason: str
    request_id: str
    detail: dict[str, Any]


class AuditList(BaseModel):
    """``next`` is the ``before`` of the entries after these, null when there are none."""

    entries: list[AuditEntry]
    next: Count | None
