"""The names by which LM Studio's clients know the models in its folders. Pure; no disk.

Two kinds. *Told* keys are what LM Studio itself wrote into its index. *Derived* ones follow its habit, for where it
wrote nothing: the repository's name in lower case without its quantization, ``qwen2.5-7b-instruct-mlx`` of
``lmstudio-community/Qwen2.5-7B-Instruct-MLX-4bit``; with the publisher before it, or ``@4bit`` behind it to tell
variants apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from inference.catalog import ModelRef

EMBEDDING_PREFIX = "text-embedding-"
"""LM Studio puts it before the names of embedding models."""

QUANTIZATION_SUFFIX = re.compile(r"-(\d+bit|bf16|f16|fp16|f32|mxfp4|[a-z]*fp8)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class StudioNames:
    """``told`` and ``derived`` lead from a key in lower case to a model's id, ``shown`` from an id to its best keys."""

    told: dict[str, str] = field(default_factory=dict)
    derived: dict[str, str] = field(default_factory=dict)
    shown: dict[str, list[str]] = field(default_factory=dict)


def studio_names(models: Iterable[tuple[str, ModelRef]], keys: Mapping[str, tuple[str, ...]]) -> StudioNames:
    """Who has which key, of (repository, model) pairs and LM Studio's keys by repository in lower case.

    Of several models for one key the first by repository and path has it, whether its volume is mounted or not, so that
    a name never moves for a reason that passes; a model whose directory is gone comes last.
    """
    names = StudioNames()
    ours = [(repo, ref) for repo, ref in models if ref.source == "lmstudio"]
    ours.sort(key=lambda pair: (pair[1].disk_state == "absent", pair[0].lower(), str(pair[1].path)))
    for repo, ref in ours:
        for key in keys.get(repo.lower(), ()):
            if names.told.setdefault(key.lower(), ref.id) == ref.id:
                names.shown.setdefault(ref.id, []).append(key)
    for repo, ref in ours:
        told = keys.get(repo.lower(), ())
        stem = _stem(repo)
        best = [stem] if ref.kind != "embeddings" else [EMBEDDING_PREFIX + stem.removeprefix(EMBEDDING_PREFIX), stem]
        best += [key.lower() for key in told if "@" not in key]
        publisher, slash, _ = repo.lower().partition("/")
        wide = [f"{publisher}/{stem}", repo.lower()] if slash else []
        for key in [*best, *wide]:
            for name in (key, *([f"{key}@{ref.quantization.lower()}"] if ref.quantization else [])):
                if names.derived.setdefault(name, ref.id) == ref.id and not told and key == best[0]:
                    names.shown.setdefault(ref.id, []).append(name)
    return names


def _stem(repo: str) -> str:
    return QUANTIZATION_SUFFIX.sub("", repo.rsplit("/", 1)[-1]).lower()
