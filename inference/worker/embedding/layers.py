"""Encoders that mlx-embeddings lacks: NomicBERT and MPNet. Parameters bear the names of the published weight files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import mlx.core as mx
import mlx.nn as nn

_MPNET_BUCKETS, _MPNET_FAR = 32, 128


def _heads(vectors: mx.array, heads: int) -> mx.array:
    """[rows, width, size] to [rows, heads, width, size / heads]."""
    return vectors.reshape(*vectors.shape[:2], heads, -1).transpose(0, 2, 1, 3)


def _joined(vectors: mx.array) -> mx.array:
    return vectors.transpose(0, 2, 1, 3).reshape(vectors.shape[0], vectors.shape[2], -1)


# ------------------------------------------------------------------------------------------------------ NomicBERT


class _NomicAttention(nn.Module):
    def __init__(self, size: int, heads: int, theta: float) -> None:
        super().__init__()
        self.heads, self.scale = heads, (size // heads) ** -0.5
        self.Wqkv = nn.Linear(size, 3 * size, bias=False)
        self.out_proj = nn.Linear(size, size, bias=False)
        self.rope = nn.RoPE(size // heads, base=theta)

    def __call__(self, hidden: mx.array, mask: mx.array) -> mx.array:
        queries, keys, values = (_heads(part, self.heads) for part in mx.split(self.Wqkv(hidden), 3, axis=-1))
        queries, keys = self.rope(queries), self.rope(keys)
        seen = mx.fast.scaled_dot_product_attention(queries, keys, values, scale=self.scale, mask=mask)
        made: mx.array = self.out_proj(_joined(seen))
        return made


class _NomicMlp(nn.Module):
    def __init__(self, size: int, inner: int) -> None:
        super().__init__()
        self.fc11 = nn.Linear(size, inner, bias=False)
        self.fc12 = nn.Linear(size, inner, bias=False)
        self.fc2 = nn.Linear(inner, size, bias=False)

    def __call__(self, hidden: mx.array) -> mx.array:
        made: mx.array = self.fc2(self.fc11(hidden) * nn.silu(self.fc12(hidden)))
        return made


class _NomicLayer(nn.Module):
    def __init__(self, size: int, heads: int, inner: int, epsilon: float, theta: float) -> None:
        super().__init__()
        self.attn = _NomicAttention(size, heads, theta)
        self.mlp = _NomicMlp(size, inner)
        self.norm1 = nn.LayerNorm(size, eps=epsilon)
        self.norm2 = nn.LayerNorm(size, eps=epsilon)

    def __call__(self, hidden: mx.array, mask: mx.array) -> mx.array:
        hidden = self.norm1(hidden + self.attn(hidden, mask))
        made: mx.array = self.norm2(hidden + self.mlp(hidden))
        return made


class NomicBert(nn.Module):
    """BERT with rotary positions and a gated MLP. ``config`` under the names of transformers."""

    def __init__(self, config: Mapping[str, Any], theta: float) -> None:
        super().__init__()
        size, epsilon = config["hidden_size"], config.get("layer_norm_eps", 1e-12)
        shape = (size, config["num_attention_heads"], config["intermediate_size"], epsilon, theta)
        self.embeddings = nn.Module()
        self.embeddings.word_embeddings = nn.Embedding(config["vocab_size"], size)
        self.embeddings.token_type_embeddings = nn.Embedding(config.get("type_vocab_size", 2), size)
        self.emb_ln = nn.LayerNorm(size, eps=epsilon)
        self.encoder = nn.Module()
        self.encoder.layers = [_NomicLayer(*shape) for _ in range(config["num_hidden_layers"])]

    def encode(self, ids: mx.array, mask: mx.array) -> mx.array:
        """Hidden states of ``ids`` under an additive mask [rows, 1, 1, width]."""
        kinds = self.embeddings.token_type_embeddings(mx.zeros_like(ids))
        hidden: mx.array = self.emb_ln(self.embeddings.word_embeddings(ids) + kinds)
        for layer in self.encoder.layers:
            hidden = layer(hidden, mask.astype(hidden.dtype))
        return hidden


# ---------------------------------------------------------------------------------------------------------- MPNet


class _MpnetProjections(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(size, size) for _ in range(4))


class _MpnetAttention(nn.Module):
    def __init__(self, size: int, heads: int, epsilon: float) -> None:
        super().__init__()
        self.heads, self.scale = heads, (size // heads) ** -0.5
        self.attn = _MpnetProjections(size)
        self.LayerNorm = nn.LayerNorm(size, eps=epsilon)

    def __call__(self, hidden: mx.array, mask: mx.array) -> mx.array:
        queries, keys, values = (_heads(part(hidden), self.heads) for part in (self.attn.q, self.attn.k, self.attn.v))
        seen = mx.fast.scaled_dot_product_attention(queries, keys, values, scale=self.scale, mask=mask)
        made: mx.array = self.LayerNorm(hidden + self.attn.o(_joined(seen)))
        return made


class _MpnetLayer(nn.Module):
    def __init__(self, size: int, heads: int, inner: int, epsilon: float) -> None:
        super().__init__()
        self.attention = _MpnetAttention(size, heads, epsilon)
        self.intermediate, self.output = nn.Module(), nn.Module()
        self.intermediate.dense = nn.Linear(size, inner)
        self.output.dense = nn.Linear(inner, size)
        self.output.LayerNorm = nn.LayerNorm(size, eps=epsilon)

    def __call__(self, hidden: mx.array, mask: mx.array) -> mx.array:
        hidden = self.attention(hidden, mask)
        inner = self.output.dense(nn.gelu(self.intermediate.dense(hidden)))
        made: mx.array = self.output.LayerNorm(hidden + inner)
        return made


class Mpnet(nn.Module):
    """BERT whose attention also hears how far apart two tokens are, in buckets that grow with the distance."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        size, heads, epsilon = config["hidden_size"], config["num_attention_heads"], config.get("layer_norm_eps", 1e-12)
        self.embeddings = nn.Module()
        self.embeddings.word_embeddings = nn.Embedding(config["vocab_size"], size)
        self.embeddings.position_embeddings = nn.Embedding(config["max_position_embeddings"], size)
        self.embeddings.LayerNorm = nn.LayerNorm(size, eps=epsilon)
        self.encoder = nn.Module()
        inner = config["intermediate_size"]
        self.encoder.layer = [_MpnetLayer(size, heads, inner, epsilon) for _ in range(config["num_hidden_layers"])]
        self.encoder.relative_attention_bias = nn.Embedding(
            config.get("relative_attention_num_buckets", _MPNET_BUCKETS), heads
        )
        self.padding = config.get("pad_token_id", 1)

    def encode(self, ids: mx.array, mask: mx.array) -> mx.array:
        """Hidden states of ``ids`` under an additive mask [rows, 1, 1, width]."""
        present = (ids != self.padding).astype(mx.int32)
        places = mx.cumsum(present, axis=1) * present + self.padding
        words, positions = self.embeddings.word_embeddings(ids), self.embeddings.position_embeddings(places)
        hidden: mx.array = self.embeddings.LayerNorm(words + positions)
        table = self.encoder.relative_attention_bias
        bias = table(_buckets(ids.shape[1], table.weight.shape[0])).transpose(2, 0, 1)[None]
        mask = (mask + bias).astype(hidden.dtype)
        for layer in self.encoder.layer:
            hidden = layer(hidden, mask)
        return hidden


def _buckets(width: int, count: int) -> mx.array:
    """The bucket of each pair of places [width, width]: half for each direction, exact near by, then logarithmic."""
    places = mx.arange(width)
    apart = places[:, None] - places[None, :]
    half, exact = count // 2, count // 4
    distance = mx.abs(apart)
    growth = mx.log(mx.maximum(distance, 1).astype(mx.float32) / exact) / math.log(_MPNET_FAR / exact)
    far = mx.minimum(exact + (growth * (half - exact)).astype(mx.int32), half - 1)
    return mx.where(apart < 0, half, 0) + mx.where(distance < exact, distance, far)
