"""Makes a random embedding model: ``python -m tests.material.encoder ARCHITECTURE DIRECTORY``.

Every weight is drawn from its own name, so that two machines make the same model, and so that another implementation
of the architecture can be asked what it makes of the same weights (``tests/worker/embedding/reference.json``).
"""

from __future__ import annotations

import json
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from mlx.utils import tree_flatten
from numpy.typing import NDArray
from safetensors.numpy import save_file

from inference.worker.embedding.encoders import make_encoder

VOCABULARY = 300
CONTEXT = 64
_BASE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 2048,
    "pad_token_id": 0,
}
_GENERATOR = _BASE | {"num_key_value_heads": 2, "head_dim": 16, "rms_norm_eps": 1e-6, "rope_theta": 50000.0}
_KINDS = ["sliding_attention", "sliding_attention", "sliding_attention", "full_attention"]
CONFIGS: dict[str, dict[str, Any]] = {
    "bert": _BASE | {"max_position_embeddings": 128, "architectures": ["BertModel"], "layer_norm_eps": 1e-12},
    "roberta": _BASE | {"max_position_embeddings": 130, "type_vocab_size": 1, "pad_token_id": 1},
    "xlm-roberta": _BASE | {"max_position_embeddings": 130, "type_vocab_size": 1, "pad_token_id": 1},
    "mpnet": _BASE | {"max_position_embeddings": 130, "pad_token_id": 1, "relative_attention_num_buckets": 32},
    "nomic_bert": _BASE | {"rotary_emb_base": 1000, "layer_norm_epsilon": 1e-12, "activation_function": "swiglu"},
    "modernbert": _BASE | {"local_attention": 16, "global_attn_every_n_layers": 3, "norm_eps": 1e-5},
    "gemma3_text": _GENERATOR
    | {
        "architectures": ["Gemma3TextModel"],
        "layer_types": _KINDS,
        "sliding_window": 32,
        "query_pre_attn_scalar": 16,
        "use_bidirectional_attention": True,
        "rope_theta": 1_000_000.0,
        "rope_local_base_freq": 10_000.0,
    },
    "llama": _GENERATOR | {"architectures": ["LlamaModel"]},
    "mistral": _GENERATOR | {"architectures": ["MistralModel"], "sliding_window": None},
    "qwen2": {name: value for name, value in _GENERATOR.items() if name != "head_dim"},
    "qwen3": _GENERATOR | {"architectures": ["Qwen3ForCausalLM"], "tie_word_embeddings": True},
}
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def make(architecture: str, directory: Path) -> None:
    """The model in the layout of sentence-transformers: mean pooling, inputs of ``CONTEXT`` tokens."""
    directory.mkdir(parents=True)
    config = {"model_type": architecture, **CONFIGS[architecture]}
    _write(directory / "config.json", config)
    encoder, _ = make_encoder(architecture, config, {})
    names = {name: value.shape for name, value in tree_flatten(encoder.parameters())}
    weights = {name: _drawn(name, shape, architecture) for name, shape in names.items()}
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    _write_layout(directory)
    _write_tokenizer(directory)


def _drawn(name: str, shape: tuple[int, ...], architecture: str) -> NDArray[np.float32]:
    random = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    if len(shape) == 1:
        base = 0.0 if name.endswith("bias") or architecture == "gemma3_text" else 1.0
        return (base + 0.1 * random).astype(np.float32)
    scale = 1.0 if "embed" in name or "relative" in name else 1.5 * shape[-1] ** -0.5
    return (scale * random).astype(np.float32)


def _write_layout(directory: Path) -> None:
    kinds = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate(kinds)
    ]
    _write(directory / "modules.json", modules)
    _write(directory / "sentence_bert_config.json", {"max_seq_length": CONTEXT, "do_lower_case": False})
    (directory / "1_Pooling").mkdir()
    _write(directory / "1_Pooling" / "config.json", {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True})


def _write_tokenizer(directory: Path) -> None:
    """WordPiece over single characters, which asks to be cut off and padded, as published files do."""
    letters = [chr(code) for code in range(33, 127)]
    vocabulary = [*_SPECIAL, *letters, *(f"##{letter}" for letter in letters)]
    document = {
        "version": "1.0",
        "truncation": {"max_length": 16, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
        "padding": {
            "strategy": {"Fixed": 16},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "[PAD]",
        },
        "added_tokens": [_added(index, text) for index, text in enumerate(_SPECIAL)],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {text: index for index, text in enumerate(vocabulary)},
        },
    }
    _write(directory / "tokenizer.json", document)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    _write(directory / "tokenizer_config.json", names | {"tokenizer_class": "PreTrainedTokenizerFast"})


def _added(index: int, text: str) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": index, "content": text, **flags}


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")


if __name__ == "__main__":
    make(sys.argv[1], Path(sys.argv[2]))
