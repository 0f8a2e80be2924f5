"""Loading an embedding model: what its files decide, and what is said of files that will not do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from inference import ipc
from inference.errors import ContextLengthExceeded, LmxError, ModelUnavailable
from tests.material import encoder_model
from tests.worker.backends.embedding import TEXTS, Embedding


@pytest.fixture(scope="module")
def bert() -> Iterator[Embedding]:
    with Embedding(encoder_model()) as made:
        yield made


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A BERT whose files a test may spoil."""
    return shutil.copytree(encoder_model(), tmp_path / "bert")


def change(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_a_context_can_be_bounded() -> None:
    with Embedding(encoder_model(), context=8) as small:
        assert small.loaded.context == 8
        with pytest.raises(ContextLengthExceeded):
            small.backend.embed("r", [[5] * 9], None)


def test_pooling_is_what_the_files_say(copy: Path, bert: Embedding) -> None:
    change(copy / "1_Pooling" / "config.json", pooling_mode_mean_tokens=False, pooling_mode_cls_token=True)
    with Embedding(copy) as cls:
        assert np.abs(cls.embed("the sea") - bert.embed("the sea")).max() > 1e-3
        assert not [note for note in cls.notes if isinstance(note, ipc.Log)]


def test_without_a_word_on_pooling_it_is_the_mean_and_said(copy: Path, bert: Embedding) -> None:
    shutil.rmtree(copy / "1_Pooling")
    with Embedding(copy) as silent:
        np.testing.assert_allclose(silent.embed("the sea"), bert.embed("the sea"), atol=1e-6)
        [warning] = [note for note in silent.notes if isinstance(note, ipc.Log)]
        assert (warning.level, "mean" in warning.message) == ("warning", True)


def test_lower_case_where_the_files_want_it(copy: Path) -> None:
    document = json.loads((copy / "tokenizer.json").read_text())
    document["normalizer"]["lowercase"] = False
    (copy / "tokenizer.json").write_text(json.dumps(document))
    change(copy / "sentence_bert_config.json", do_lower_case=True)
    with Embedding(copy) as lower:
        np.testing.assert_array_equal(lower.embed("The SEA"), lower.embed("the sea"))


def test_dense_layers_of_their_own_folder(copy: Path) -> None:
    (copy / "2_Dense").mkdir()
    (copy / "2_Dense" / "config.json").write_text(
        json.dumps({"activation_function": "torch.nn.modules.activation.Tanh"})
    )
    matrix = np.random.default_rng(1).standard_normal((24, 64)).astype(np.float32)
    save_file({"linear.weight": matrix}, copy / "2_Dense" / "model.safetensors")
    modules = json.loads((copy / "modules.json").read_text())[:2]
    modules += [{"path": "2_Dense", "type": "sentence_transformers.models.Dense"}]
    (copy / "modules.json").write_text(json.dumps(modules))
    with Embedding(copy) as dense:
        assert dense.loaded.embedding_dimensions == 24
        assert dense.embed("x").shape == (1, 24)


def test_packed_weights(copy: Path, bert: Embedding) -> None:
    """As an MLX conversion has them: the vectors are those of the unpacked weights."""
    weights = load_file(copy / "model.safetensors")
    packed: dict[str, mx.array] = {}
    for name, value in weights.items():
        layer = name.removesuffix(".weight")
        if name.endswith("dense.weight"):
            parts = mx.quantize(mx.array(value), group_size=32, bits=8)
            packed |= dict(zip((name, f"{layer}.scales", f"{layer}.biases"), parts, strict=True))
        else:
            packed[name] = mx.array(value)
    mx.save_safetensors(str(copy / "model.safetensors"), packed)
    change(copy / "config.json", quantization={"group_size": 32, "bits": 8})
    with Embedding(copy) as small:
        assert small.loaded.weight_bytes < bert.loaded.weight_bytes
        assert float((small.embed("the sea") @ bert.embed("the sea").T)[0, 0]) > 0.999


@pytest.mark.parametrize(
    ("file", "fields", "says"),
    [
        ("config.json", {"model_type": "perceptron"}, "'perceptron' are not supported"),
        ("config.json", {"num_hidden_layers": 5}, "do not fit"),
        ("config.json", {"hidden_size": 32}, "do not fit"),
        ("config.json", {"hidden_act": "relu"}, "activation"),
        ("config.json", {"position_embedding_type": "relative_key"}, "position embeddings"),
        ("config.json", {"architectures": ["BertForSequenceClassification"]}, "classifier"),
        ("config.json", {"quantization_config": {"quant_method": "gptq"}}, "'gptq'"),
        ("config.json", {"vocab_size": "many"}, "loading failed"),
        ("1_Pooling/config.json", {"pooling_mode": "attention"}, "'attention'"),
        ("tokenizer.json", {"model": {"type": "Nonsense"}}, "tokenizer cannot be loaded"),
    ],
)
def test_what_cannot_be_loaded_says_why(copy: Path, file: str, fields: dict[str, Any], says: str) -> None:
    change(copy / file, **fields)
    with pytest.raises(LmxError, match=says), Embedding(copy):
        pass


def test_damaged_weights(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    weights["encoder.layer.0.output.dense.weight"][:] = np.nan
    save_file(weights, copy / "model.safetensors")
    with pytest.raises(ModelUnavailable, match="damaged"), Embedding(copy):
        pass


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="missing"), Embedding(tmp_path / "nowhere"):
        pass


@pytest.mark.parametrize("architecture", ["qwen3", "gemma3_text", "modernbert", "nomic_bert"])
def test_other_architectures_load(architecture: str) -> None:
    with Embedding(encoder_model(architecture)) as made:
        assert made.embed(*TEXTS).shape == (len(TEXTS), 64)
