"""Loads a text model with vllm-mlx's loader and says in one sentence why it could not.

``MLXLanguageModel.load`` is what vllm-mlx itself calls: mlx-lm's loader plus its patches (Nemotron and DeepSeek
tokenizers, vision weights left out of a text model, multi-token prediction). It needs neither torch nor
``vllm_mlx.server``. What it lacks and this module adds:

* damage is found before, with the catalog's own checks of the files, which may have changed since its scan;
* its errors are Python's; here each becomes one sentence;
* no check that the weights make sense: one forward pass must give finite logits (vllm-mlx answers nonsense instead);
* no limits: the longest context comes from config.json;
* no code from a model's directory is run unless its owner allowed it (vllm-mlx never passes that on to mlx-lm).
"""

from __future__ import annotations

import importlib.metadata
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from inference.errors import ModelUnavailable
from inference.model_files import Unusable, context_length, read_json, read_weights, text_part

Progress = Callable[[str, int, int], None]
"""Called with phase, bytes done and bytes in all."""

UNKNOWN_CONTEXT = 4096
"""Tokens, for a model whose files do not say how long its context is."""

_PROGRESS_EVERY_S = 0.25
_SANE_CONTEXT = 100_000_000


@dataclass(frozen=True)
class LoadedModel:
    """``engine`` is vllm-mlx's ``MLXLanguageModel`` around ``model``; ``tokenizer`` is mlx-lm's wrapper.

    ``context`` in tokens; ``eos`` every token id that ends an answer.
    """

    engine: Any
    model: Any
    tokenizer: Any
    config: dict[str, Any]
    context: int
    weight_bytes: int
    eos: frozenset[int]


def load(path: Path, model_id: str, *, trust_remote_code: bool, progress: Progress) -> LoadedModel:
    """Load on the calling thread. Raises ``ModelUnavailable`` with one sentence for people."""
    config, total = _inspect(path)
    try:
        with _Watch(total, progress):
            engine = _load(path, model_id, trust_remote_code)
    except Exception as error:
        raise ModelUnavailable(_reason(error, config)) from error
    model, tokenizer = engine.model, engine.tokenizer
    progress("weights", total, total)
    weight_bytes = sum(int(array.nbytes) for _, array in tree_flatten(model.parameters()))
    context, eos = context_of(config, tokenizer), _eos_of(tokenizer, path)
    return LoadedModel(engine, model, tokenizer, config, context, weight_bytes, eos)


def check_forward(model: Any, token: int) -> int:
    """One forward pass over two tokens; weights that are damaged show here as numbers that are none.

    Returns the width of the logits.
    """
    logits = model(mx.array([[token, token]]))
    broken = mx.any(mx.isnan(logits)).item() or not mx.any(mx.isfinite(logits)).item()
    if broken:
        raise ModelUnavailable(
            "the model's weights are damaged: a first forward pass gave values that are not numbers (NaN)"
        )
    return int(logits.shape[-1])


def context_of(config: dict[str, Any], tokenizer: Any = None) -> int:
    """The longest context the model's files name, in tokens, by the rule the catalog has too."""
    named = context_length(text_part(config))
    if named:
        return named
    value = getattr(tokenizer, "model_max_length", None)
    return value if isinstance(value, int) and 0 < value < _SANE_CONTEXT else UNKNOWN_CONTEXT


def _inspect(path: Path) -> tuple[dict[str, Any], int]:
    """The config, and the bytes of the weights, whose files are whole. Raises ``ModelUnavailable``."""
    if not path.is_dir():
        raise ModelUnavailable(f"there is no model directory at {path}")
    try:
        config = read_json(path / "config.json", "config.json")
        headers = read_weights(path, {entry.name for entry in path.iterdir()})
    except (Unusable, OSError) as error:
        raise ModelUnavailable(str(error)) from error
    return config, sum(header.data_bytes for header in headers)


def _load(path: Path, model_id: str, trust_remote_code: bool) -> Any:
    from vllm_mlx.models.llm import MLXLanguageModel

    loader = MLXLanguageModel(str(path), trust_remote_code=trust_remote_code, model_id=model_id)
    loader.load()
    return loader


def _eos_of(tokenizer: Any, path: Path) -> frozenset[int]:
    from vllm_mlx.utils.tokenizer import collect_eos_token_ids

    return frozenset(int(token) for token in collect_eos_token_ids(tokenizer, path))


def _reason(error: Exception, config: dict[str, Any]) -> str:
    text = " ".join(str(error).split())
    if "not supported" in text and "Model type" in text:
        version = importlib.metadata.version("mlx-lm")
        return f"the architecture {config.get('model_type')!r} is not supported by mlx-lm {version}"
    if "parameters" in text and ("Missing" in text or "not in model" in text):
        return f"the weights do not fit the model described in config.json: {text[:300]}"
    if isinstance(error, MemoryError) or "[malloc" in text or "Unable to allocate" in text:
        return f"there is not enough memory for the weights: {text[:300]}"
    return f"loading failed: {type(error).__name__}: {text[:300]}"


class _Watch:
    """Reports how many bytes of the weights MLX holds while another thread loads them."""

    def __init__(self, total: int, progress: Progress) -> None:
        self._total = total
        self._progress = progress
        self._done = threading.Event()
        self._before = mx.get_active_memory()
        self._thread = threading.Thread(target=self._run, name="load progress", daemon=True)

    def __enter__(self) -> None:
        self._progress("weights", 0, self._total)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(_PROGRESS_EVERY_S):
            held = mx.get_active_memory() - self._before
            self._progress("weights", max(0, min(held, self._total)), self._total)
