"""Makes the GPU benchmark's model: ``python -m tests.bench.big_model DIRECTORY``.

A random Llama of 1.24 billion parameters (16 layers, hidden 2048, vocabulary 128,256), quantised to 4 bits in groups
of 64, activations in bfloat16. Random weights run at the speed of real ones.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_map
from mlx_lm.models import llama

from tests.material.tokenizer import write_tokenizer

_TOKENS_WITH_TEXT = 49_152
"""Tokens above have no text: they count, take the same time to compute, and write nothing."""
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "vocab_size": 128_256,
    "max_position_embeddings": 65_536,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500_000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
    "dtype": "bfloat16",
}


def make(directory: Path, shape: dict[str, Any] = CONFIG) -> None:
    """Write the model, unless it is complete already."""
    if (directory / "config.json").exists():
        return
    directory.mkdir(parents=True, exist_ok=True)
    write_tokenizer(directory, _TOKENS_WITH_TEXT)
    mx.random.seed(7)
    model = llama.Model(llama.ModelArgs.from_dict(shape))
    model.update(tree_map(lambda array: array.astype(mx.bfloat16), model.parameters()))
    nn.quantize(model, group_size=64, bits=4)
    mx.save_safetensors(str(directory / "model.safetensors"), dict(tree_flatten(model.parameters())))
    config = shape | {"quantization": {"group_size": 64, "bits": 4}}
    (directory / "config.json").write_text(json.dumps(config, indent=1))


if __name__ == "__main__":
    make(Path(sys.argv[1]))
