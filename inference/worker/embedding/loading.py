"""Loads an embedding model: its files checked, its weights put into the encoder, its first vectors looked at."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from inference.embedding_files import EmbeddingFiles, read_embedding_files
from inference.errors import LmxError, ModelUnavailable
from inference.model_files import Unusable, read_json, read_weights, weight_names
from inference.worker.embedding.encoders import Encoder, Weights, make_encoder, read_safetensors
from inference.worker.embedding.vectors import Head

Progress = Callable[[str, int, int], None]
"""Called with phase, bytes done and bytes in all."""

UNKNOWN_CONTEXT = 512
"""Tokens, for a model whose files do not say how much it takes."""

_SCORES_BYTES = 2 << 30


@dataclass(frozen=True)
class LoadedEncoder:
    """``context`` in tokens of one input; ``dimensions`` is the length of the vectors that ``head`` makes."""

    encoder: Encoder
    head: Head
    files: EmbeddingFiles
    context: int
    dimensions: int
    weight_bytes: int


def load(path: Path, progress: Progress) -> LoadedEncoder:
    """Load on the calling thread. Raises ``ModelUnavailable`` with one sentence for people."""
    try:
        config = read_json(path / "config.json", "config.json")
        names = {entry.name for entry in path.iterdir()}
        total = sum(header.data_bytes for header in read_weights(path, names))
        files = read_embedding_files(path, config)
    except (Unusable, OSError) as error:
        raise ModelUnavailable(str(error)) from error
    progress("weights", 0, total)
    try:
        encoder = _encoder(path, names, config, files)
        head = Head(files, getattr(encoder, "dense", []))
    except LmxError:
        raise
    except Exception as error:
        raise ModelUnavailable(_reason(error)) from error
    progress("weights", total, total)
    weight_bytes = sum(int(array.nbytes) for _, array in tree_flatten(encoder.parameters())) + head.weight_bytes
    context = _context(files, encoder)
    progress("warmup", 0, 0)
    return LoadedEncoder(encoder, head, files, context, check_forward(encoder, head), weight_bytes)


def check_forward(encoder: Encoder, head: Head) -> int:
    """Vectors of two tokens each, one row padded; returns their length. Damaged weights show as NaN."""
    token = min(4, encoder.vocab_size - 1)
    ids = mx.array([[token, token], [token, encoder.pad_id]], dtype=mx.int32)
    lengths = mx.array([2, 1])
    vectors = head(encoder(ids, lengths), lengths)
    if not mx.all(mx.isfinite(vectors)).item() or not mx.any(vectors).item():
        raise ModelUnavailable("the model's weights are damaged: a first vector had values that are not numbers (NaN)")
    return int(vectors.shape[1])


def _encoder(path: Path, names: set[str], config: Mapping[str, Any], files: EmbeddingFiles) -> Any:
    weights: Weights = {}
    for name in weight_names(names):
        weights.update(read_safetensors(path / name))
    encoder, weights = make_encoder(files.architecture, config, weights)
    _quantize(encoder, config, weights)
    if _on_cpu():
        weights = {name: _float32(weight) for name, weight in weights.items()}
    encoder.load_weights(list(weights.items()), strict=True)
    mx.eval(encoder.parameters())
    return encoder


def _quantize(encoder: nn.Module, config: Mapping[str, Any], weights: Weights) -> None:
    """Layers whose weights come packed, as MLX packs them, become layers that take them so."""
    settings = config.get("quantization")
    if not isinstance(settings, dict):
        if isinstance(other := config.get("quantization_config"), dict):
            raise ModelUnavailable(f"its weights are quantized as {other.get('quant_method')!r}, not as MLX does it")
        return
    defaults = {"group_size": settings.get("group_size", 64), "bits": settings.get("bits", 4)}
    defaults["mode"] = settings.get("mode", "affine")

    def how(name: str, module: nn.Module) -> bool | dict[str, Any]:
        if f"{name}.scales" not in weights or not hasattr(module, "to_quantized"):
            return False
        own = settings.get(name, settings.get(f"model.{name}"))
        return own if isinstance(own, dict) else defaults

    nn.quantize(encoder, class_predicate=how, **defaults)


def _on_cpu() -> bool:
    """MLX's CPU backend computes half precision hundreds of times more slowly than single."""
    return bool(mx.default_device() == mx.Device(mx.cpu))


def _float32(weight: mx.array) -> mx.array:
    return weight.astype(mx.float32) if mx.issubdtype(weight.dtype, mx.floating) else weight


def _context(files: EmbeddingFiles, encoder: Encoder) -> int:
    """What the files say; on a CPU no more than what the attention of one input can be computed for in 2 GiB."""
    context = files.context or UNKNOWN_CONTEXT
    if _on_cpu():
        context = min(context, math.isqrt(_SCORES_BYTES // (8 * encoder.heads)))
    return context


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    if ("parameters" in text and ("Missing" in text or "not in model" in text)) or "Expected shape" in text:
        return f"the weights do not fit the model described in config.json: {text[:300]}"
    if isinstance(error, MemoryError) or "[malloc" in text or "Unable to allocate" in text:
        return f"there is not enough memory for the weights: {text[:300]}"
    return f"loading failed: {type(error).__name__}: {text[:300]}"
