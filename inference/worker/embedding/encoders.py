"""The architectures that make embeddings, each as a module whose parameters bear the names of the weight files.

The layers are mlx-embeddings', mlx-lm's and those of ``layers``; what stands here is which of them, under which mask.
Rows of a batch are padded on the right. A mask adds ``_MASKED`` and not minus infinity: a row that may look at nothing
would become NaN. mlx-embeddings is entered by its modules, past its package's ``__init__``, which imports mlx-vlm.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import mlx.core as mx
import mlx.nn as nn

from inference.embedding_files import nomic_config
from inference.errors import ModelUnavailable
from inference.worker.embedding.layers import Mpnet, NomicBert

Weights = dict[str, mx.array]
"""By name."""

_MASKED = -10_000.0
_OTHER_HEADS = ("lm_head.", "cls.", "head.", "decoder.", "classifier.", "pooler.")


class Encoder(Protocol):
    """``ids`` of int32 [rows, width] and ``lengths`` [rows] in; the last layer's vectors [rows, width, size] out.

    ``heads`` is the number of attention heads; ``dense`` are layers after the pooling that the weights bring along.
    """

    heads: int
    vocab_size: int
    pad_id: int
    dense: list[nn.Module]

    def __call__(self, ids: mx.array, lengths: mx.array) -> mx.array: ...


def read_safetensors(path: Path) -> Weights:
    """The arrays of one file."""
    found = mx.load(str(path))
    assert isinstance(found, dict)  # it is, for this format and without metadata
    return found


def make_encoder(architecture: str, config: Mapping[str, Any], weights: Weights) -> tuple[Any, Weights]:
    """The module of that architecture, an ``Encoder``, and its weights under the module's names."""
    maker = _MAKERS.get(architecture)
    if maker is None:
        raise ModelUnavailable(f"embeddings by the architecture {architecture!r} are not supported")
    kept = {name: weight for key, weight in weights.items() if (name := _plain_name(key))}
    encoder: Any = maker(dict(config), kept).eval()
    encoder.heads = int(config.get("num_attention_heads") or config["n_head"])
    encoder.vocab_size = int(config["vocab_size"])
    padding = config.get("pad_token_id")
    encoder.pad_id = padding if isinstance(padding, int) and 0 <= padding < encoder.vocab_size else 0
    return encoder, kept


def _plain_name(key: str) -> str:
    """A weight's name without the prefix of whole models; "" for what embeddings do not need."""
    name = re.sub(r"^(model|bert|roberta|mpnet|transformer)\.", "", key)
    if name.startswith(_OTHER_HEADS) or name.endswith(("position_ids", "rotary_emb.inv_freq")):
        return ""
    return name


def _embeddings_module(name: str) -> ModuleType:
    """A module of ``mlx_embeddings.models``; its package is put in place without being run."""
    if "mlx_embeddings" not in sys.modules:
        spec = importlib.util.find_spec("mlx_embeddings")
        if spec is None:
            raise ModelUnavailable("mlx-embeddings is not installed; run 'lmx setup'")
        sys.modules["mlx_embeddings"] = importlib.util.module_from_spec(spec)
    return importlib.import_module(f"mlx_embeddings.models.{name}")


def _generator_module(name: str) -> ModuleType:
    return importlib.import_module(f"mlx_lm.models.{name}")


# --------------------------------------------------------------------------------------------------------- masks


def _seen(lengths: mx.array, width: int) -> mx.array:
    """True where a row has a token: [rows, 1, 1, width]."""
    return (mx.arange(width)[None, :] < lengths[:, None])[:, None, None, :]


def _near(width: int, reach: int) -> mx.array:
    """True where two places are at most ``reach`` apart: [1, 1, width, width]."""
    places = mx.arange(width)
    return (mx.abs(places[:, None] - places[None, :]) <= reach)[None, None]


def _additive(allowed: mx.array, like: mx.array) -> mx.array:
    return mx.where(allowed, 0.0, _MASKED).astype(like.dtype)


# ------------------------------------------------------------------------------------------------- architectures


def _bert(config: dict[str, Any], weights: Weights) -> nn.Module:
    module = _embeddings_module("bert")

    class Bert(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            args = module.ModelArgs.from_dict(config)
            self.embeddings = module.BertEmbeddings(args)
            self.encoder = module.BertEncoder(args)

        def __call__(self, ids: mx.array, lengths: mx.array) -> mx.array:
            hidden = self.embeddings(ids)
            made: mx.array = self.encoder(hidden, _additive(_seen(lengths, ids.shape[1]), hidden))
            return made

    return Bert()


def _roberta(config: dict[str, Any], weights: Weights) -> nn.Module:
    """RoBERTa and its multilingual and French kin. Positions count from the padding token's id."""
    module = _embeddings_module("xlm_roberta")

    class Roberta(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            args = module.ModelArgs.from_dict(config)
            self.embeddings = module.XLMRobertaEmbeddings(args)
            self.encoder = module.XLMRobertaEncoder(args)

        def __call__(self, ids: mx.array, lengths: mx.array) -> mx.array:
            hidden = self.embeddings(ids)
            made: mx.array = self.encoder(hidden, _additive(_seen(lengths, ids.shape[1]), hidden))[0]
            return made

    return Roberta()


def _nomic_bert(config: dict[str, Any], weights: Weights) -> nn.Module:
    class Nomic(NomicBert):
        def __call__(self, ids: mx.array, lengths: mx.array) -> mx.array:
            return self.encode(ids, _additive(_seen(lengths, ids.shape[1]), self.emb_ln.weight))

    named = nomic_config(config)
    return Nomic(named, float((named.get("rope_parameters") or {}).get("rope_theta", 1000.0)))


def _mpnet(config: dict[str, Any], weights: Weights) -> nn.Module:
    class MpnetEncoder(Mpnet):
        def __call__(self, ids: mx.array, lengths: mx.array) -> mx.array:
            return self.encode(ids, _additive(_seen(lengths, ids.shape[1]), self.embeddings.LayerNorm.weight))

    return MpnetEncoder(config)


def _modernbert(config: dict[str, Any], weights: Weights) -> nn.Module:
    """Every n-th layer sees the whole text, the others a window around each token."""
    module = _embeddings_module("modernbert")
    args = module.ModelArgs.from_dict(_modernbert_config(config))

    class ModernBert(module.ModernBertModel):  # type: ignore[name-defined]
        def __init__(self) -> None:
            super().__init__(args)
            for layer in self.layers:
                layer.mlp.act = nn.GELU()  # mlx-embeddings approximates what the models were trained with

        def __call__(self, ids: mx.array, lengths: mx.array) -> mx.array:
            hidden = self.embeddings(ids)
            seen = _seen(lengths, ids.shape[1])
            far = _additive(seen, hidden)
            near = _additive(seen & _near(ids.shape[1], args.local_attention // 2), hidden)
            for layer in self.layers:
                hidden = layer(hidden, attention_mask=far, sliding_window_mask=near)[0]
            made: mx.array = self.final_norm(hidden)
            return made

    return ModernBert()


def _modernbert_config(config: dict[str, Any]) -> dict[str, Any]:
    """The config under the names of before transformers 5, which the layers read."""
    ropes, period = config.get("rope_parameters") or {}, _period(config)
    renamed = {"global_attn_every_n_layers": period} if period else {}
    for ours, kind in (("global_rope_theta", "full_attention"), ("local_rope_theta", "sliding_attention")):
        if isinstance(found := ropes.get(kind), dict) and "rope_theta" in found:
            renamed[ours] = found["rope_theta"]
    return config | renamed


def _period(config: Mapping[str, Any], first: int = 0) -> int:
    """Every how many layers one sees everything, of ``layer_types``; 0 where the config has none.

    ``first`` is 0 where a period begins with such a layer, 1 where it ends with one.
    """
    kinds = config.get("layer_types")
    if not isinstance(kinds, list) or not kinds:
        return 0
    full = [index for index, kind in enumerate(kinds) if kind == "full_attention"]
    period = (full[0] + 1 if first else (full[1] if len(full) > 1 else len(kinds))) if full else len(kinds) + 1
    expected = [index for index in range(len(kinds)) if (index + first) % period == 0]
    if full != expected:
        raise ModelUnavailable("its layers of full and windowed attention alternate in a way that is not supported")
    return period


def _gemma3(config: dict[str, Any], weights: Weights) -> nn.Module:
    """EmbeddingGemma: Gemma 3 with attention in both directions."""
    module = _generator_module("gemma3_text")
    args = module.ModelArgs.from_dict(_gemma3_config(config))
    # transformers halves the window of a model that looks in both directions.
    reach = args.sliding_window // 2

    class Gemma3(module.Gemma3Model):  # type: ignore[name-defined]
        def __init__(self) -> None:
            super().__init__(args)
            if "dense.0.weight" in weights:
                size = args.hidden_size
                self.dense = [nn.Linear(size, size * 4, bias=False), nn.Linear(size * 4, size, bias=False)]

        def __call__(self, ids: mx.array, lengths: mx.array) -> mx.array:
            hidden = self.embed_tokens(ids)
            hidden *= mx.array(args.hidden_size**0.5, hidden.dtype)
            seen = _seen(lengths, ids.shape[1])
            far, near = _additive(seen, hidden), _additive(seen & _near(ids.shape[1], reach), hidden)
            for layer in self.layers:
                hidden = layer(hidden, near if layer.self_attn.is_sliding else far)
            made: mx.array = self.norm(hidden)
            return made

    return Gemma3()


def _gemma3_config(config: dict[str, Any]) -> dict[str, Any]:
    ropes = config.get("rope_parameters") or {}
    period = _period(config, 1) or config.get("_sliding_window_pattern") or config.get("sliding_window_pattern")
    renamed = {"sliding_window_pattern": period} if period else {}
    for ours, kind in (("rope_theta", "full_attention"), ("rope_local_base_freq", "sliding_attention")):
        if isinstance(found := ropes.get(kind), dict) and "rope_theta" in found:
            renamed[ours] = found["rope_theta"]
    return config | renamed


def _decoder(module_name: str, class_name: str) -> Callable[[dict[str, Any], Weights], nn.Module]:
    """A language model without its head. Its tokens look back only, so that padding on the right changes nothing."""

    def make(config: dict[str, Any], weights: Weights) -> nn.Module:
        module = _generator_module(module_name)

        class Decoder(getattr(module, class_name)):  # type: ignore[misc]
            def __call__(self, ids: mx.array, lengths: mx.array) -> mx.array:
                made: mx.array = super().__call__(ids)

                return made

        ropes = config.get("rope_parameters")
        theta = {"rope_theta": ropes["rope_theta"]} if isinstance(ropes, dict) and "rope_theta" in ropes else {}
        return Decoder(module.ModelArgs.from_dict(theta | config))

    return make


_MAKERS: dict[str, Callable[[dict[str, Any], Weights], nn.Module]] = {
    "bert": _bert,
    "roberta": _roberta,
    "xlm-roberta": _roberta,
    "camembert": _roberta,
    "modernbert": _modernbert,
    "mpnet": _mpnet,
    "nomic_bert": _nomic_bert,
    "gemma3_text": _gemma3,
    "qwen3": _decoder("qwen3", "Qwen3Model"),
    "qwen2": _decoder("qwen2", "Qwen2Model"),
    "llama": _decoder("llama", "LlamaModel"),
    "mistral": _decoder("llama", "LlamaModel"),
}
