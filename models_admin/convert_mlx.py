"""Quantises a model on the disk, shard by shard. Imports MLX and mlx-lm: for the child program alone.

Weights are read when they are needed and written in shards of at most 2 GiB, so memory holds one shard of the result,
not the model.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_map, tree_map_with_path
from mlx_lm.utils import dequantize_model, load_model, make_shards, quantize_model, save_config

SHARD_GB = 2
_INDEX = "model.safetensors.index.json"

Step = Callable[[int, int, Path | None], None]
"""Called with how many tensors of how many are written, and the file that was just finished, if one was."""


class CannotQuantise(Exception):
    """The message says why, for people."""


def has_gpu() -> bool:
    return bool(mx.is_available(mx.gpu))


def quantise(source: Path, target: Path, *, bits: int, group_size: int, dtype: str | None, step: Step) -> str:
    """Write weights and config of ``source`` into the directory ``target``; returns the dtype of all else.

    ``dtype`` None: float32 where there is no GPU, as halves are slow there; else that of the source where it is a half.
    """
    mx.set_default_device(mx.gpu if has_gpu() else mx.cpu)
    try:
        model, config = load_model(source, lazy=True)
    except (ValueError, KeyError, TypeError, FileNotFoundError, ImportError, AttributeError) as error:
        raise CannotQuantise(f"mlx-lm cannot load it: {_first_line(error)}") from error
    if "quantization" in config:
        config.pop("quantization")
        config.pop("quantization_config", None)
        model = dequantize_model(model)
    chosen = dtype or _suitable(model)
    _cast(model, getattr(mx, chosen))
    model, config = quantize_model(model, config, group_size, bits)
    if not any(isinstance(module, nn.QuantizedLinear | nn.QuantizedEmbedding) for _, module in model.named_modules()):
        raise CannotQuantise(
            f"none of its layers has a width that groups of {group_size} divide; choose a smaller group_size"
        )
    for name in ("dtype", "torch_dtype"):
        if name in config:
            config[name] = chosen
    _write(model, target, step)
    save_config(config, target / "config.json", keep_vision_config="vision_config" in config)
    return chosen


def _suitable(model: nn.Module) -> str:
    if not has_gpu():
        return "float32"
    widths = [value.dtype for _, value in tree_flatten(model.parameters()) if mx.issubdtype(value.dtype, mx.floating)]
    return "bfloat16" if mx.bfloat16 in widths else "float16"


def _cast(model: nn.Module, dtype: mx.Dtype) -> None:
    """Some models keep parts of theirs (a router, a rotation) in the width they came in, and say so."""
    wanted = getattr(model, "cast_predicate", lambda name: True)

    def cast(name: str, value: mx.array) -> mx.array:
        return value.astype(dtype) if wanted(name) and mx.issubdtype(value.dtype, mx.floating) else value

    model.update(tree_map_with_path(cast, model.parameters()))


def _write(model: nn.Module, target: Path, step: Step) -> None:
    weights = dict(tree_flatten(model.parameters()))
    total, size = len(weights), sum(value.nbytes for value in weights.values())
    shards = make_shards(weights, SHARD_GB)
    # Nothing but the shards may hold on to a tensor, or what was written stays in memory.
    model.update(tree_map(lambda _: mx.array([]), model.parameters()))
    weights.clear()
    index: dict[str, str] = {}
    done = 0
    for number in range(len(shards)):
        shard: dict[str, mx.array] = shards[number]
        shards[number] = {}
        name = "model.safetensors" if len(shards) == 1 else f"model-{number + 1:05d}-of-{len(shards):05d}.safetensors"
        for tensor in shard.values():
            mx.eval(tensor)
            done += 1
            step(done, total, None)
        mx.save_safetensors(str(target / name), shard, metadata={"format": "mlx"})
        index |= dict.fromkeys(shard, name)
        del shard
        step(done, total, target / name)
    if len(shards) > 1:
        text = json.dumps({"metadata": {"total_size": size}, "weight_map": dict(sorted(index.items()))}, indent=1)
        (target / _INDEX).write_text(text, encoding="utf-8")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
