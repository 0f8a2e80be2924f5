"""GGUF to an mlx-lm directory, for Llama-family files whose tensors MLX reads (Q4_0, Q4_1, Q8_0, F16, F32).

Runs in a child process: this module alone of ``models_admin`` imports MLX. Weights that are 4- or 8-bit stay so
(group size 32); ``dtype`` is that of everything else: scales, biases and norms.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import mlx.core as mx

Progress = Callable[[str, int, int], None]
"""Called with phase, done and total (tensors or files)."""

_GROUP_SIZE = 32
_TOP_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_CONTROL_TOKEN = 3


class ConversionError(Exception):
    """The file is not a GGUF that this converter understands; the message says why, for people."""


def convert(source: Path, target: Path, *, dtype: str, dequantize: bool, progress: Progress) -> None:
    """Write config, weights and tokenizer of ``source`` into the empty directory ``target``.

    ``dtype`` is ``float32``, ``float16`` or ``bfloat16``. Raises ``ConversionError``, or ``OSError`` from the disk.
    """
    # The GPU has no part in this, and a machine without one must do it too.
    mx.set_default_device(mx.cpu)
    tensors, metadata = _read(source)
    config = _config(metadata, tensors)
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    weights = _rename(tensors, heads, getattr(mx, dtype), progress)
    quantization = _quantization(weights)
    if quantization and dequantize:
        weights, quantization = _dequantize(weights, quantization), None
    if quantization:
        config["quantization"] = quantization
    config["dtype"] = dtype
    mx.save_safetensors(str(target / "model.safetensors"), weights, metadata={"format": "mlx"})
    _write_json(target / "config.json", config)
    progress("tokenizer", 0, 1)
    _write_tokenizer(target, metadata, int(config["max_position_embeddings"]))
    progress("tokenizer", 1, 1)


def convert_for_this_machine(source: Path, target: Path, progress: Progress) -> str:
    """``convert`` in the form that this machine runs best; returns that form in words.

    MLX's CPU backend needs float32, and there plain weights beat quantised ones (SmolLM2-135M: 13 tokens/s against 7
    to 10, for four times the memory). A GPU keeps the file's own bits, with float16 for the rest.
    """
    if mx.is_available(mx.gpu):
        convert(source, target, dtype="float16", dequantize=False, progress=progress)
        return "float16 with the file's own quantization"
    convert(source, target, dtype="float32", dequantize=True, progress=progress)
    return "float32"


def _read(source: Path) -> tuple[dict[str, mx.array], dict[str, Any]]:
    try:
        loaded = mx.load(str(source), format="gguf", return_metadata=True)
    except (RuntimeError, ValueError) as error:
        raise ConversionError(f"{source.name} cannot be read as GGUF: {error}") from error
    tensors, metadata = cast(tuple[dict[str, mx.array], dict[str, Any]], loaded)
    if metadata.get("general.architecture") != "llama":
        raise ConversionError(f"{source.name} holds a {metadata.get('general.architecture')!r} model, not a Llama")
    return tensors, metadata


def _rename(
    tensors: dict[str, mx.array], heads: dict[str, int], dtype: mx.Dtype, progress: Progress
) -> dict[str, mx.array]:
    """Hugging Face names, rotary rows in Hugging Face's order, floating-point tensors as ``dtype``."""
    renamed: dict[str, mx.array] = {}
    for done, (name, tensor) in enumerate(sorted(tensors.items()), start=1):
        stem, kind = name.rsplit(".", 1)
        short = stem.rsplit(".", 1)[-1]
        if short in heads and tensor.ndim == 2:
            tensor = _unpermute(tensor, heads[short])
        if tensor.dtype != mx.uint32:
            tensor = tensor.astype(dtype)
        mx.eval(tensor)
        renamed[f"{_hugging_face_name(stem)}.{kind}"] = tensor
        progress("convert", done, len(tensors))
    return renamed


def _hugging_face_name(stem: str) -> str:
    if stem in _TOP_NAMES:
        return _TOP_NAMES[stem]
    block, _, rest = stem.partition(".")
    layer, _, short = rest.partition(".")
    if block != "blk" or short not in _LAYER_NAMES:
        raise ConversionError(f"tensor {stem!r} is not one of a Llama model")
    return f"model.layers.{layer}.{_LAYER_NAMES[short]}"


def _unpermute(rows: mx.array, heads: int) -> mx.array:
    """Undo the row order that llama.cpp wants for its rotary embedding; rows stay whole, so packed ones work too."""
    per_head = rows.shape[0] // heads
    return rows.reshape(heads, per_head // 2, 2, -1).swapaxes(1, 2).reshape(rows.shape)


def _quantization(weights: dict[str, mx.array]) -> dict[str, Any] | None:
    """mlx-lm's ``quantization`` entry: the commonest width for all, and an entry per layer that differs."""
    bits = {
        name.removesuffix(".scales"): 32
        * weights[name.replace(".scales", ".weight")].shape[1]
        // (scales.shape[1] * _GROUP_SIZE)
        for name, scales in weights.items()
        if name.endswith(".scales")
    }
    if not bits:
        return None
    common = max(set(bits.values()), key=list(bits.values()).count)
    entry: dict[str, Any] = {"group_size": _GROUP_SIZE, "bits": common}
    entry.update({name: {"group_size": _GROUP_SIZE, "bits": n} for name, n in sorted(bits.items()) if n != common})
    return entry


def _dequantize(weights: dict[str, mx.array], quantization: dict[str, Any]) -> dict[str, mx.array]:
    plain: dict[str, mx.array] = {}
    for name, tensor in weights.items():
        stem, kind = name.rsplit(".", 1)
        scales = weights.get(f"{stem}.scales")
        if kind == "weight" and scales is not None:
            bits = quantization.get(stem, quantization)["bits"]
            tensor = mx.dequantize(tensor, scales, weights[f"{stem}.biases"], group_size=_GROUP_SIZE, bits=bits)
            mx.eval(tensor)
        if kind == "weight" or scales is None:
            plain[name] = tensor
    return plain


def _config(metadata: dict[str, Any], tensors: dict[str, mx.array]) -> dict[str, Any]:
    def number(key: str) -> Any:
        value = metadata.get(key)
        if not isinstance(value, mx.array):
            raise ConversionError(f"the GGUF metadata lacks {key}")
        return value.item()

    heads, hidden = number("llama.attention.head_count"), number("llama.embedding_length")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": number("llama.feed_forward_length"),
        "num_hidden_layers": number("llama.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": number("llama.attention.head_count_kv"),
        "head_dim": hidden // heads,
        "vocab_size": len(metadata["tokenizer.ggml.tokens"]),
        "max_position_embeddings": number("llama.context_length"),
        "rms_norm_eps": round(number("llama.attention.layer_norm_rms_epsilon"), 9),
        "rope_theta": number("llama.rope.freq_base"),
        "hidden_act": "silu",
        "tie_word_embeddings": "output.weight" not in tensors,
        "bos_token_id": number("tokenizer.ggml.bos_token_id"),
        "eos_token_id": number("tokenizer.ggml.eos_token_id"),
    }


def _write_tokenizer(target: Path, metadata: dict[str, Any], context: int) -> None:
    """A byte-level BPE tokenizer in the ``tokenizers`` format, from the vocabulary and merges of the GGUF."""
    if metadata.get("tokenizer.ggml.model") != "gpt2" or metadata.get("tokenizer.ggml.pre") != "smollm":
        raise ConversionError("only SmolLM's byte-level tokenizer is understood")
    tokens: list[str] = metadata["tokenizer.ggml.tokens"]
    kinds: list[int] = metadata["tokenizer.ggml.token_type"].tolist()
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": index, "content": tokens[index], **flags}
            for index, kind in enumerate(kinds)
            if kind == _CONTROL_TOKEN
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level],
        },
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": [merge.split(" ", 1) for merge in metadata["tokenizer.ggml.merges"]],
        },
    }
    _write_json(target / "tokenizer.json", document)
    _write_json(target / "tokenizer_config.json", _tokenizer_config(metadata, tokens, context))


def _tokenizer_config(metadata: dict[str, Any], tokens: list[str], context: int) -> dict[str, Any]:
    def token(role: str) -> str:
        return tokens[int(metadata[f"tokenizer.ggml.{role}_token_id"].item())]

    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": token("bos"),
        "eos_token": token("eos"),
        "unk_token": token("unknown"),
        "pad_token": token("padding"),
        "clean_up_tokenization_spaces": False,
        "model_max_length": context,
        "chat_template": metadata["tokenizer.chat_template"],
    }


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=None), encoding="utf-8")
