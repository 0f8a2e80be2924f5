"""A new revision answers a smoke prompt before it gets its model's name: load, a few greedy tokens, unload."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, Literal, Protocol

from inference.catalog import ModelRef
from inference.engine.contract import ModelStatus
from inference.errors import InsufficientMemory, LmxError, TooManyRequests, from_code
from inference.ipc import Failed, GenerateRequest, Sampling
from inference.principal import Principal
from inference.records import RequestRecord, new_record

_TOKENS = 8
_PROMPT = "Say hello."
_ASKER = Principal("owner", "lmx update", frozenset({"inference", "admin"}), priority=-1)
_LIVE = ("loading", "ready", "draining")
_POLL_S = 0.2


class Engine(Protocol):
    """``inference.engine.contract.Engine``, as far as trying a model needs it."""

    async def generate(self, model: str, request: GenerateRequest, record: RequestRecord) -> Any: ...

    async def embed(
        self, model: str, inputs: list[str | list[int]], dimensions: int | None, record: RequestRecord
    ) -> Any: ...

    async def load(
        self, model: str, *, context: int | None, slots: int | None, pin: bool | None, ttl_s: float | None = None
    ) -> ModelStatus: ...

    async def unload(self, model: str) -> ModelStatus: ...

    def models(self) -> list[ModelStatus]: ...

    def in_flight(self) -> list[RequestRecord]: ...


class Outcome:
    """``verdict``: it answered, it cannot, or it could not be asked now; ``reason`` says why for the last two."""

    def __init__(self, verdict: Literal["answered", "failed", "later"], reason: str = "") -> None:
        self.verdict, self.reason = verdict, reason


def status_of(engine: Engine, model_id: str) -> ModelStatus:
    """How it runs; unloaded where the engine does not know it."""
    found = next((status for status in engine.models() if status.id == model_id), None)
    return found or ModelStatus(model_id, "unloaded")


def is_idle(engine: Engine) -> bool:
    """Whether no request is in flight and no model is being loaded."""
    return not engine.in_flight() and all(status.state != "loading" for status in engine.models())


async def until_idle(engine: Engine, patience_s: float) -> None:
    """Return when nothing runs, or patience is over."""
    end = time.monotonic() + patience_s
    while True:
        if is_idle(engine) or time.monotonic() >= end:
            return
        await asyncio.sleep(_POLL_S)


async def try_out(engine: Engine, ref: ModelRef, *, template: bool) -> Outcome:
    """Ask the model. It is loaded for that if it is not, and unloaded again then, whatever came of it."""
    was_live = status_of(engine, ref.id).state in _LIVE
    try:
        await _ask(engine, ref, template=template)
        return Outcome("answered")
    except (InsufficientMemory, TooManyRequests) as error:
        return Outcome("later", error.message)
    except LmxError as error:
        # Refused while it was not even tried: the server is stopping, or holds it back.
        tried = status_of(engine, ref.id).state in ("failed", "stopped-after-crashes", "ready")
        return Outcome("failed" if tried or not error.retryable else "later", error.message)
    finally:
        if not was_live and status_of(engine, ref.id).state != "unloaded":
            await _unload(engine, ref.id)


async def _ask(engine: Engine, ref: ModelRef, *, template: bool) -> None:
    record = new_record("lmx", "smoke-", ref.id, _ASKER, "update")
    if ref.kind == "embeddings":
        await engine.embed(ref.id, [_PROMPT], None, record)
        return
    request = GenerateRequest(
        messages=[{"role": "user", "content": _PROMPT}] if template else None,
        prompt=None if template else _PROMPT,
        max_tokens=_TOKENS,
        sampling=Sampling(temperature=0.0),
    )
    async with await engine.generate(ref.id, request, record) as generation:
        await _heard(generation)


async def _heard(generation: AsyncIterator[list[Any]]) -> None:
    async for events in generation:
        for event in events:
            if isinstance(event, Failed):
                raise from_code(event.code, event.message, event.param, event.details)


async def _unload(engine: Engine, model_id: str) -> None:
    try:
        await engine.unload(model_id)
    except LmxError:  # the server is stopping, and unloads it itself
        return


async def hand_over(engine: Engine, name: str, before: ModelStatus, others: list[str], patience_s: float) -> None:
    """After ``name`` means another directory: whoever runs under it, or under ``others``, makes place for that.

    ``before`` is how ``name`` ran. Running answers are waited for, for so long; then they have what a drain gives them.
    """
    end = time.monotonic() + patience_s
    while True:
        now = status_of(engine, name)
        if now.state != "ready" or not now.running + now.queued or time.monotonic() >= end:
            break
        await asyncio.sleep(_POLL_S)
    live = [one for one in (name, *others) if status_of(engine, one).state != "unloaded"]
    loaded = before.state in _LIVE or any(status_of(engine, one).state in _LIVE for one in live)
    for one in live:
        await engine.unload(one)
    if loaded:
        await engine.load(name, context=None, slots=None, pin=before.pinned or None, ttl_s=before.ttl_s)
