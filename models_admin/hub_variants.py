"""Which of a model's quantizations is meant. At the Hub each is a repository of its own, named after the others.
Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from models_admin.lmstudio_names import QUANTIZATION_SUFFIX

DEFAULT_PREFERENCE = ("4bit", "6bit", "8bit")


@dataclass(frozen=True, slots=True)
class Choice:
    """The variant that is taken, and why, in a sentence; "" where there is none to take."""

    model_id: str
    why: str


def stem(repo: str) -> str:
    """A repository's name without its quantization: ``mlx-community/Qwen3-4B`` of ``mlx-community/Qwen3-4B-4bit``."""
    return QUANTIZATION_SUFFIX.sub("", repo)


def names_quantization(repo: str) -> bool:
    return stem(repo) != repo


def siblings(repo: str, others: Iterable[str]) -> list[str]:
    """Those of ``others`` that are the same model as ``repo`` by the same author, in another quantization or none."""
    wanted = stem(repo).lower()
    return sorted({other for other in others if stem(other).lower() == wanted})


def choose(
    quantizations: Mapping[str, str], preference: Sequence[str], fitting: Mapping[str, bool] | None = None
) -> Choice:
    """One of the repositories, by their quantization: the first preferred that fits, else the first preferred.

    ``fitting`` says of each whether it fits this machine; without it all count as fitting. Where none has a preferred
    quantization, it is the first by name that fits.
    """
    fits = fitting if fitting is not None else dict.fromkeys(quantizations, True)
    ordered = [
        (wanted, repo) for wanted in preference for repo in sorted(quantizations) if _same(quantizations[repo], wanted)
    ]
    listed = ", ".join(preference)
    for position, (wanted, repo) in enumerate(ordered):
        if fits.get(repo):
            passed = [other for other, _ in ordered[:position] if other != wanted]
            why = f"{wanted} is the first of models.quantization_preference ({listed}) that there is"
            if passed:
                why = f"{' and '.join(dict.fromkeys(passed))} would be preferred and does not fit here; {wanted} does"
            return Choice(repo, why + ".")
    if ordered:
        wanted, repo = ordered[0]
        return Choice(repo, f"{wanted} is preferred, but none of the preferred ones ({listed}) fits here.")
    for repo in sorted(quantizations):
        if fits.get(repo):
            return Choice(repo, f"There is none of models.quantization_preference ({listed}); this one fits.")
    return Choice("", "")


def with_quantization(quantizations: Mapping[str, str], wanted: str) -> str:
    """The repository of that quantization; "" where there is none."""
    return next((repo for repo in sorted(quantizations) if _same(quantizations[repo], wanted)), "")


def _same(one: str, other: str) -> bool:
    return _plain(one) == _plain(other)


def _plain(name: str) -> str:
    """``4-bit``, ``4bit``, ``Q4`` and ``int4`` are one; ``fp16`` is ``f16``."""
    text = name.lower().replace("-", "").replace("_", "")
    if bits := re.fullmatch(r"(?:q|int)?([2-9])(?:bits?)?", text):
        return f"{bits.group(1)}bit"
    return {"fp16": "f16", "fp32": "f32", "float16": "f16", "bfloat16": "bf16"}.get(text, text)
