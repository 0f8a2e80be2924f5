"""The verdict on a model before it is fetched: from what the Hub says of it and its ``config.json``. Pure.

Memory is judged by the engine (``contract.Engine.memory_fit``), architecture and KV size by the functions that the
catalog has for models on disk: what is promised here is what will be done there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from inference.catalog import ModelKind, ModelRef
from inference.embedding_files import ENCODERS, check_architecture, is_embedding_model
from inference.engine.contract import MemoryFit, Size
from inference.engine.words import gigabytes, short_name
from inference.finding import DiskRoom, HubModel, Verdict, Word
from inference.model_files import Unusable, context_length, printable, text_part
from models_admin.architectures import supported_architectures, unreadable_quantization
from models_admin.facts import quantization_of
from models_admin.kv_size import kv_bytes_per_token

LEAST_CONTEXT = 1024
"""Tokens; with less a model fits on paper only."""

_FORMATS = {
    "gguf": "it is GGUF, which is not loaded as it is: look for an MLX version",
    "pickle": "it has only pickle weights, which are never loaded, as they can run code",
    "other": "it has no safetensors weights",
}
_WIDTHS = {"float32": 4, "float64": 8}


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a model would be on this machine. ``known`` is False where its ``config.json`` was not read."""

    size: Size
    architecture: str = ""
    quantization: str = ""
    kind: ModelKind = "llm"
    problem: str = ""
    known: bool = True


def outlook(model: HubModel, config: Mapping[str, Any] | None, names: Iterable[str] = ()) -> Outlook:
    """``config`` is None where it could not be read; ``names`` are those of its files, where they are known."""
    if problem := _FORMATS.get(model.format):
        return Outlook(Size(model.weight_bytes), model.architecture, model.quantization, problem=problem)
    if config is None:
        return Outlook(Size(model.weight_bytes), model.architecture, model.quantization, known=False)
    text, listed = text_part(config), set(names)
    architecture = config.get("model_type")
    found = Outlook(
        Size(model.weight_bytes, kv_bytes_per_token(text, _width(config)), context_length(text)),
        printable(architecture)[:64] if isinstance(architecture, str) else "",
        quantization_of(config) or model.quantization,
    )
    if "1_Pooling/config.json" in listed:
        listed.add("modules.json")
    if is_embedding_model(Path(), listed, config, model.model_id) or found.architecture in ENCODERS:
        size = replace(found.size, kv_bytes_per_token=0)
        return replace(found, size=size, kind="embeddings", problem=_embedding_problem(found.architecture, config))
    return replace(found, problem=_problem(found.architecture) or unreadable_quantization(config))


def _problem(architecture: str) -> str:
    if not architecture:
        return "config.json does not name an architecture (model_type)"
    supported = supported_architectures()
    if supported is not None and architecture not in supported:
        return f"the installed mlx-lm does not know the architecture {architecture!r}"
    return ""


def _embedding_problem(architecture: str, config: Mapping[str, Any]) -> str:
    try:
        check_architecture(architecture, config)
    except Unusable as problem:
        return str(problem)
    return ""


def _width(config: Mapping[str, Any]) -> int:
    """Bytes of a number in the KV cache, which has the type of the weights as they are computed with."""
    kind = text_part(config).get("dtype") or config.get("torch_dtype")
    return _WIDTHS.get(kind, 2) if isinstance(kind, str) else 2


def of_disk(ref: ModelRef, memory: MemoryFit | None) -> Verdict:
    """The verdict on a model that is here."""
    verdict = Verdict(
        model_id=ref.id,
        source="disk",
        verdict="unknown",
        sentence="",
        revision=ref.revision or "",
        format="mlx",
        architecture=ref.architecture,
        quantization=ref.quantization or "",
        weight_bytes=ref.weight_bytes,
        kv_bytes_per_token=ref.kv_bytes_per_token,
        context_length=ref.context_length,
        supported=ref.problem is None,
        problem=ref.problem or "",
        memory=memory,
    )
    return settled(verdict)


def of_hub(
    model: HubModel,
    found: Outlook,
    memory: MemoryFit | None,
    disk: DiskRoom | None,
    *,
    token: bool,
    readable: bool | None,
) -> Verdict:
    """The verdict on a model of the Hub; who calls adds what is known of it on this machine."""
    verdict = Verdict(
        model_id=model.model_id,
        source="hub",
        verdict="unknown",
        sentence="",
        revision=model.revision,
        format=model.format,
        architecture=found.architecture,
        quantization=found.quantization,
        weight_bytes=found.size.weight_bytes,
        kv_bytes_per_token=found.size.kv_bytes_per_token,
        context_length=found.size.context,
        supported=not found.problem,
        problem=found.problem,
        memory=memory,
        disk=disk,
        gated=model.gated,
        token=token,
        readable=readable,
    )
    return settled(verdict)


def settled(verdict: Verdict) -> Verdict:
    """The verdict with its word and its sentence."""
    word, sentence = _judged(verdict)
    return replace(verdict, verdict=word, sentence=sentence[:1].upper() + sentence[1:])


def _judged(verdict: Verdict) -> tuple[Word, str]:
    memory, disk = verdict.memory, verdict.disk
    if not verdict.supported:
        return "unsupported", f"Cannot be used here: {verdict.problem}."
    if memory is None or not verdict.weight_bytes:
        return "unknown", "Its size is not known."
    known = bool(verdict.kv_bytes_per_token or verdict.context_length)
    word, sentence = _in_memory(memory) if known else _weights_alone(memory)
    if word == "too_large":
        return word, sentence
    if verdict.gated and verdict.readable is False:
        return (
            "gated",
            f"Gated: accept its terms at the Hub{'' if verdict.token else ', then set HF_TOKEN'}. {sentence}",
        )
    if disk is not None and not disk.fits:
        kept = f", of which {gigabytes(disk.keep_free_bytes)} stay free" if disk.keep_free_bytes else ""
        missing = f"{gigabytes(disk.needed_bytes)} to fetch, {gigabytes(disk.free_bytes)} free on the disk{kept}"
        return "disk_full", f"No room on the disk: {missing}. {sentence}"
    return word, sentence


def _in_memory(memory: MemoryFit) -> tuple[Word, str]:
    context, needed = tokens(memory.context), gigabytes(memory.needed_bytes)
    if memory.loaded:
        return "fits", f"It is loaded. With {context} tokens of context it needs {needed}."
    if memory.now.fits:
        return "fits", f"Fits with {context} tokens of context: it needs {needed}, {_free(memory.now.free_bytes)}."
    if memory.alone.fits:
        names = " and ".join(short_name(name) for name in memory.unload) or "what is loaded"
        also = ""
        if (memory.now.max_context or 0) >= LEAST_CONTEXT:
            also = f" Beside it there is room for {tokens(memory.now.max_context or 0)} tokens."
        once = f"once {names} is unloaded: it needs {needed}, {_free(memory.now.free_bytes)}."
        return "fits_after_unloading", f"Fits with {context} tokens of context {once}{also}"
    most = memory.alone.max_context
    if most is not None and most >= LEAST_CONTEXT:
        return (
            "fits_with_less_context",
            f"Fits with at most {tokens(most)} tokens of context: with {context} it needs {needed}, {_limit(memory)}.",
        )
    return "too_large", f"Does not fit: it needs {needed}, {_limit(memory)}."


def _weights_alone(memory: MemoryFit) -> tuple[Word, str]:
    """Where nobody can tell what a token takes, as no config was read."""
    needed = gigabytes(memory.needed_bytes)
    if not memory.alone.fits:
        return "too_large", f"Does not fit: its weights need {needed}, {_limit(memory)}."
    word: Word = "fits" if memory.now.fits else "fits_after_unloading"
    return word, f"Its weights fit ({needed}, {_free(memory.now.free_bytes)}); what its context takes is not known."


def _limit(memory: MemoryFit) -> str:
    others = f", less {gigabytes(memory.others_bytes)} that other programs hold" if memory.others_bytes else ""
    return f"and models may use {gigabytes(memory.limit_bytes)} on this machine{others}"


def _free(size: int) -> str:
    return f"{gigabytes(size)} is free"


def tokens(count: int) -> str:
    """``32k`` for 32,768, ``11k``, ``4,096``: as the pages write tokens."""
    return f"{count / (1000 if count % 1024 else 1024):.0f}k" if count >= 10_000 else f"{count:,}"
