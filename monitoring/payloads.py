"""What the hub's state topics hold and the websocket carries. Bytes, seconds since the epoch, tokens, milliseconds."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

from inference.catalog import ModelKind

Action = Literal["load", "unload", "pin", "verify", "restore", "check", "update", "rollback", "convert"]
MEMORY, MODELS, CATALOG, REQUESTS, STATUS = "memory", "models", "catalog", "requests", "status"
LATENCY, NOTICES, JOBS = "latency", "notices", "jobs"


class ModelMemory(TypedDict):
    """One model's share of the machine: ``weights`` is its footprint less ``kv`` and ``cache`` (MLX's free list).

    ``rate`` is in tokens/s.
    """

    id: str
    colour: int
    footprint: int
    weights: int
    kv: int
    cache: int
    rate: float


class Memory(TypedDict):
    """``limit`` is what all programs together may use; ``other`` is everything that is not one of our models."""

    at: float
    total: int
    used: int
    available: int
    limit: int
    limit_percent: float
    gpu_limit: int | None
    other: int
    models: list[ModelMemory]


class Model(TypedDict):
    """A model that is loaded, loading, leaving or kept from loading. ``colour`` is 1 to 8, the same on every page.

    ``ttl`` is how many idle seconds it stays, None until its memory is needed. ``kv`` has the prefix cache in it, which
    is ``prefix``; ``prefix_found`` is the percentage of prompt tokens that it had, None before the first. ``chat``
    says whether it can be chatted with, as far as is known before it is loaded.
    """

    id: str
    colour: int
    state: str
    reason: str | None
    pinned: bool
    context: int
    slots: int
    weight_bytes: int
    footprint: int
    weights: int
    kv: int
    cache: int
    prefix: int
    prefix_found: float | None
    ttl: float | None
    load_phase: str | None
    load_done: int
    load_total: int
    loaded_at: float | None
    last_used: float | None
    running: int
    queued: int
    longest: int
    tokens_per_second: float
    prefill_tokens_per_second: float
    ttft_ms: float | None
    kind: ModelKind
    chat: bool


class DiskModel(TypedDict):
    """A model on disk. ``reason`` says why it cannot be loaded, None when it can; ``chat`` as in ``Model``."""

    id: str
    state: str
    weight_bytes: int
    context: int
    reason: str | None
    kind: ModelKind
    chat: bool


class Request(TypedDict):
    """A request in flight. ``phase`` is ``preparing``, ``queued``, ``prefill`` or ``decode``.

    ``position`` is 1 for the next to get a slot of its model, None while it does not wait for one.
    """

    id: str
    at: float
    client: str
    model: str
    phase: str
    position: int | None
    prompt_tokens: int
    prefill_done: int
    completion_tokens: int
    tokens_per_second: float | None
    ttft_ms: float | None


class Status(TypedDict):
    """The strip above every page."""

    at: float
    health: str
    reasons: list[str]
    total: int
    used: int
    limit: int
    limit_percent: float
    running: int
    queued: int
    tokens_per_second: float


class Latency(TypedDict):
    """Medians over a model's last requests."""

    ttft_ms: float | None
    tokens_per_second: float | None


class Notice(TypedDict):
    """What became of an action of the page. ``evict`` names loaded models whose unloading would help."""

    model: str
    action: Action
    message: str
    evict: list[str]
    at: float


class Subscribe(TypedDict, total=False):
    """Sent by the page first, and again after a reconnect with ``since`` (topic to last number seen)."""

    type: Literal["subscribe"]
    topics: list[str]
    since: dict[str, int]
    visible: bool


class Batch(TypedDict):
    """Sent to the page: frames of the hub. To be answered with ``{"type": "ack", "n": n}``."""

    n: int
    frames: list[dict[str, Any]]
