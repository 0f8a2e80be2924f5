"""The engine as the rest of the web process sees it. ``inference.engine.get_engine()`` gives the one that runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Protocol, Self

from inference.catalog import ModelKind
from inference.ipc import Capabilities, Embedded, GenerateRequest, RequestEvent, Stats, Tokens
from inference.model_settings import ModelSettings
from inference.records import RequestRecord

RunState = Literal["unloaded", "loading", "ready", "draining", "failed", "stopped-after-crashes"]


@dataclass(frozen=True, slots=True)
class MemoryReading:
    """The machine's memory in bytes. ``gpu_limit`` is the Metal working-set limit, None where there is none."""

    total: int
    available: int
    used: int
    gpu_limit: int | None = None


class MemoryReader(Protocol):
    """Readings of the machine and of one process (macOS ``phys_footprint``, Linux PSS), cheap enough for 1 Hz.

    The engine calls it from a worker thread, one call at a time.
    """

    def read(self) -> MemoryReading: ...

    def footprint(self, pid: int) -> int:
        """Bytes of physical memory of that process; 0 when it is gone."""
        ...


@dataclass(slots=True)
class ModelStatus:
    """A snapshot of one model's run state; ``reason`` says why it failed or is stopped, for people.

    ``recent_stderr`` are the last lines of its worker, also of one that is gone. ``reload_needed``: it is loaded with
    other bounds than its settings say now.
    """

    id: str
    state: RunState
    reason: str | None = None
    pid: int | None = None
    pinned: bool = False
    context: int = 0
    slots: int = 0
    weight_bytes: int = 0
    footprint_bytes: int = 0
    load_phase: str | None = None
    load_done: int = 0
    load_total: int = 0
    load_seconds: float | None = None
    loaded_at: float | None = None
    last_used: float | None = None
    ttl_s: float | None = None
    running: int = 0
    queued: int = 0
    capabilities: Capabilities | None = None
    stats: Stats | None = None
    kind: ModelKind = "llm"
    recent_stderr: list[str] = field(default_factory=list)
    reload_needed: bool = False


@dataclass(frozen=True, slots=True)
class Size:
    """What a model takes, in bytes; ``context`` is its longest in tokens. 0 where nobody knows."""

    weight_bytes: int
    kv_bytes_per_token: int = 0
    context: int = 0


@dataclass(frozen=True, slots=True)
class Place:
    """Whether a model has room somewhere. ``max_context`` is the most tokens that fit: 0 where not even the weights do.

    It is None where a token's size is not known and the weights fit.
    """

    free_bytes: int
    fits: bool
    max_context: int | None


@dataclass(frozen=True, slots=True)
class MemoryFit:
    """Whether a model can be loaded with ``context`` tokens, by the rule that admits loads. Sizes in bytes.

    ``now``: beside what is loaded. ``alone``: beside other programs only. ``unload`` names models whose end makes room;
    ``limit_bytes`` is what models may use at most, ``others_bytes`` what of it other programs hold.
    """

    context: int
    needed_bytes: int
    reserve_bytes: int
    limit_bytes: int
    others_bytes: int
    now: Place
    alone: Place
    unload: tuple[str, ...] = ()
    loaded: bool = False


class Generation(Protocol):
    """One running request. Leaving the ``async with`` block cancels whatever is still going on.

    Iterating yields *batches*: every event that has arrived since the last turn, in order, never an empty list. The
    iteration ends after ``Failed`` or after ``Finished`` of the last choice; a worker's death arrives as ``Failed``
    with code ``worker_died``. A task cancelled inside the block (client gone) cancels the request in the worker.
    """

    record: RequestRecord
    request: GenerateRequest
    prompt_tokens: int

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def __aiter__(self) -> AsyncIterator[list[RequestEvent]]: ...

    async def wait_started(self, timeout: float) -> None:  # noqa: ASYNC109 - it returns, it does not raise
        """Return when ``Started`` arrived or ``timeout`` seconds passed; raise the ``LmxError`` if it failed first."""
        ...

    def cancel(self, by: str) -> None:
        """End it; a ``Finished`` with reason ``cancelled`` follows."""
        ...


class Engine(Protocol):
    """Owner of the workers. All methods belong to the event loop that called ``start()``."""

    async def start(self) -> None: ...

    async def stop(self, drain_s: float) -> None:
        """Refuse new requests, let running ones finish for ``drain_s`` seconds, end every child. Never raises."""
        ...

    async def generate(
        self, model: str, request: GenerateRequest, record: RequestRecord, *, ttl_s: float | None = None
    ) -> Generation:
        """Resolve, load if need be (concurrent callers share one load), prepare, admit and start.

        ``ttl_s`` unloads the model after that many idle seconds, if this request is what loads it.

        Returns once ``start`` was sent. Raises ``LmxError`` for every refusal. If the caller is cancelled while
        waiting, nothing of the request is left behind. Fills ``record`` and hands it to the sink when it ends.
        """
        ...

    async def count(self, model: str, request: GenerateRequest, record: RequestRecord) -> int:
        """Prompt tokens of ``request`` as the model's own template makes them. Loads the model; takes no slot."""
        ...

    async def tokenize(self, model: str, text: str, add_special_tokens: bool, record: RequestRecord) -> list[int]: ...

    async def tokens(
        self, model: str, prompt: str | GenerateRequest, add_special_tokens: bool, record: RequestRecord
    ) -> Tokens:
        """As ``tokenize``, with each token's text. A request gives the prompt that the model's template makes of it."""
        ...

    async def detokenize(self, model: str, token_ids: list[int], record: RequestRecord) -> str: ...

    async def embed(
        self, model: str, inputs: list[str | list[int]], dimensions: int | None, record: RequestRecord
    ) -> Embedded:
        """One vector per input, of unit length. Takes a slot. Refuses with ``Unsupported`` where the model has none.

        As with ``generate``, a caller that is cancelled leaves nothing behind and ``record`` is filled and put away.
        """
        ...

    async def load(
        self,
        model: str,
        *,
        context: int | None,
        slots: int | None,
        pin: bool | None,
        ttl_s: float | None = None,
    ) -> ModelStatus:
        """Load now. A model that is loaded with other bounds is loaded again. ``ttl_s``: see ``generate``."""
        ...

    def settings(self, model: str) -> ModelSettings:
        """What the owner keeps for the model of that name; nothing where there is no such model."""
        ...

    async def apply_settings(self) -> None:
        """Settings of models were changed in the catalog: what needs no reload holds on return."""
        ...

    async def unload(self, model: str) -> ModelStatus:
        """Drain, stop the worker and return when its memory is back."""
        ...

    def models(self) -> list[ModelStatus]:
        """Every model of the catalog with its run state, sorted by id."""
        ...

    def in_flight(self) -> list[RequestRecord]: ...

    def cancel(self, request_id: str, by: str) -> bool: ...

    def health(self) -> tuple[Literal["healthy", "degraded", "error"], list[str]]:
        """The word and its reasons, from heartbeats and the last real generation."""
        ...

    def memory_fit(self, size: Size, context: int | None = None, model_id: str | None = None) -> MemoryFit:
        """Whether a model would be admitted, now and with nothing else loaded; ``model_id`` is one of the catalog.

        Without ``context`` it is what a load reserves: the model's own, 32,768 at most. One that is loaded is judged
        as if it were not.
        """
        ...

    def memory_plan(self) -> dict[str, Any]:
        """The two limits, what is free under each, reservations in flight: the numbers behind every refusal.

        Always there, in bytes as of the last reading: ``total_bytes``, ``used_bytes``, ``available_bytes``,
        ``machine_limit_bytes``, ``gpu_limit_bytes`` (None where there is none); and ``machine_limit_percent``.
        """
        ...
