"""Loading: what is found out about a model, and one sentence for each way it can be broken."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from inference.errors import ModelUnavailable
from inference.worker.vllm_compat import loading
from tests.material import EOS_TOKEN_ID, broken_models, nano_model, place

YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}


def load(path: Path, seen: list[tuple[str, int, int]] | None = None) -> loading.LoadedModel:
    notes = [] if seen is None else seen
    loaded = loading.load(
        path, "test/nano", trust_remote_code=False, progress=lambda *state: notes.append((state[0], state[1], state[2]))
    )
    loading.check_forward(loaded.model, 1)
    return loaded


def test_it_works() -> None:
    seen: list[tuple[str, int, int]] = []
    loaded = load(nano_model(), seen)
    size = (nano_model() / "model.safetensors").stat().st_size
    assert loaded.context == 2048
    assert loaded.eos == {EOS_TOKEN_ID}
    assert 0 < loaded.weight_bytes <= size
    assert seen[0] == ("weights", 0, loaded.weight_bytes)
    assert seen[-1] == ("weights", loaded.weight_bytes, loaded.weight_bytes)


@pytest.mark.parametrize(
    ("defect", "reason"),
    [
        ("missing", "there is no model directory at"),
        ("empty", "config.json is missing"),
        ("truncated", "model.safetensors is cut off"),
        ("unknown-architecture", "the architecture 'perceptron9000' is not supported by mlx-lm"),
        ("bad-config", "config.json is not valid JSON"),
        ("nan-weights", "not numbers"),
        ("missing-weight-file", "a weight file is missing: model-00002-of-00002.safetensors"),
    ],
)
def test_each_defect_has_its_sentence(tmp_path: Path, defect: str, reason: str) -> None:
    with pytest.raises(ModelUnavailable, match=reason) as refused:
        load(broken_models(tmp_path)[defect])
    assert "\n" not in refused.value.message


def spoiled(tmp_path: Path, name: str, content: str | bytes) -> Path:
    target = place(nano_model(), tmp_path / "model")
    (target / name).unlink(missing_ok=True)
    (target / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return target


def test_a_weight_file_that_is_something_else(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="is not a safetensors file"):
        load(spoiled(tmp_path, "model.safetensors", b"<html>not found</html>" * 20))


def test_a_weight_file_with_a_broken_header(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match="has a header that is not valid JSON"):
        load(spoiled(tmp_path, "model.safetensors", (10).to_bytes(8, "little") + b'{"a": nope' + b"x" * 50))


def test_weights_of_another_shape(tmp_path: Path) -> None:
    config = json.loads((nano_model() / "config.json").read_text())
    with pytest.raises(ModelUnavailable, match=r"do not fit|loading failed"):
        load(spoiled(tmp_path, "config.json", json.dumps(config | {"num_hidden_layers": 3})))


def test_a_model_that_brings_code_is_not_run(tmp_path: Path) -> None:
    config = json.loads((nano_model() / "config.json").read_text())
    target = spoiled(tmp_path, "config.json", json.dumps(config | {"model_file": "evil.py"}))
    (target / "evil.py").write_text("raise SystemExit('ran')")
    with pytest.raises(ModelUnavailable, match="trust"):
        load(target)


def test_a_broken_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"loading failed|tokenizer"):
        load(spoiled(tmp_path, "tokenizer.json", "{"))


@pytest.mark.parametrize(
    ("config", "context"),
    [
        ({"max_position_embeddings": 4096}, 4096),
        ({"text_config": {"max_position_embeddings": 8192}}, 8192),
        ({"n_ctx": 1024}, 1024),
        ({"max_position_embeddings": 32768, "rope_scaling": YARN}, 131072),
        ({"max_position_embeddings": 1024, "text_config": {"max_position_embeddings": 512}}, 512),
        ({}, loading.UNKNOWN_CONTEXT),
    ],
)
def test_context(config: dict[str, int], context: int) -> None:
    assert loading.context_of(config) == context


def test_loading_brings_neither_torch_nor_the_server() -> None:
    script = (
        "import sys; from pathlib import Path; from inference.worker.vllm_compat import loading;"
        f"loading.load(Path({str(nano_model())!r}), 'n', trust_remote_code=False, progress=lambda *a: None);"
        "print([m for m in sys.modules if m in ('torch', 'fastapi', 'django', 'vllm_mlx.server')])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"
