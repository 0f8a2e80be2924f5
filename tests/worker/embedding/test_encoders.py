"""Every architecture against what transformers 5.24 (with torch) makes of the same weights, and against itself.

``reference.json``: per architecture and input, the last layer's vectors at the first, middle and last token, every
16th number of them. The inputs are random tokens from ``seed``, of ``lengths``, padded on the right as one batch.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten
from numpy.typing import NDArray

from inference.embedding_files import ENCODERS, GENERATORS
from inference.errors import ModelUnavailable
from inference.worker.embedding import encoders
from tests.material import encoder_model
from tests.material.encoder import CONFIGS, VOCABULARY

REFERENCE = json.loads(Path(__file__).with_name("reference.json").read_text(encoding="utf-8"))
LENGTHS: list[int] = REFERENCE["lengths"]
IDS = np.random.default_rng(REFERENCE["seed"]).integers(5, VOCABULARY, (len(LENGTHS), max(LENGTHS)))
NEAR = 2e-4


@cache
def encoder(architecture: str) -> Any:
    directory = encoder_model(architecture)
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    made, weights = encoders.make_encoder(
        architecture, config, encoders.read_safetensors(directory / "model.safetensors")
    )
    made.load_weights(list(weights.items()), strict=True)
    return made


def padded(rows: list[NDArray[np.int64]], padding: int) -> mx.array:
    width = max(len(row) for row in rows)
    return mx.array([[*row.tolist(), *[padding] * (width - len(row))] for row in rows], dtype=mx.int32)


def hidden(architecture: str, rows: list[NDArray[np.int64]]) -> NDArray[np.float32]:
    model = encoder(architecture)
    return np.array(model(padded(rows, model.pad_id), mx.array([len(row) for row in rows])))


def rows() -> list[NDArray[np.int64]]:
    return [row[:length] for row, length in zip(IDS, LENGTHS, strict=True)]


def test_every_architecture_is_here() -> None:
    assert set(CONFIGS) | {"camembert"} == ENCODERS | GENERATORS == set(encoders._MAKERS)


@pytest.mark.parametrize("architecture", CONFIGS)
def test_as_transformers_has_it(architecture: str) -> None:
    made = hidden(architecture, rows())
    for row, (length, expected) in enumerate(zip(LENGTHS, REFERENCE["hidden"][architecture], strict=True)):
        places = [0, length // 2, length - 1]
        np.testing.assert_allclose(made[row, places, ::16], np.array(expected), atol=NEAR, rtol=0)


@pytest.mark.parametrize("architecture", CONFIGS)
def test_alone_and_in_a_batch(architecture: str) -> None:
    together = hidden(architecture, rows())
    for row, ids in enumerate(rows()):
        np.testing.assert_allclose(hidden(architecture, [ids])[0], together[row, : len(ids)], atol=1e-5, rtol=0)


@pytest.mark.parametrize("architecture", CONFIGS)
def test_half_precision_makes_no_nan_of_padding(architecture: str) -> None:
    """A padded row's places look at nothing in some layers; minus infinity in float16 would make NaN of them all."""
    model = encoder(architecture)
    before = dict(tree_flatten(model.parameters()))
    model.load_weights([(name, value.astype(mx.float16)) for name, value in before.items()])
    try:
        made = model(padded(rows(), model.pad_id), mx.array(LENGTHS)).astype(mx.float32)
        assert mx.all(mx.isfinite(made)).item()
    finally:
        model.load_weights(list(before.items()))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bert.encoder.layer.0.output.dense.weight", "encoder.layer.0.output.dense.weight"),
        ("roberta.embeddings.position_ids", ""),
        ("embeddings.position_ids", ""),
        ("model.layers.0.mlp.up_proj.weight", "layers.0.mlp.up_proj.weight"),
        ("layers.0.mlp.up_proj.weight", "layers.0.mlp.up_proj.weight"),
        ("lm_head.weight", ""),
        ("cls.predictions.bias", ""),
        ("bert.pooler.dense.weight", ""),
        ("model.layers.0.self_attn.rotary_emb.inv_freq", ""),
        ("mpnet.encoder.relative_attention_bias.weight", "encoder.relative_attention_bias.weight"),
    ],
)
def test_names_of_weights(name: str, expected: str) -> None:
    assert encoders._plain_name(name) == expected


def test_layers_of_newer_configs() -> None:
    kinds = ["full_attention", "sliding_attention", "sliding_attention", "full_attention"]
    assert encoders._period({"layer_types": kinds}) == 3
    assert encoders._period({"layer_types": kinds[1:]}, 1) == 3
    assert encoders._period({"layer_types": ["full_attention"] * 3}) == 1
    assert encoders._period({}) == 0
    for uneven in ([*kinds, "full_attention"], kinds[1:]):
        with pytest.raises(ModelUnavailable, match="not supported"):
            encoders._period({"layer_types": uneven})


def test_dense_layers_that_an_mlx_conversion_keeps_with_the_weights() -> None:
    config = {"model_type": "gemma3_text", **CONFIGS["gemma3_text"]}
    weights = {"dense.0.weight": mx.ones((256, 64)), "dense.1.weight": mx.ones((64, 256))}
    made, _ = encoders.make_encoder("gemma3_text", config, weights)
    assert [type(layer) for layer in made.dense] == [nn.Linear, nn.Linear]
