"""What the files of an embedding model say, read without MLX: one rule for the catalog and for the worker.

An embedding model is known by what sentence-transformers writes beside the weights (``modules.json``,
``1_Pooling/config.json``, ``config_sentence_transformers.json``), by an architecture that makes nothing else, or, for
one that generates text too, by the word "embedding" in its name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference.model_files import Unusable, context_length, integer, printable, read_json, read_json_value

ENCODERS = frozenset({"bert", "roberta", "xlm-roberta", "camembert", "modernbert", "mpnet", "nomic_bert"})
"""Architectures that make vectors and nothing else."""

GENERATORS = frozenset({"gemma3_text", "llama", "mistral", "qwen2", "qwen3"})
"""Architectures that may be either; an embedding model of them has no use for its language-model head."""

POOLINGS = ("cls", "max", "mean", "mean_sqrt_len", "weighted_mean", "last")
"""How a text's token vectors become one, in the order in which several are joined."""

_MODULES, _SETTINGS = "modules.json", "config_sentence_transformers.json"
_POOLING_KEYS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weighted_mean",
    "pooling_mode_lasttoken": "last",
}
_POOLING_NAMES = {"weightedmean": "weighted_mean", "lasttoken": "last", "mean_sqrt_len_tokens": "mean_sqrt_len"}
_ACTIVATIONS = {"Identity": "", "Tanh": "tanh", "ReLU": "relu", "GELU": "gelu", "Sigmoid": "sigmoid", "SiLU": "silu"}
_CLASSIFIERS = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering", "ForMultipleChoice")
_NAMED = re.compile(r"(^|[^a-z])embed(ding|dings|s)?([^a-z]|$)")
_NOMIC_NAMES = {
    "n_embd": "hidden_size",
    "n_head": "num_attention_heads",
    "n_inner": "intermediate_size",
    "n_layer": "num_hidden_layers",
    "layer_norm_epsilon": "layer_norm_eps",
    "max_trained_positions": "max_position_embeddings",
}
_PLAIN_GELU = ("gelu", "gelu_python")


@dataclass(frozen=True, slots=True)
class Step:
    """What happens to the pooled vector: ``normalize``, or a dense layer whose file is ``weights``.

    ``activation`` is "" or the name of a function of ``mlx.nn``.
    """

    kind: str
    weights: Path | None = None
    activation: str = ""


@dataclass(frozen=True, slots=True)
class EmbeddingFiles:
    """``pooling`` are one or more of ``POOLINGS``; ``pooling_named`` is False where no file names it.

    ``context`` in tokens of one input, 0 when unknown. ``lowercase``: texts are put into lower case first.
    """

    architecture: str
    pooling: tuple[str, ...]
    pooling_named: bool
    steps: tuple[Step, ...]
    context: int
    lowercase: bool = False


def is_embedding_model(directory: Path, names: set[str], config: Mapping[str, Any], label: str) -> bool:
    """Whether ``directory`` with the files ``names`` is to be loaded as an embedding model; ``label`` is its name."""
    architecture = str(config.get("model_type"))
    if names & {_MODULES, _SETTINGS} or (directory / "1_Pooling" / "config.json").is_file():
        return True
    if architecture in ENCODERS:
        return True
    if architecture not in GENERATORS:
        return False
    return config.get("use_bidirectional_attention") is True or _NAMED.search(label.lower()) is not None


def read_embedding_files(directory: Path, config: Mapping[str, Any]) -> EmbeddingFiles:
    """What to do with the model in ``directory``. Raises ``Unusable`` with the sentence why it cannot be done."""
    architecture = str(config.get("model_type"))
    check_architecture(architecture, config)
    pooling_path, steps = _modules(directory)
    pooling = _pooling(directory / pooling_path / "config.json")
    default = "last" if architecture in GENERATORS and architecture != "gemma3_text" else "mean"
    settings = _optional(directory, "sentence_bert_config.json")
    return EmbeddingFiles(
        architecture,
        pooling or (default,),
        bool(pooling),
        steps,
        _context(architecture, config, settings),
        settings.get("do_lower_case") is True,
    )


def check_architecture(architecture: str, config: Mapping[str, Any]) -> None:
    """Raise ``Unusable`` for a model that makes no vectors here, as far as its config says."""
    if architecture not in ENCODERS | GENERATORS:
        known = ", ".join(sorted(ENCODERS | GENERATORS))
        raise Unusable(
            f"embeddings by the architecture {printable(architecture)!r} are not supported (only by {known})"
        )
    classes = config.get("architectures")
    for name in classes if isinstance(classes, list) else []:
        if isinstance(name, str) and name.endswith(_CLASSIFIERS):
            raise Unusable(f"it is a classifier or reranker ({printable(name)}), not an embedding model")
    if architecture in GENERATORS - {"gemma3_text"}:
        custom = config.get("auto_map")
        if isinstance(custom, dict) and "AutoModel" in custom:
            raise Unusable("it needs code of its own (auto_map in config.json), which is not run")
        if config.get("is_causal") is False or config.get("use_bidirectional_attention") is True:
            raise Unusable(f"{architecture} models with attention in both directions are not supported")
    elif architecture in ENCODERS:
        _check_bert(config)


def _check_bert(config: Mapping[str, Any]) -> None:
    if config.get("model_type") == "nomic_bert":
        _check_nomic(config)
        return
    if (kind := config.get("position_embedding_type", "absolute")) not in ("absolute", None):
        raise Unusable(f"its position embeddings are of the kind {printable(str(kind))!r}, which is not supported")
    activation = config.get("hidden_activation", config.get("hidden_act", "gelu"))
    if activation not in _PLAIN_GELU:
        raise Unusable(f"its activation is {printable(str(activation))!r}, which is not supported")


def _check_nomic(config: Mapping[str, Any]) -> None:
    """Of the options of Nomic's own code, the values that their embedding models have."""
    expected = {"prenorm": False, "use_rms_norm": False, "rotary_emb_interleaved": False, "rotary_emb_fraction": 1.0}
    expected |= {"qkv_proj_bias": False, "mlp_fc1_bias": False, "mlp_fc2_bias": False, "parallel_block": False}
    for name, value in expected.items():
        if config.get(name, value) not in (value, None):
            raise Unusable(f"its {name} is {printable(str(config[name]))}, which is not supported")
    if (activation := config.get("activation_function", config.get("hidden_act", "silu"))) not in ("swiglu", "silu"):
        raise Unusable(f"its activation is {printable(str(activation))!r}, which is not supported")
    if config.get("num_experts") or config.get("moe_every_n_layers"):
        raise Unusable("NomicBERT with experts is not supported")


def nomic_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A NomicBERT's config under the names of transformers 5, whichever names it has."""
    renamed = {ours: config[theirs] for theirs, ours in _NOMIC_NAMES.items() if theirs in config}
    if "rotary_emb_base" in config:
        renamed["rope_parameters"] = {"rope_theta": config["rotary_emb_base"]}
    return renamed | dict(config)


def _modules(directory: Path) -> tuple[str, tuple[Step, ...]]:
    """The folder of the pooling, and what follows it, of the modules that sentence-transformers lists."""
    path = directory / _MODULES
    if not path.is_file():
        return "1_Pooling", ()
    pooling, steps = "1_Pooling", list[Step]()
    for module in _read_list(path):
        kind = str(module.get("type", "")).rpartition(".")[2]
        folder = _inside(module.get("path"))
        if not str(module.get("type", "")).startswith("sentence_transformers."):
            raise Unusable(f"{_MODULES} names a module of its own code: {printable(str(module.get('type')))}")
        if kind == "Pooling":
            pooling = folder
        elif kind == "Dense":
            steps.append(_dense(directory / folder))
        elif kind == "Normalize":
            steps.append(Step("normalize"))
        elif kind != "Transformer":
            raise Unusable(f"{_MODULES} names a module that is not supported: {printable(kind)}")
    return pooling, tuple(steps)


def _read_list(path: Path) -> list[Mapping[str, Any]]:
    """The list of objects that ``modules.json`` holds."""
    found = read_json_value(path, _MODULES)
    if not isinstance(found, list) or not all(isinstance(module, dict) for module in found):
        raise Unusable(f"{_MODULES} is not a list of modules")
    return found


def _inside(path: object) -> str:
    """A folder's name from a file, which must not lead elsewhere."""
    if not isinstance(path, str) or "/" in path or "\\" in path or path == "..":
        raise Unusable(f"{_MODULES} names a folder outside the model's directory")
    return path


def _dense(folder: Path) -> Step:
    config = read_json(folder / "config.json", f"{folder.name}/config.json")
    name = str(config.get("activation_function", "torch.nn.modules.activation.Tanh")).rpartition(".")[2]
    if name not in _ACTIVATIONS:
        raise Unusable(f"{folder.name} has the activation {printable(name)!r}, which is not supported")
    weights = folder / "model.safetensors"
    if not weights.is_file():
        only_pickle = (folder / "pytorch_model.bin").is_file()
        raise Unusable(f"{folder.name} has only pickle weights" if only_pickle else f"{folder.name} has no weights")
    return Step("dense", weights, _ACTIVATIONS[name])


def _pooling(path: Path) -> tuple[str, ...]:
    """What the file names, in the order of ``POOLINGS``; empty without a file."""
    if not path.is_file():
        return ()
    config = read_json(path, f"{path.parent.name}/config.json")
    if isinstance(mode := config.get("pooling_mode"), str | list):
        named = [mode] if isinstance(mode, str) else mode
        wanted = {_POOLING_NAMES.get(str(name), str(name)) for name in named}
    else:
        wanted = {name for key, name in _POOLING_KEYS.items() if config.get(key) is True}
    if unknown := wanted - set(POOLINGS):
        raise Unusable(f"its pooling is {printable(min(unknown))!r}, which is not supported")
    return tuple(name for name in POOLINGS if name in wanted)


def _context(architecture: str, config: Mapping[str, Any], settings: Mapping[str, Any]) -> int:
    """What sentence-transformers limits it to, within what its positions allow."""
    positions = context_length(nomic_config(config) if architecture == "nomic_bert" else config)
    if architecture in ("roberta", "xlm-roberta", "camembert", "mpnet") and positions:
        padding = config.get("pad_token_id", 1)
        positions -= 1 + (padding if isinstance(padding, int) and 0 <= padding < positions - 1 else 1)
    limit = integer(settings, "max_seq_length")
    return min(limit, positions) if limit and positions else limit or positions


def _optional(directory: Path, name: str) -> Mapping[str, Any]:
    return read_json(directory / name, name) if (directory / name).is_file() else {}
