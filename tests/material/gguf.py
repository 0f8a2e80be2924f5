"""GGUF files of tiny and nano, as llama.cpp's own converter writes them: F16, Q4_0, Q4_1 or Q8_0."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

Floats = NDArray[np.float32]
_ALIGNMENT, _BLOCK = 32, 32
_TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 8}
_TOP = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_gguf(
    model: Path, file: Path, kind: str = "F16", *, architecture: str = "llama", odd: int | None = None
) -> Path:
    """``model`` as one file of that kind. ``odd`` is a type number that is claimed of the first tensor."""
    config = json.loads((model / "config.json").read_text())
    tensors = [
        _tensor(name, value, config, kind) for name, value in sorted(load_file(model / "model.safetensors").items())
    ]
    metadata = _metadata(model, config, architecture)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    head += b"".join(_text(key) + value for key, value in metadata.items())
    place = 0
    for number, (name, shape, own, data) in enumerate(tensors):
        claimed = odd if odd is not None and number == 0 else _TYPES[own]
        head += _text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *reversed(shape), claimed, place)
        place += -(-len(data) // _ALIGNMENT) * _ALIGNMENT
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(_padded(head) + b"".join(_padded(data) for *_, data in tensors))
    return file


def _tensor(name: str, value: Floats, config: dict[str, Any], kind: str) -> tuple[str, tuple[int, ...], str, bytes]:
    stem, end = name.rsplit(".", 1)
    short = _TOP.get(stem)
    if short is None:
        layer, _, rest = stem.removeprefix("model.layers.").partition(".")
        short = f"blk.{layer}.{_LAYER[rest]}"
    heads = {"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"}.get(short.rsplit(".", 1)[-1])
    if heads:
        count = config[heads]
        value = value.reshape(count, 2, value.shape[0] // count // 2, -1).swapaxes(1, 2).reshape(value.shape)
    own = "F32" if value.ndim == 1 else kind
    return f"{short}.{end}", value.shape, own, _PACK[own](value.astype(np.float32))


def _q8_0(value: Floats) -> bytes:
    blocks = value.reshape(-1, _BLOCK)
    scale = (np.abs(blocks).max(axis=1, keepdims=True) / 127).astype(np.float16)
    whole = np.round(blocks / np.maximum(scale.astype(np.float32), 1e-12)).clip(-127, 127).astype(np.int8)
    return np.concatenate([scale.view(np.uint8), whole.view(np.uint8)], axis=1).tobytes()


def _q4_0(value: Floats) -> bytes:
    blocks = value.reshape(-1, _BLOCK)
    furthest = np.take_along_axis(blocks, np.abs(blocks).argmax(axis=1)[:, None], axis=1)
    scale = (furthest / -8).astype(np.float16)
    steps = np.divide(blocks, scale.astype(np.float32), out=np.zeros_like(blocks), where=scale != 0)
    return _nibbles(scale.view(np.uint8), (steps + 8.5).clip(0, 15).astype(np.uint8))


def _q4_1(value: Floats) -> bytes:
    blocks = value.reshape(-1, _BLOCK)
    low = blocks.min(axis=1, keepdims=True).astype(np.float16)
    scale = ((blocks.max(axis=1, keepdims=True) - low) / 15).astype(np.float16)
    steps = np.divide(blocks - low, scale.astype(np.float32), out=np.zeros_like(blocks), where=scale != 0)
    head = np.concatenate([scale.view(np.uint8), low.view(np.uint8)], axis=1)
    return _nibbles(head, (steps + 0.5).clip(0, 15).astype(np.uint8))


def _nibbles(head: NDArray[np.uint8], whole: NDArray[np.uint8]) -> bytes:
    half = _BLOCK // 2
    return np.concatenate([head, whole[:, :half] | (whole[:, half:] << 4)], axis=1).astype(np.uint8).tobytes()


_PACK: dict[str, Callable[[Floats], bytes]] = {
    "F32": lambda value: value.tobytes(),
    "F16": lambda value: value.astype(np.float16).tobytes(),
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q8_0": _q8_0,
}


def _metadata(model: Path, config: dict[str, Any], architecture: str) -> dict[str, bytes]:
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    told = json.loads((model / "tokenizer_config.json").read_text())
    vocab: dict[str, int] = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    special = set(vocab)
    vocab |= tokenizer["model"]["vocab"]
    tokens = sorted(vocab, key=lambda token: vocab[token])
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"]["merges"]]
    numbers = {
        "llama.context_length": config["max_position_embeddings"],
        "llama.embedding_length": config["hidden_size"],
        "llama.feed_forward_length": config["intermediate_size"],
        "llama.block_count": config["num_hidden_layers"],
        "llama.attention.head_count": config["num_attention_heads"],
        "llama.attention.head_count_kv": config["num_key_value_heads"],
        "tokenizer.ggml.bos_token_id": vocab[told["bos_token"]],
        "tokenizer.ggml.eos_token_id": vocab[told["eos_token"]],
        "tokenizer.ggml.unknown_token_id": vocab[told["unk_token"]],
        "tokenizer.ggml.padding_token_id": vocab[told["pad_token"]],
    }
    made = {"general.architecture": _typed(architecture)}
    made |= {name: struct.pack("<II", 4, number) for name, number in numbers.items()}
    made["llama.rope.freq_base"] = struct.pack("<If", 6, config["rope_theta"])
    made["llama.attention.layer_norm_rms_epsilon"] = struct.pack("<If", 6, config["rms_norm_eps"])
    made |= {"tokenizer.ggml.model": _typed("gpt2"), "tokenizer.ggml.pre": _typed("smollm")}
    made["tokenizer.ggml.tokens"] = _texts(tokens)
    made["tokenizer.ggml.merges"] = _texts(merges)
    kinds = [3 if token in special else 1 for token in tokens]
    made["tokenizer.ggml.token_type"] = struct.pack(f"<IIQ{len(kinds)}i", 9, 5, len(kinds), *kinds)
    made["tokenizer.chat_template"] = _typed(told["chat_template"])
    return made


def _typed(text: str) -> bytes:
    return struct.pack("<I", 8) + _text(text)


def _texts(texts: list[str]) -> bytes:
    return struct.pack("<IIQ", 9, 8, len(texts)) + b"".join(map(_text, texts))


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % _ALIGNMENT)
