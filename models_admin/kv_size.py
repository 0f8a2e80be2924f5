"""How many bytes of KV cache one token of context costs, from a model's config.

The number feeds admission, which multiplies it by up to ``LONG_CONTEXT`` tokens. Layers with a sliding window stop
growing at the window, so each counts as the fraction of a full layer that it reaches at that length.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inference.model_files import integer

LONG_CONTEXT = 32_768
_FULL = {"full_attention", "attention", "global", "*"}
_WINDOWED = {"sliding_attention", "chunked_attention", "local", "sliding"}


def kv_bytes_per_token(config: Mapping[str, Any], dtype_bytes: int) -> int:
    """Bytes per token for all layers of ``config`` (the text part); 0 when the config does not say enough."""
    layers = integer(config, "num_hidden_layers", "n_layer", "n_layers", "num_layers")
    if not layers:
        return 0
    full, windowed = _layer_kinds(config, layers)
    window = min(integer(config, "sliding_window", "attention_chunk_size") or LONG_CONTEXT, LONG_CONTEXT)
    plain = _layer_values(config, "num_key_value_heads", "head_dim")
    wide = _layer_values(config, "num_global_key_value_heads", "global_head_dim") or plain
    values = full * wide + windowed * plain * window / LONG_CONTEXT
    return round(values * dtype_bytes)


def _layer_values(config: Mapping[str, Any], heads_name: str, width_name: str) -> int:
    """Numbers that one layer keeps per token: a compressed latent, or keys and values of every head."""
    latent = integer(config, "kv_lora_rank")
    if latent:
        return latent + integer(config, "qk_rope_head_dim")
    attention_heads = integer(config, "num_attention_heads", "n_head", "n_heads", "num_heads")
    if heads_name != "num_key_value_heads" and not (config.get(heads_name) or config.get(width_name)):
        return 0
    heads = _heads(config, heads_name) or _heads(config, "num_key_value_heads", "num_kv_heads") or attention_heads
    if config.get("multi_query") is True:
        heads = 1
    width = integer(config, width_name, "head_dim", "kv_channels")
    if not width and attention_heads:
        width = integer(config, "hidden_size", "n_embd", "d_model", "dim") // attention_heads
    return 2 * heads * width


def _heads(config: Mapping[str, Any], *names: str) -> int:
    """A number of heads; the largest where the config has one per layer."""
    for name in names:
        value = config.get(name)
        if isinstance(value, list):
            return max((integer({name: item}, name) for item in value[:1024]), default=0)
        if number := integer(config, name):
            return number
    return 0


def _layer_kinds(config: Mapping[str, Any], layers: int) -> tuple[int, int]:
    """How many layers keep every token, and how many only a window; the rest (state space, linear) keep none."""
    kinds = config.get("layer_types") or config.get("layers_block_type") or config.get("hybrid_override_pattern")
    if isinstance(kinds, list | str) and kinds and all(isinstance(kind, str) for kind in kinds):
        return sum(kind in _FULL for kind in kinds), sum(kind in _WINDOWED for kind in kinds)
    if interval := integer(config, "full_attention_interval"):
        return layers // interval, 0
    pattern = integer(config, "sliding_window_pattern", "_sliding_window_pattern")
    if pattern > 1 and integer(config, "sliding_window"):
        return layers // pattern, layers - layers // pattern
    return layers, 0
