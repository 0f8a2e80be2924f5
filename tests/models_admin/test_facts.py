"""Facts from files, among them hostile ones: a sentence, never an exception."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inference.safetensors import BadSafetensors, read_header
from models_admin.architectures import supported_architectures
from models_admin.facts import fingerprint, list_files, read_facts
from models_admin.kv_size import LONG_CONTEXT, kv_bytes_per_token
from tests.material import broken_models, nano_model

KEYS = (
    "model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
    "max_position_embeddings", "rope_scaling", "quantization", "quantization_config", "text_config", "layer_types",
    "sliding_window", "sliding_window_pattern", "kv_lora_rank", "full_attention_interval", "hybrid_override_pattern",
    "num_global_key_value_heads", "global_head_dim", "multi_query", "n_embd",
)  # fmt: skip
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=8), inner),
    max_leaves=12,
)


@pytest.fixture
def nano(tmp_path: Path) -> Path:
    return Path(shutil.copytree(nano_model(), tmp_path / "nano"))


def set_config(model: Path, **changes: Any) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | changes))


def test_weights_quantized_in_a_way_of_others(nano: Path) -> None:
    set_config(nano, quantization_config={"quant_method": "bitsandbytes", "bits": 4})
    assert read_facts(nano, nano).problem == "its weights are quantized by bitsandbytes, which mlx-lm cannot read"
    for readable in ({"quant_method": "awq"}, {"bits": 4, "group_size": 64}, {"quant_method": 5}, "rubbish", None):
        set_config(nano, quantization_config=readable)
        assert read_facts(nano, nano).problem is None


def test_every_defect_on_disk_has_its_sentence(tmp_path: Path) -> None:
    expected = {
        "missing": "cannot be read",
        "empty": "config.json is missing",
        "truncated": "cut off",
        "unknown-architecture": "does not know the architecture 'perceptron9000'",
        "bad-config": "not valid JSON",
        "missing-weight-file": "model-00002-of-00002.safetensors",
    }
    for name, path in broken_models(tmp_path).items():
        problem = read_facts(path, tmp_path).problem
        assert expected.get(name) in (problem, None) or expected[name] in str(problem)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(config=st.dictionaries(st.sampled_from(KEYS), ANY_JSON, max_size=12))
def test_no_config_raises(nano: Path, config: dict[str, Any]) -> None:
    (nano / "config.json").write_text(json.dumps(config), encoding="utf-8")
    facts = read_facts(nano, nano.parent)
    assert facts.problem is None or facts.problem.isprintable()
    assert 0 <= facts.kv_bytes_per_token < 2**63
    assert 0 <= facts.context_length < 2**63


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(raw=st.binary(max_size=200), name=st.sampled_from(("config.json", "tokenizer_config.json", "model.safetensors")))
def test_no_bytes_raise(nano: Path, raw: bytes, name: str) -> None:
    original = (nano / name).read_bytes()
    (nano / name).write_bytes(raw)
    facts = read_facts(nano, nano.parent)
    if name != "tokenizer_config.json":
        assert facts.problem is not None
    (nano / name).write_bytes(original)


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a":' * 100_000, '"\\ud800"', "[]", "null", "", "\xff\xfe", '{"model_type": 1e999}'],
)
def test_hostile_json(nano: Path, text: str) -> None:
    (nano / "config.json").write_bytes(text.encode("latin-1"))
    assert "config.json" in (read_facts(nano, nano.parent).problem or "")


def test_an_oversized_config_is_not_read(nano: Path) -> None:
    with (nano / "config.json").open("ab") as file:
        file.truncate(1 << 40)
    assert "which no real one is" in (read_facts(nano, nano.parent).problem or "")


@pytest.mark.parametrize(
    ("config", "dtype_bytes", "expected"),
    [
        ({"num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3, "hidden_size": 576}, 2, 23040),
        ({"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 64}, 4, 2 * 4 * 16 * 2 * 4),
        (
            {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 64, "head_dim": 128},
            2,
            2 * 4 * 128 * 2 * 2,
        ),
        ({"n_layer": 12, "n_head": 12, "n_embd": 768}, 2, 12 * 768 * 2 * 2),
        ({"num_hidden_layers": 61, "num_attention_heads": 128, "kv_lora_rank": 512, "qk_rope_head_dim": 64}, 2, 70272),
        ({"num_hidden_layers": 4, "num_attention_heads": 2, "head_dim": 8, "full_attention_interval": 4}, 2, 64),
        ({"num_hidden_layers": 64, "state_size": 16}, 2, 0),
        ({"num_hidden_layers": True, "num_attention_heads": "4"}, 2, 0),
        ({}, 2, 0),
    ],
)
def test_kv_bytes(config: dict[str, Any], dtype_bytes: int, expected: int) -> None:
    assert kv_bytes_per_token(config, dtype_bytes) == expected


def test_windowed_layers_count_for_what_they_keep_at_a_long_context() -> None:
    layer = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64}
    one = 2 * 2 * 64 * 2
    kinds = ["sliding_attention"] * 5 + ["full_attention"]
    config = {**layer, "num_hidden_layers": 6, "layer_types": kinds, "sliding_window": 1024}
    assert kv_bytes_per_token(config, 2) == one + round(5 * one * 1024 / LONG_CONTEXT)
    pattern = {**layer, "num_hidden_layers": 6, "sliding_window_pattern": 6, "sliding_window": 1024}
    assert kv_bytes_per_token(pattern, 2) == kv_bytes_per_token(config, 2)
    assert kv_bytes_per_token({**config, "layer_types": ["linear_attention"] * 5 + ["full_attention"]}, 2) == one


def test_labels_and_context(nano: Path) -> None:
    def facts_with(**changes: Any) -> tuple[str | None, int]:
        set_config(nano, **changes)
        facts = read_facts(nano, nano.parent)
        return facts.quantization, facts.context_length

    assert facts_with() == ("f32", 2048)
    assert facts_with(quantization={"group_size": 64, "bits": 4}) == ("4bit", 2048)
    assert facts_with(quantization={"bits": 4, "mode": "mxfp4"}) == ("mxfp4", 2048)
    assert facts_with(quantization={"bits": True}) == ("f32", 2048)
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048}
    assert facts_with(quantization=None, rope_scaling=yarn) == ("f32", 8192)
    assert facts_with(rope_scaling=None, text_config={"max_position_embeddings": 4096}) == ("f32", 4096)


def test_index_must_stay_inside(nano: Path) -> None:
    index = nano / "model.safetensors.index.json"
    for target in ("../other/model.safetensors", "/etc/passwd", ".."):
        index.write_text(json.dumps({"weight_map": {"a": target}}))
        assert "outside" in (read_facts(nano, nano.parent).problem or "")
    index.write_text(json.dumps({"weight_map": {"a": ["model.safetensors"]}}))
    assert "no usable weight_map" in (read_facts(nano, nano.parent).problem or "")


def test_adapters_and_doubles_are_not_weights(nano: Path) -> None:
    before = read_facts(nano, nano.parent)
    shutil.copy(nano / "model.safetensors", nano / "consolidated.safetensors")
    after = read_facts(nano, nano.parent)
    assert after.weight_bytes == before.weight_bytes
    assert after.total_bytes > before.total_bytes
    (nano / "model.safetensors").unlink()
    assert "no file is named model*.safetensors" in (read_facts(nano, nano.parent).problem or "")


def test_a_model_without_tokenizer_or_template(nano: Path) -> None:
    (nano / "tokenizer_config.json").unlink()
    assert read_facts(nano, nano.parent).has_chat_template is False
    (nano / "chat_template.jinja").write_text("x")
    assert read_facts(nano, nano.parent).has_chat_template is True
    (nano / "tokenizer.json").unlink()
    assert "no tokenizer" in (read_facts(nano, nano.parent).problem or "")


def header_file(path: Path, header: Any, data: bytes = b"") -> Path:
    raw = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    return path


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, "shape contradicts"),
        ({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}, "impossible"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}, "impossible"),
        ({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, "gaps"),
        ({"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}, "impossible"),
        ({"a": 7}, "malformed"),
        ({"a": {"dtype": "F32", "shape": [2**60], "data_offsets": [0, 2**62]}}, "impossible"),
        ([], "not valid JSON"),
    ],
)
def test_hostile_headers(tmp_path: Path, header: Any, says: str) -> None:
    with pytest.raises(BadSafetensors, match=says):
        read_header(header_file(tmp_path / "x", header, b"\0" * 8))


def test_header_lengths(tmp_path: Path) -> None:
    path = tmp_path / "x"
    for raw, says in (
        (b"", "cut off"),
        (b"\xff" * 8, "not a safetensors"),
        (struct.pack("<Q", 99), "inside its header"),
    ):
        path.write_bytes(raw)
        with pytest.raises(BadSafetensors, match=says):
            read_header(path)
    whole = {"a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}, "__metadata__": {"x": "y"}}
    assert read_header(header_file(path, whole, b"\0" * 4)).bytes_by_dtype == {"BF16": 4}
    with pytest.raises(BadSafetensors, match="longer"):
        read_header(header_file(path, whole, b"\0" * 5))


def test_fingerprint_follows_names_sizes_and_times(nano: Path) -> None:
    before = fingerprint(list_files(nano))
    assert fingerprint(list_files(nano)) == before
    (nano / "extra").touch()
    assert fingerprint(list_files(nano)) != before


def test_the_installed_mlx_lm_is_read_without_importing_it() -> None:
    known = supported_architectures()
    assert known is not None
    assert {"llama", "qwen3", "mistral", "gemma3"} <= known
    assert "__init__" not in known
