"""An engine in memory, with the numbers and outcomes a test sets."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Literal

from inference.engine.contract import Generation, MemoryFit, MemoryReading, ModelStatus, Size
from inference.engine.fitting import judge
from inference.engine.policy import Limits, Situation
from inference.errors import LmxError, ModelNotFound
from inference.ipc import Capabilities, Embedded, GenerateRequest, Stats, Tokens
from inference.model_settings import NO_SETTINGS, ModelSettings
from inference.principal import Principal
from inference.records import RequestRecord

GIB = 1024**3
OWNER = Principal("owner", "owner", frozenset({"inference", "admin"}))
BOT = Principal("anonymous", "bot-3", frozenset({"inference"}))


def record(model: str = "org/one", **fields: Any) -> RequestRecord:
    """A request in flight."""
    values: dict[str, Any] = {"id": "r1", "protocol": "openai", "endpoint": "/v1/chat/completions", "principal": BOT}
    return RequestRecord(**{**values, "model_asked": model, "model": model, **fields})


class FakeEngine:
    """Implements ``contract.Engine`` but for requests. ``refuse`` makes the next load fail; ``gate`` holds it.

    ``broken`` is what ``memory_plan`` raises; ``failures`` counts how often it did.
    """

    def __init__(self, *ids: str) -> None:
        self.statuses = {name: ModelStatus(name, "unloaded", weight_bytes=4 * GIB, context=32_768) for name in ids}
        self.records: list[RequestRecord] = []
        self.refuse: LmxError | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.loads: list[str] = []
        self.cancelled: list[tuple[str, str]] = []
        self.word: Literal["healthy", "degraded", "error"] = "healthy"
        self.broken: Exception | None = None
        self.failures = 0

    async def start(self) -> None: ...

    async def stop(self, drain_s: float) -> None: ...

    async def generate(
        self, model: str, request: GenerateRequest, record: RequestRecord, *, ttl_s: float | None = None
    ) -> Generation:
        raise ModelNotFound(f"there is no model {model}")

    async def count(self, model: str, request: GenerateRequest, record: RequestRecord) -> int:
        raise ModelNotFound(f"there is no model {model}")

    async def tokenize(self, model: str, text: str, add_special_tokens: bool, record: RequestRecord) -> list[int]:
        raise ModelNotFound(f"there is no model {model}")

    async def tokens(
        self, model: str, prompt: str | GenerateRequest, add_special_tokens: bool, record: RequestRecord
    ) -> Tokens:
        raise ModelNotFound(f"there is no model {model}")

    async def detokenize(self, model: str, token_ids: list[int], record: RequestRecord) -> str:
        raise ModelNotFound(f"there is no model {model}")

    async def embed(
        self, model: str, inputs: list[str | list[int]], dimensions: int | None, record: RequestRecord
    ) -> Embedded:
        raise ModelNotFound(f"there is no model {model}")

    async def load(
        self, model: str, *, context: int | None, slots: int | None, pin: bool | None, ttl_s: float | None = None
    ) -> ModelStatus:
        self.loads.append(model)
        status = self.statuses[model]
        status.state = "loading"
        await self.gate.wait()
        if self.refuse is not None:
            status.state = "unloaded"
            raise self.refuse
        self.make_ready(model)
        return status

    def make_ready(self, model: str, **stats: Any) -> ModelStatus:
        status = self.statuses[model]
        status.state, status.pid, status.loaded_at = "ready", 1000 + len(self.loads), time.time()
        status.capabilities, status.stats = Capabilities(chat=True), Stats(**stats)
        return status

    def settings(self, model: str) -> ModelSettings:
        return NO_SETTINGS

    async def apply_settings(self) -> None: ...

    async def unload(self, model: str) -> ModelStatus:
        status = self.statuses[model]
        status.state, status.pid, status.stats = "unloaded", None, None
        return status

    def models(self) -> list[ModelStatus]:
        return [self.statuses[name] for name in sorted(self.statuses)]

    def in_flight(self) -> list[RequestRecord]:
        return self.records

    def cancel(self, request_id: str, by: str) -> bool:
        found = any(entry.id == request_id for entry in self.records)
        if found:
            self.cancelled.append((request_id, by))
        return found

    def health(self) -> tuple[Literal["healthy", "degraded", "error"], list[str]]:
        return self.word, []

    def memory_fit(self, size: Size, context: int | None = None, model_id: str | None = None) -> MemoryFit:
        """The machine of ``memory_plan`` with none of our models in it."""
        reading = MemoryReading(96 * GIB, 60 * GIB, 36 * GIB, 72 * GIB)
        return judge(size, Situation(reading, Limits(86 * GIB, 72 * GIB)), 0, context=context)

    def memory_plan(self) -> dict[str, Any]:
        """A machine of 96 GiB, of which 36 are in use."""
        if self.broken is not None:
            self.failures += 1
            raise self.broken
        plan: dict[str, Any] = {"total_bytes": 96 * GIB, "used_bytes": 36 * GIB, "available_bytes": 60 * GIB}
        return plan | {"machine_limit_percent": 90.0, "machine_limit_bytes": 86 * GIB, "gpu_limit_bytes": 72 * GIB}
