"""Pooling and the layers behind it, against numpy."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from safetensors.numpy import save_file

from inference.embedding_files import POOLINGS, EmbeddingFiles, Step
from inference.errors import ModelUnavailable
from inference.worker.embedding.vectors import Head, shortened

HIDDEN = np.random.default_rng(3).standard_normal((2, 5, 4)).astype(np.float32)
LENGTHS = [5, 2]


def head(*pooling: str, steps: tuple[Step, ...] = ()) -> Head:
    return Head(EmbeddingFiles("bert", pooling, True, steps, 64), [])


def vectors(made: Head) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.array(made(mx.array(HIDDEN), mx.array(LENGTHS)))


def unit(vector: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> list[float]:
    return list(vector / np.linalg.norm(vector))


@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooling_sees_no_padding(pooling: str) -> None:
    for row, length in enumerate(LENGTHS):
        real = HIDDEN[row, :length]
        weights = np.arange(1, length + 1)[:, None]
        expected = {
            "cls": real[0],
            "max": real.max(axis=0),
            "mean": real.mean(axis=0),
            "mean_sqrt_len": real.sum(axis=0) / length**0.5,
            "weighted_mean": (real * weights).sum(axis=0) / weights.sum(),
            "last": real[-1],
        }[pooling]
        np.testing.assert_allclose(vectors(head(pooling))[row], unit(expected), atol=1e-6)


def test_several_poolings_are_joined() -> None:
    expected = np.concatenate([HIDDEN[0, 0], HIDDEN[0].mean(axis=0)])
    np.testing.assert_allclose(vectors(head("cls", "mean"))[0], unit(expected), atol=1e-6)


@pytest.mark.parametrize("bias", [False, True])
def test_a_dense_layer(tmp_path: Path, bias: bool) -> None:
    random = np.random.default_rng(5)
    matrix, offset = random.standard_normal((3, 4)).astype(np.float32), random.standard_normal(3).astype(np.float32)
    weights = {"linear.weight": matrix} | ({"linear.bias": offset} if bias else {})
    save_file(weights, tmp_path / "model.safetensors")
    made = head("mean", steps=(Step("dense", tmp_path / "model.safetensors", "tanh"), Step("normalize")))
    expected = np.tanh(matrix @ HIDDEN[0].mean(axis=0) + (offset if bias else 0))
    np.testing.assert_allclose(vectors(made)[0], unit(expected), atol=1e-6)
    assert made.weight_bytes == (15 if bias else 12) * 4


def test_a_dense_layer_without_a_matrix(tmp_path: Path) -> None:
    save_file({"other": np.zeros(3, np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelUnavailable, match="no matrix"):
        head("mean", steps=(Step("dense", tmp_path / "model.safetensors"),))


def test_shorter_ones_are_of_unit_length_again() -> None:
    assert shortened([0.6, 0.0, 0.8], 2) == [1.0, 0.0]
    assert shortened([0.6, 0.8], None) == [0.6, 0.8]
    assert shortened([0.6, 0.8], 2) == [0.6, 0.8]
    assert shortened([0.0, 1.0], 1) == [0.0]
