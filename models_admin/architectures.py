"""What the installed mlx-lm can run, found from its files: importing it would import MLX."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from inference.model_files import printable

_METHODS = {"awq", "bitnet", "compressed-tensors", "fp8", "gptq", "modelopt", "mxfp4", "mxfp8"}
"""Quantizations of others that mlx-lm turns into its own while it loads."""


@cache
def supported_architectures() -> frozenset[str] | None:
    """Every ``model_type`` that mlx-lm has a module for, by its own name or another; None without mlx-lm."""
    spec = find_spec("mlx_lm")
    if spec is None or not spec.submodule_search_locations:
        return None
    package = Path(next(iter(spec.submodule_search_locations)))
    modules = {file.stem for file in (package / "models").glob("*.py")} - {"__init__"}
    remapped = _remapping(package / "utils.py")
    return frozenset(modules | {name for name, module in remapped.items() if module in modules})


def _remapping(utils: Path) -> dict[str, str]:
    """The literal dictionary ``MODEL_REMAPPING``; empty when a later version spells it otherwise."""
    try:
        tree = ast.parse(utils.read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.Assign) and any(ast.unparse(t) == "MODEL_REMAPPING" for t in node.targets):
                return dict(ast.literal_eval(node.value))
    except (OSError, SyntaxError, ValueError, TypeError):
        pass
    return {}


def unreadable_quantization(config: Mapping[str, Any]) -> str:
    """Why the weights cannot be read, where another program quantized them in a way of its own; "" where they can."""
    entry = config.get("quantization_config")
    if config.get("quantization") is not None or not isinstance(entry, dict):
        return ""
    method = entry.get("quant_method")
    if not isinstance(method, str) or method in _METHODS:
        return ""
    return f"its weights are quantized by {printable(method)[:40]}, which mlx-lm cannot read"
