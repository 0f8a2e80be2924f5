"""The Hub's answers, read without trust: whatever is in them, what comes out is small, printable and of the right type.

For the process that asks the Hub; the values go to the server as plain dictionaries, whose shapes are ``HubModel`` and
``HubFile`` of ``inference.finding``. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from inference.finding import ModelFormat
from inference.hub_names import is_repo
from inference.model_files import printable
from models_admin.facts import quantization_of
from models_admin.fetch_names import COMMIT, is_weights, take
from models_admin.lmstudio_names import QUANTIZATION_SUFFIX

MOST_FILES = 500
_MOST_TAGS = 40
_LARGEST = 1 << 60
"""Of any number, also of one that is made of several: what goes to the server has 64 bits."""

_LATEST = datetime(2100, 1, 1, tzinfo=UTC).timestamp()
_BITS = {"F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "BF16": 16, "F16": 16, "I16": 16, "U16": 16}
_BITS |= {"F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "I8": 8, "U8": 8, "BOOL": 8, "F4": 4}
_FLOATS = {"F64": "f64", "F32": "f32", "F16": "f16", "BF16": "bf16", "F8_E4M3": "fp8"}
_BITS_TAG = re.compile(r"([2-9])-bit")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")


def told_model(raw: object) -> dict[str, Any] | None:
    """What the Hub says of one model, as ``HubModel`` has it; None for what has no name that a model can have."""
    if not isinstance(raw, dict) or not isinstance(raw.get("id"), str) or not is_repo(raw["id"]):
        return None
    repo = raw["id"]
    tags = _texts(raw.get("tags"))
    config = _mapping(raw.get("config"))
    tensors = _tensors(_mapping(raw.get("safetensors")).get("parameters"))
    quantization = _quantization(config, repo, tags, tensors)
    files = told_files(raw)
    kind = _format(raw, tags, [file["name"] for file in files])
    weights = sum(file["size"] for file in files if file["fetched"] and is_weights(file["name"]))
    architecture = config.get("model_type")
    revision = raw.get("sha")
    return {
        "model_id": repo,
        "author": repo.partition("/")[0],
        "revision": revision if isinstance(revision, str) and COMMIT.fullmatch(revision) else "",
        "format": kind,
        "architecture": _text(architecture, 64),
        "quantization": quantization,
        "parameters": min(_parameters(tensors, config), _LARGEST),
        "weight_bytes": min(weights or _bytes_of(tensors), _LARGEST),
        "downloads": _count(raw.get("downloads")),
        "likes": _count(raw.get("likes")),
        "updated_at": _moment(raw.get("lastModified")),
        "licence": _licence(raw, tags),
        "gated": _gated(raw.get("gated")),
        "task": _text(raw.get("pipeline_tag"), 64),
        "tags": tags,
    }


def told_files(raw: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The files whose names can be shown, those that a download takes marked; see ``HubFile``."""
    found: dict[str, int] = {}
    siblings = raw.get("siblings")
    for sibling in siblings if isinstance(siblings, list) else []:
        name = sibling.get("rfilename") if isinstance(sibling, dict) else None
        if isinstance(name, str) and name and name == printable(name) and len(found) < 10 * MOST_FILES:
            found[name] = _count(_mapping(sibling.get("lfs")).get("size")) or _count(sibling.get("size"))
    taken = set(take(found))
    return [{"name": name, "size": size, "fetched": name in taken} for name, size in found.items()]


def _format(raw: Mapping[str, Any], tags: list[str], names: list[str]) -> ModelFormat:
    """By its files where they are known, by its tags otherwise; MLX is what says so of itself."""
    says_mlx = "mlx" in tags or raw.get("library_name") == "mlx"
    if names:
        if any(is_weights(name) for name in take(names)):
            return "mlx" if says_mlx else "safetensors"
        if any(name.lower().endswith(".gguf") for name in names):
            return "gguf"
        return "pickle" if any(name.endswith(_PICKLES) for name in names) else "other"
    if says_mlx:
        return "mlx"
    if "gguf" in tags or isinstance(raw.get("gguf"), dict):
        return "gguf"
    if "safetensors" in tags or isinstance(raw.get("safetensors"), dict):
        return "safetensors"
    return "pickle" if "pytorch" in tags else "other"


def _quantization(config: Mapping[str, Any], repo: str, tags: list[str], tensors: Mapping[str, int]) -> str:
    if found := quantization_of(config):
        return found
    if named := QUANTIZATION_SUFFIX.search(repo):
        return named.group(1).lower()
    for tag in tags:
        if bits := _BITS_TAG.fullmatch(tag):
            return f"{bits.group(1)}bit"
    floats = [(count, dtype) for dtype, count in tensors.items() if dtype in _FLOATS]
    return _FLOATS[max(floats)[1]] if floats else ""


def _parameters(tensors: Mapping[str, int], config: Mapping[str, Any]) -> int:
    """The model's own count: of a quantized one the weights packed in each 32-bit word, without scales and biases."""
    entry = _mapping(config.get("quantization") or config.get("quantization_config"))
    bits, group = entry.get("bits"), entry.get("group_size", 64)
    total, packed = sum(tensors.values()), tensors.get("U32", 0)
    if not packed or not isinstance(bits, int) or not 0 < bits <= 8:
        return total
    unpacked = packed * 32 // bits
    scales = 2 * unpacked // group if isinstance(group, int) and group > 0 else 0
    return unpacked + max(0, total - packed - scales)


def _tensors(raw: object) -> dict[str, int]:
    found = raw.items() if isinstance(raw, dict) else ()
    return {dtype: _count(count) for dtype, count in list(found)[:32] if isinstance(dtype, str)}


def _bytes_of(tensors: Mapping[str, int]) -> int:
    return sum(count * _BITS.get(dtype, 0) // 8 for dtype, count in tensors.items())


def _licence(raw: Mapping[str, Any], tags: list[str]) -> str:
    card = _mapping(raw.get("cardData"))
    named = card.get("license_name") if card.get("license") in (None, "other") else card.get("license")
    tagged = next((tag.removeprefix("license:") for tag in tags if tag.startswith("license:")), "")
    return _text(named, 64) or tagged


def _gated(raw: object) -> str:
    if raw in ("auto", "manual"):
        return str(raw)
    return "manual" if raw is True else ""


def _texts(raw: object) -> list[str]:
    found = raw if isinstance(raw, list) else []
    return [text for text in (_text(item, 96) for item in found[: 10 * _MOST_TAGS]) if text][:_MOST_TAGS]


def _text(raw: object, longest: int) -> str:
    return printable(raw)[:longest] if isinstance(raw, str) else ""


def _mapping(raw: object) -> Mapping[str, Any]:
    return raw if isinstance(raw, dict) else {}


def _count(raw: object) -> int:
    return raw if isinstance(raw, int) and not isinstance(raw, bool) and 0 <= raw <= _LARGEST else 0


def _moment(raw: object) -> float:
    """ISO 8601 as seconds since the epoch; 0, unknown, for what no model can have: before 1970, or from 2100 on."""
    try:
        moment = datetime.fromisoformat(raw) if isinstance(raw, str) and len(raw) < 64 else None
        if moment is None:
            return 0.0
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        return seconds if 0.0 <= seconds < _LATEST else 0.0
    except (ValueError, OverflowError, OSError):
        return 0.0
