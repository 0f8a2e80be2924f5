"""From an encoder's output to vectors: pooling, the layers behind it, length, and unit norm, all in float32."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn

from inference.embedding_files import EmbeddingFiles, Step
from inference.errors import ModelUnavailable
from inference.worker.embedding.encoders import read_safetensors

_TINY = 1e-12

Pool = Callable[[mx.array, mx.array, mx.array], mx.array]
"""Hidden [rows, width, size], mask [rows, width, 1] of 0 and 1, lengths [rows, 1]; to [rows, size]."""


def _mean(hidden: mx.array, mask: mx.array, lengths: mx.array) -> mx.array:
    return (hidden * mask).sum(axis=1) / lengths


def _weighted_mean(hidden: mx.array, mask: mx.array, lengths: mx.array) -> mx.array:
    """Later tokens count more: by their place, from 1."""
    weights = mask * mx.arange(1, hidden.shape[1] + 1)[None, :, None]
    return (hidden * weights).sum(axis=1) / weights.sum(axis=1)


def _last(hidden: mx.array, mask: mx.array, lengths: mx.array) -> mx.array:
    places = (lengths - 1).astype(mx.int32)[:, :, None]
    return mx.take_along_axis(hidden, mx.broadcast_to(places, (hidden.shape[0], 1, hidden.shape[2])), axis=1)[:, 0]


_POOLS: dict[str, Pool] = {
    "cls": lambda hidden, mask, lengths: hidden[:, 0],
    "max": lambda hidden, mask, lengths: mx.where(mask > 0, hidden, -mx.inf).max(axis=1),
    "mean": _mean,
    "mean_sqrt_len": lambda hidden, mask, lengths: (hidden * mask).sum(axis=1) / mx.sqrt(lengths),
    "weighted_mean": _weighted_mean,
    "last": _last,
}


def unit(vectors: mx.array) -> mx.array:
    return vectors / mx.maximum(mx.linalg.norm(vectors, axis=-1, keepdims=True), _TINY)


class Head:
    """What ``files`` say of the way from token vectors to one of unit length; ``dense`` layers come after pooling."""

    def __init__(self, files: EmbeddingFiles, dense: Sequence[nn.Module]) -> None:
        self._pools = [_POOLS[name] for name in files.pooling]
        self._steps: list[Callable[[mx.array], mx.array]] = list(dense)
        self.weight_bytes = 0
        for step in files.steps:
            if step.kind == "normalize":
                self._steps.append(unit)
            elif step.weights is not None and not dense:
                self._steps.append(self._dense(step, step.weights))

    def _dense(self, step: Step, path: Path) -> Callable[[mx.array], mx.array]:
        weights = {
            name.removeprefix("linear."): value.astype(mx.float32) for name, value in read_safetensors(path).items()
        }
        matrix, bias = weights.get("weight"), weights.get("bias")
        if matrix is None or matrix.ndim != 2:
            raise ModelUnavailable(f"{path.parent.name} has no matrix among its weights")
        self.weight_bytes += sum(int(value.nbytes) for value in weights.values())
        activation = getattr(nn, step.activation) if step.activation else lambda vectors: vectors

        def layer(vectors: mx.array) -> mx.array:
            made = vectors @ matrix.T
            activated: mx.array = activation(made if bias is None else made + bias)
            return activated

        return layer

    def __call__(self, hidden: mx.array, lengths: mx.array) -> mx.array:
        """Vectors [rows, dimensions] of unit length, of ``hidden`` [rows, width, size]."""
        mask = (mx.arange(hidden.shape[1])[None, :] < lengths[:, None]).astype(mx.float32)[:, :, None]
        counts = lengths.astype(mx.float32)[:, None]
        hidden = hidden.astype(mx.float32)
        vectors = mx.concatenate([pool(hidden, mask, counts) for pool in self._pools], axis=-1)
        for step in self._steps:
            vectors = step(vectors)
        return unit(vectors.astype(mx.float32))


def shortened(vector: list[float], dimensions: int | None) -> list[float]:
    """The first ``dimensions`` numbers (None: all), of unit length again."""
    if dimensions is None or dimensions >= len(vector):
        return vector
    part = vector[:dimensions]
    length = max(math.sqrt(sum(number * number for number in part)), _TINY)
    return [number / length for number in part]
