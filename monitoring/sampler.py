"""Once a second: what the machine and the models are doing, into the hub and the hour's history."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from django.db import DatabaseError, connections

from inference.engine.contract import Engine, ModelStatus
from inference.ipc import Stats
from inference.records import RequestRecord
from monitoring import payloads
from monitoring.history import History, Sample, sample_of
from monitoring.hub import Hub
from monitoring.payloads import DiskModel, Latency, Memory, Model, ModelMemory, Request, Status
from monitoring.telemetry import decode_rate

log = logging.getLogger(__name__)

PERIOD_S = 1.0
COLOURS = 8


class Sampler:
    """Publishes ``memory``, ``models``, ``catalog``, ``requests`` and ``status``. Belongs to the engine's loop.

    It reads no memory itself: the engine does, once a second, and decides on the same numbers.
    """

    def __init__(self, hub: Hub, engine: Engine, *, period_s: float = PERIOD_S) -> None:
        self.hub = hub
        self.history = History()
        self._engine = engine
        self._period = period_s
        self._colours: dict[str, int] = {}
        self._catalog: list[DiskModel] = []
        self._last_error = ""

    async def run(self) -> None:
        """Sample until cancelled. A failure is logged once and tried again the next second."""
        set_sampler(self)
        try:
            self.history.prepend(await asyncio.to_thread(_restore, self.history))
            while True:
                started = time.monotonic()
                self._guarded_tick()
                await asyncio.sleep(max(0.05, self._period - (time.monotonic() - started)))
        finally:
            set_sampler(None)

    def tick(self) -> None:
        """Take one sample and publish it."""
        statuses, records = self._engine.models(), self._engine.in_flight()
        models = self.awake(statuses, records)
        memory = self._memory(models)
        self.history.add(sample_of(memory))
        self.hub.publish(payloads.MEMORY, memory)
        self.hub.publish(payloads.MODELS, models)
        self.hub.publish(payloads.REQUESTS, [request_payload(record) for record in records])
        self.hub.publish(payloads.STATUS, self._status(memory, models, records))
        self._publish_catalog([disk_payload(status) for status in statuses])

    def awake(self, statuses: list[ModelStatus], records: list[RequestRecord]) -> list[Model]:
        """The models that have a card, with the footprints of the last second."""
        latency: dict[str, Latency] = self.hub.latest(payloads.LATENCY) or {}
        return [self._model(status, records, latency.get(status.id)) for status in statuses if is_awake(status)]

    def colour(self, model: str) -> int:
        """1 to 8, given out in the order in which models first appear, and kept."""
        return self._colours.setdefault(model, len(self._colours) % COLOURS + 1)

    # ------------------------------------------------------------------------------------------------------ inside

    def _guarded_tick(self) -> None:
        try:
            self.tick()
        except Exception as error:
            words = f"{type(error).__name__}: {error}"
            if words != self._last_error:
                log.exception("the sampler failed; it goes on")
            self._last_error = words
        else:
            self._last_error = ""

    def _model(self, status: ModelStatus, records: list[RequestRecord], latency: Latency | None) -> Model:
        stats, footprint = status.stats or Stats(), status.footprint_bytes
        weights, kv, cache = split(footprint, stats)
        mine = [record for record in records if record.model == status.id]
        return {
            "id": status.id,
            "colour": self.colour(status.id),
            "state": status.state,
            "reason": status.reason,
            "pinned": status.pinned,
            "context": status.context,
            "slots": status.slots,
            "weight_bytes": status.weight_bytes,
            "footprint": footprint,
            "weights": weights,
            "kv": kv,
            "cache": cache,
            "prefix": min(stats.prefix_bytes, kv),
            "prefix_found": found_percent(stats),
            "ttl": status.ttl_s,
            "load_phase": status.load_phase,
            "load_done": status.load_done,
            "load_total": status.load_total,
            "loaded_at": status.loaded_at,
            "last_used": status.last_used,
            "running": status.running,
            "queued": status.queued,
            "longest": max((record.prompt_tokens + record.completion_tokens for record in mine), default=0),
            "tokens_per_second": round(stats.tokens_per_second, 1),
            "prefill_tokens_per_second": round(stats.prefill_tokens_per_second, 1),
            "ttft_ms": latency["ttft_ms"] if latency else None,
            "kind": status.kind,
            "chat": chats(status),
        }

    def _memory(self, models: list[Model]) -> Memory:
        plan = self._engine.memory_plan()
        shares = [memory_share(model) for model in models if model["footprint"]]
        return {
            "at": round(time.time(), 3),
            "total": plan["total_bytes"],
            "used": plan["used_bytes"],
            "available": plan["available_bytes"],
            "limit": plan["machine_limit_bytes"],
            "limit_percent": plan["machine_limit_percent"],
            "gpu_limit": plan["gpu_limit_bytes"],
            "other": max(0, plan["used_bytes"] - sum(share["footprint"] for share in shares)),
            "models": shares,
        }

    def _status(self, memory: Memory, models: list[Model], records: list[RequestRecord]) -> Status:
        word, reasons = self._engine.health()
        waiting = sum(record.phase in ("queued", "preparing") for record in records)
        return {
            "at": memory["at"],
            "health": word,
            "reasons": reasons,
            "total": memory["total"],
            "used": memory["used"],
            "limit": memory["limit"],
            "limit_percent": memory["limit_percent"],
            "running": len(records) - waiting,
            "queued": waiting,
            "tokens_per_second": round(sum(model["tokens_per_second"] for model in models), 1),
        }

    def _publish_catalog(self, catalog: list[DiskModel]) -> None:
        if catalog != self._catalog or self.hub.latest(payloads.CATALOG) is None:
            self._catalog = catalog
            self.hub.publish(payloads.CATALOG, catalog)


def is_awake(status: ModelStatus) -> bool:
    """Whether the model has a card: it is in memory, on its way, or was stopped after crashes."""
    return status.state not in ("unloaded", "failed")


def chats(status: ModelStatus) -> bool:
    """Whether it can be chatted with; until a load has found that out, its kind says so."""
    return status.kind == "llm" if status.capabilities is None else status.capabilities.chat


def disk_payload(status: ModelStatus) -> DiskModel:
    return {
        "id": status.id,
        "state": status.state,
        "weight_bytes": status.weight_bytes,
        "context": status.context,
        "reason": status.reason,
        "kind": status.kind,
        "chat": chats(status),
    }


def memory_share(model: Model) -> ModelMemory:
    """A model's part of the chart: the very numbers of its card."""
    return {
        "id": model["id"],
        "colour": model["colour"],
        "footprint": model["footprint"],
        "weights": model["weights"],
        "kv": model["kv"],
        "cache": model["cache"],
        "rate": model["tokens_per_second"],
    }


def split(footprint: int, stats: Stats) -> tuple[int, int, int]:
    """Weights, KV (of answers and prefix cache) and MLX's free list: together the footprint.

    MLX's counters are read a moment apart from it, so they are cut to what it leaves.
    """
    kv = min(stats.kv_bytes + stats.prefix_bytes, footprint)
    cache = min(stats.cache_bytes, footprint - kv)
    return footprint - kv - cache, kv, cache


def found_percent(stats: Stats) -> float | None:
    """Of the prompt tokens that were looked up in the prefix cache, the percentage that it had."""
    asked = stats.prefix_tokens_asked
    return round(100 * stats.prefix_tokens_found / asked, 1) if asked else None


def request_payload(record: RequestRecord) -> Request:
    rate = decode_rate(record)
    first = record.first_token
    return {
        "id": record.id,
        "at": record.received,
        "client": record.principal.id,
        "model": record.model or record.model_asked,
        "phase": record.phase,
        "position": record.queue_position,
        "prompt_tokens": record.prompt_tokens,
        "prefill_done": record.prefill_done,
        "completion_tokens": record.completion_tokens,
        "tokens_per_second": None if rate is None else round(rate, 1),
        "ttft_ms": None if first is None else round((first - record.received) * 1000, 1),
    }


def _restore(history: History) -> list[Sample]:
    try:
        return history.restore()
    except (DatabaseError, OSError) as error:
        log.warning("the last hour's memory could not be read: %s", error)
        return []
    finally:
        connections["telemetry"].close()


_sampler: Sampler | None = None


def get_sampler() -> Sampler | None:
    """The sampler that runs, None before the first second."""
    return _sampler


def set_sampler(sampler: Sampler | None) -> None:
    global _sampler
    _sampler = sampler


def latest(topic: str, default: Any) -> Any:
    """The running sampler's latest value of a topic, for a page's first rendering."""
    value = _sampler.hub.latest(topic) if _sampler else None
    return default if value is None else value
