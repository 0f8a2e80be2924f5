"""Models as LM Studio tells of them: ``/api/v1/models`` and ``/api/v0/models``."""

from __future__ import annotations

import re
from typing import Any

from inference.catalog import ModelRef
from inference.engine.contract import ModelStatus

_SIZE = re.compile(r"(?:^|[-_])((?:\d+x)?\d+(?:\.\d+)?[bm])(?=[-_.]|$)", re.IGNORECASE)
_BITS = re.compile(r"\d+(?:\.\d+)?")


def is_loaded(status: ModelStatus | None) -> bool:
    return status is not None and status.state == "ready"


def listed_v1(ref: ModelRef, status: ModelStatus | None) -> dict[str, Any]:
    """An entry of ``/api/v1/models``. A model has one instance at most, whose id is the model's key."""
    told: dict[str, Any] = {
        "type": "embedding" if ref.kind == "embeddings" else "llm",
        "publisher": publisher(ref),
        "key": ref.id,
        "display_name": _short(ref).replace("-", " ").replace("_", " "),
        "quantization": _quantization(ref),
        "size_bytes": ref.weight_bytes,
        "params_string": _params(ref),
        "loaded_instances": _instances(ref, status),
        "max_context_length": ref.context_length,
        "format": ref.format,
    }
    if ref.kind != "embeddings":
        can = status.capabilities if status else None
        told["architecture"] = ref.architecture or None
        told["capabilities"] = {
            "vision": can is not None and can.vision,
            "trained_for_tool_use": _uses_tools(ref, status),
        }
        told["description"] = None
    return told


def listed_v0(ref: ModelRef, status: ModelStatus | None, name: str | None = None) -> dict[str, Any]:
    """An entry of ``/api/v0/models``; ``name`` is what it was asked by."""
    can = status.capabilities if status else None
    told: dict[str, Any] = {
        "id": name or ref.id,
        "object": "model",
        "type": _type_v0(ref, vision=can is not None and can.vision),
        "publisher": publisher(ref),
        "arch": ref.architecture,
        "compatibility_type": ref.format,
        "quantization": ref.quantization,
        "state": "loaded" if is_loaded(status) else "not-loaded",
        "max_context_length": ref.context_length,
    }
    if _uses_tools(ref, status):
        told["capabilities"] = ["tool_use"]
    if status is not None and is_loaded(status):
        told["loaded_context_length"] = status.context
    return told


def _uses_tools(ref: ModelRef, status: ModelStatus | None) -> bool:
    """By the word of the worker, or of the files while none has loaded it."""
    can = status.capabilities if status else None
    return "tools" in ref.capabilities if can is None else can.tools


def load_config(ref: ModelRef, context: int) -> dict[str, Any]:
    """How a model is loaded, in LM Studio's words: attention is fused and the cache is the GPU's, always."""
    if ref.kind == "embeddings":
        return {"context_length": context}
    return {"context_length": context, "flash_attention": True, "offload_kv_cache_to_gpu": True}


def publisher(ref: ModelRef) -> str:
    return ref.id.split("/")[0] if "/" in ref.id else "local"


def _instances(ref: ModelRef, status: ModelStatus | None) -> list[dict[str, Any]]:
    if status is None or not is_loaded(status):
        return []
    return [{"id": ref.id, "config": load_config(ref, status.context)}]


def _type_v0(ref: ModelRef, *, vision: bool) -> str:
    if ref.kind == "embeddings":
        return "embeddings"
    return "vlm" if vision else "llm"


def _short(ref: ModelRef) -> str:
    return ref.id.rsplit("/", 1)[-1]


def _quantization(ref: ModelRef) -> dict[str, Any] | None:
    if not ref.quantization:
        return None
    bits = _BITS.search(ref.quantization)
    return {"name": ref.quantization, "bits_per_weight": float(bits[0]) if bits else None}


def _params(ref: ModelRef) -> str | None:
    """The number of parameters as the model's name says it: nothing else on disk does."""
    found = _SIZE.search(_short(ref))
    return found[1].upper() if found else None
