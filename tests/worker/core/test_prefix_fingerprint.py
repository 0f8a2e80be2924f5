"""Cached prefixes belong to one state of a model's files."""

from __future__ import annotations

import os
from pathlib import Path

from inference.worker.core.prefix_fingerprint import fingerprint


def test_any_change_of_the_models_files_is_another_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.json").write_text("{}")
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(bytes(10_000))
    os.utime(weights, ns=(0, 0))
    first = fingerprint(tmp_path, "layout")
    assert fingerprint(tmp_path, "layout") == first
    seen = {first, fingerprint(tmp_path, "another layout")}
    (tmp_path / "config.json").write_text("[]")
    seen.add(fingerprint(tmp_path, "layout"))
    (tmp_path / "tokenizer.json").write_text("[]")
    seen.add(fingerprint(tmp_path, "layout"))
    weights.write_bytes(bytes(5_000) + b"\1" * 5_000)
    os.utime(weights, ns=(0, 0))
    seen.add(fingerprint(tmp_path, "layout"))
    os.utime(weights, ns=(0, 1))
    seen.add(fingerprint(tmp_path, "layout"))
    weights.rename(tmp_path / "other.safetensors")
    seen.add(fingerprint(tmp_path, "layout"))
    assert len(seen) == 7
