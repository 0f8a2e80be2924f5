"""Model directories with one defect each, made from nano. No test may expect any of them to load."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

DEFECTS = (
    "missing",
    "empty",
    "truncated",
    "unknown-architecture",
    "bad-config",
    "nan-weights",
    "missing-weight-file",
)


def broken_models(root: Path) -> dict[str, Path]:
    """Make ``root/<defect>`` for every defect and return them by name; ``missing`` is a path that does not exist.

    ``nan-weights`` is whole on disk: only running it shows the defect.
    """
    from tests.material import nano_model

    root.mkdir(parents=True, exist_ok=True)
    for name, spoil in _SPOILERS.items():
        shutil.copytree(nano_model(), root / name)
        spoil(root / name)
    (root / "empty").mkdir()
    return {name: root / name for name in DEFECTS}


def _truncate(model: Path) -> None:
    weights = model / "model.safetensors"
    with weights.open("r+b") as file:
        file.truncate(weights.stat().st_size // 2)


def _unknown_architecture(model: Path) -> None:
    path = model / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config |= {"model_type": "perceptron9000", "architectures": ["Perceptron9000ForCausalLM"]}
    path.write_text(json.dumps(config), encoding="utf-8")


def _bad_config(model: Path) -> None:
    (model / "config.json").write_text('{"model_type": "llama", "hidden_size":', encoding="utf-8")


def _nan_weights(model: Path) -> None:
    """Every float32 of the file becomes NaN; the header stays as it is."""
    path = model / "model.safetensors"
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    path.write_bytes(data[:start] + b"\x00\x00\xc0\x7f" * ((len(data) - start) // 4))


def _missing_weight_file(model: Path) -> None:
    """An index that names two files, of which one is there."""
    (model / "model.safetensors").rename(model / "model-00001-of-00002.safetensors")
    weight_map = {
        "model.embed_tokens.weight": "model-00001-of-00002.safetensors",
        "lm_head.weight": "model-00002-of-00002.safetensors",
    }
    index = {"metadata": {"total_size": 1000}, "weight_map": weight_map}
    (model / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


_SPOILERS: dict[str, Callable[[Path], None]] = {
    "truncated": _truncate,
    "unknown-architecture": _unknown_architecture,
    "bad-config": _bad_config,
    "nan-weights": _nan_weights,
    "missing-weight-file": _missing_weight_file,
}
