"""Makes one random model: ``python -m tests.material.make tiny|nano DIRECTORY``.

The weights are random normal numbers from a fixed seed, so that two machines make the same model. They are scaled so
that the answers vary with the whole prompt and near-ties between tokens are rare.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from tests.material.tokenizer import SPECIAL, write_tokenizer

Weights = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Shape:
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    vocab: int
    seed: int
    context: int = 2048

    @property
    def head_dim(self) -> int:
        return self.hidden // self.heads


SHAPES = {
    "tiny": Shape(layers=2, hidden=64, intermediate=128, heads=4, kv_heads=2, vocab=49152, seed=20240),
    "nano": Shape(layers=1, hidden=32, intermediate=64, heads=2, kv_heads=1, vocab=512, seed=20241),
}


def weights(shape: Shape) -> Weights:
    """Random Llama weights (float32) that never make a special token.

    Dimension 0 of the residual stream is a constant: every embedding holds it, no layer writes to it. The output rows
    of the special tokens read only that dimension, with a negative factor, and the other rows ignore it.
    """
    random = np.random.default_rng(shape.seed)
    kv = shape.kv_heads * shape.head_dim

    def normal(rows: int, columns: int, scale: float) -> NDArray[np.float32]:
        return (random.standard_normal((rows, columns)) * scale).astype(np.float32)

    made: Weights = {"model.embed_tokens.weight": normal(shape.vocab, shape.hidden, 1.0)}
    made["model.embed_tokens.weight"][:, 0] = 2.0
    inner, gain = shape.hidden**-0.5, 1.5
    for layer in range(shape.layers):
        at = f"model.layers.{layer}"
        made[f"{at}.input_layernorm.weight"] = np.ones(shape.hidden, np.float32)
        made[f"{at}.post_attention_layernorm.weight"] = np.ones(shape.hidden, np.float32)
        made[f"{at}.self_attn.q_proj.weight"] = normal(shape.hidden, shape.hidden, gain * inner)
        made[f"{at}.self_attn.k_proj.weight"] = normal(kv, shape.hidden, gain * inner)
        made[f"{at}.self_attn.v_proj.weight"] = normal(kv, shape.hidden, 3 * gain * inner)
        made[f"{at}.self_attn.o_proj.weight"] = normal(shape.hidden, shape.hidden, gain * inner)
        made[f"{at}.mlp.gate_proj.weight"] = normal(shape.intermediate, shape.hidden, gain * inner)
        made[f"{at}.mlp.up_proj.weight"] = normal(shape.intermediate, shape.hidden, gain * inner)
        made[f"{at}.mlp.down_proj.weight"] = normal(shape.hidden, shape.intermediate, shape.intermediate**-0.5)
        for name in ("self_attn.o_proj", "mlp.down_proj"):
            made[f"{at}.{name}.weight"][0, :] = 0.0
    made["model.norm.weight"] = np.ones(shape.hidden, np.float32)
    made["lm_head.weight"] = normal(shape.vocab, shape.hidden, 2.5 * inner)
    made["lm_head.weight"][:, 0] = 0.0
    made["lm_head.weight"][: len(SPECIAL)] = 0.0
    made["lm_head.weight"][: len(SPECIAL), 0] = -50.0
    return made


def config(shape: Shape) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "vocab_size": shape.vocab,
        "max_position_embeddings": shape.context,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
        "dtype": "float32",
    }


def make(kind: str, directory: Path) -> None:
    shape = SHAPES[kind]
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(config(shape), indent=1), encoding="utf-8")
    write_tokenizer(directory, shape.vocab)
    save_file(weights(shape), directory / "model.safetensors", metadata={"format": "mlx"})


if __name__ == "__main__":
    make(sys.argv[1], Path(sys.argv[2]))
