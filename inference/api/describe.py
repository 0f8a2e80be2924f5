"""Models, requests and memory as the API's JSON objects. Sizes are bytes; ``*_gb`` is 2**30 bytes, for people."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import msgspec

from inference.catalog import ModelRef
from inference.engine.contract import ModelStatus
from inference.ipc import Capabilities, Stats
from inference.keeping import Kept
from inference.records import RequestRecord

GB = 2**30
PRIORITY_NAMES = {-1: "low", 0: "normal", 1: "high"}
LIVE_STATES = ("loading", "ready", "draining")
_DEAD_STATES = ("failed", "stopped-after-crashes")
_OUTPUT_LINES = 20


def model_object(ref: ModelRef, status: ModelStatus | None, name: str | None = None) -> dict[str, Any]:
    """A model as ``/v1/models`` shows it: OpenAI's four fields, then ours. ``name`` is what it was asked by."""
    capabilities = status.capabilities if status else None
    return {
        "id": name or ref.id,
        "object": "model",
        "created": ref.created,
        "owned_by": ref.id.split("/")[0] if "/" in ref.id else "local",
        "root": ref.id,
        "type": "embeddings" if capabilities and capabilities.embeddings else ref.kind,
        "state": status.state if status else "unloaded",
        "disk_state": ref.disk_state,
        "context_length": ref.context_length,
        "max_model_len": (status.context if status else 0) or ref.context_length,
        "loaded_context_length": status.context or None if status else None,
        "size_bytes": ref.weight_bytes,
        "architecture": ref.architecture,
        "quantization": ref.quantization,
        "capabilities": capability_names(capabilities, ref),
    }


def capability_names(capabilities: Capabilities | None, ref: ModelRef | None = None) -> list[str] | None:
    """What a model can do: once it is loaded by its worker's word, before that as far as its files tell; else None."""
    if capabilities is None:
        return list(ref.capabilities) if ref is not None and ref.capabilities else None
    return [name for name, value in msgspec.structs.asdict(capabilities).items() if value is True]


def listed_model(ref: ModelRef, status: ModelStatus | None) -> dict[str, Any]:
    """A model as ``/admin/models/list`` shows it: what is on disk, and how it runs."""
    run = status or ModelStatus(id=ref.id, state="unloaded")
    broken = ref.problem is not None and run.state == "unloaded"
    return {
        "model_id": ref.id,
        "aliases": list(ref.aliases),
        "source": ref.source,
        "revision": ref.revision,
        "variant": ref.variant,
        "format": ref.format,
        "architecture": ref.architecture,
        "quantization": ref.quantization,
        "size_bytes": ref.weight_bytes,
        "size_gb": in_gb(ref.weight_bytes),
        "context_length": ref.context_length,
        "created": ref.created,
        "path": str(ref.path),
        "disk_state": ref.disk_state,
        "bad_files": list(ref.bad_files),
        "verified_at": ref.verified_at,
        "parameters": ref.parameters or None,
        "licence": ref.licence or None,
        "template_sha256": ref.template_sha256 or None,
        "total_bytes": ref.total_bytes,
        **running_model(run),
        "capabilities": capability_names(run.capabilities, ref),
        "state": "failed" if broken else run.state,
        "reason": run.reason or ref.problem,
        "worker_output": run.recent_stderr[-_OUTPUT_LINES:] if run.state in _DEAD_STATES else [],
    }


def kept_model(kept: Kept) -> dict[str, Any]:
    """What keeping says of a model: whether it has the bare name, what the Hub has, how its trial went."""
    return {
        "is_current": kept.is_current,
        "update": kept.update and asdict(kept.update),
        "checked_at": kept.checked_at,
        "trial": kept.trial and asdict(kept.trial),
        "superseded_at": kept.superseded_at,
    }


def running_model(status: ModelStatus) -> dict[str, Any]:
    """How one model runs: state, memory, load progress, requests."""
    stats = status.stats
    return {
        "model_id": status.id,
        "state": status.state,
        "reason": status.reason,
        "pid": status.pid,
        "pinned": status.pinned,
        "reload_needed": status.reload_needed,
        "context": status.context or None,
        "slots": status.slots or None,
        "memory_used_bytes": status.footprint_bytes,
        "memory_used_gb": in_gb(status.footprint_bytes),
        "kv_bytes": stats.kv_bytes if stats else 0,
        "load": {
            "phase": status.load_phase,
            "done": status.load_done,
            "total": status.load_total,
            "seconds": status.load_seconds,
        },
        "loaded_at": status.loaded_at,
        "last_used": status.last_used,
        "ttl": status.ttl_s,
        "running": status.running,
        "queued": status.queued,
        "tokens_per_second": round(stats.tokens_per_second, 2) if stats else 0.0,
        "prefix_cache": prefix_cache(stats),
        "capabilities": capability_names(status.capabilities),
    }


def prefix_cache(stats: Stats | None) -> dict[str, Any] | None:
    """What a model keeps of prompts it has read, and how much of what was asked it had; None while it is not loaded."""
    if stats is None:
        return None
    asked, found = stats.prefix_tokens_asked, stats.prefix_tokens_found
    return {
        "bytes": stats.prefix_bytes,
        "entries": stats.prefix_entries,
        "disk_bytes": stats.prefix_disk_bytes,
        "tokens_asked": asked,
        "tokens_found": found,
        "found_percent": round(100 * found / asked, 1) if asked else None,
    }


def flying_request(record: RequestRecord) -> dict[str, Any]:
    """A request in flight; never its text."""
    return {
        "id": record.id,
        "endpoint": record.endpoint,
        "client": record.principal.id,
        "model_asked": record.model_asked,
        "model": record.model,
        "stream": record.stream,
        "phase": record.phase,
        "priority": PRIORITY_NAMES[record.priority],
        "queue_position": record.queue_position,
        "deadline": record.deadline,
        "received": record.received,
        "started": record.started,
        "first_token": record.first_token,
        "prompt_tokens": record.prompt_tokens,
        "cached_tokens": record.cached_tokens,
        "prefill_done": record.prefill_done,
        "completion_tokens": record.completion_tokens,
    }


def in_gb(size: int) -> float:
    return round(size / GB, 3)
