"""What may be asked of the Hub and what is taken from there: names of repositories, revisions and files. Pure."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from inference.errors import InvalidRequest
from inference.hub_names import is_repo

HUB = "https://huggingface.co"
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")
COMMIT = re.compile(r"[0-9a-f]{40}")

_FILE_PART = r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,200}"
_WANTED = (
    re.compile(rf"{_FILE_PART}\.(safetensors|json|jinja|model|tiktoken)"),
    re.compile(r"(merges|vocab|spiece|sentencepiece[\w.]*)\.(txt|model)"),
    re.compile(r"(LICENSE|LICENSE\.(txt|md)|README\.md)"),
    re.compile(rf"additional_chat_templates/{_FILE_PART}\.jinja"),
    re.compile(rf"[0-9]_[A-Za-z]{{1,64}}/{_FILE_PART}\.(safetensors|json)"),  # sentence-transformers' modules
)
_OWN = "lmx-manifest.json"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A model of the Hub as it was asked for; ``revision`` is a branch, a tag or a commit."""

    repo: str
    revision: str = "main"

    @property
    def key(self) -> tuple[str, str]:
        """The same for two ways to ask for the same."""
        return self.repo.lower(), self.revision


def endpoint() -> str:
    """The Hub's address, or that of its mirror: ``HF_ENDPOINT``."""
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or HUB


def parse_wanted(repo: str, revision: str | None = None, quantization: str | None = None) -> Wanted:
    """``org/name``, ``org/name@revision``, or an address at the Hub. Raises ``InvalidRequest`` naming the parameter."""
    name, inner = _from_address(repo.strip()) if "://" in repo else _split_revision(repo.strip())
    if revision is not None and inner is not None and revision != inner:
        raise InvalidRequest(f"model_id names the revision {inner[:80]!r} and revision another", param="revision")
    chosen = revision if revision is not None else inner or "main"
    if not is_repo(name):
        raise InvalidRequest(
            f"{name[:120]!r} is not the name of a model at the Hub: write org/name, as in mlx-community/Qwen3-4B-4bit",
            param="model_id",
        )
    if not _REVISION.fullmatch(chosen) or ".." in chosen or "//" in chosen or chosen.endswith(("/", ".lock")):
        raise InvalidRequest(f"{chosen[:120]!r} is not a branch, tag or commit", param="revision")
    if quantization is not None and not name.lower().endswith("-" + quantization.lower()):
        raise InvalidRequest(
            f"a model's quantizations are repositories of their own at the Hub: name that of {quantization[:40]!r} "
            "in model_id, such as mlx-community/Qwen3-4B-4bit",
            code="unsupported_parameter",
            param="quantization",
        )
    return Wanted(name, chosen)


def _split_revision(text: str) -> tuple[str, str | None]:
    name, at, revision = text.partition("@")
    return name, revision if at else None


def _from_address(address: str) -> tuple[str, str | None]:
    """``https://huggingface.co/org/name[/tree/revision]``; no other host than the Hub's is ever asked."""
    try:
        parts = urlsplit(address)
        known = {urlsplit(HUB).netloc, urlsplit(endpoint()).netloc}
    except ValueError:
        raise InvalidRequest("model_id is not an address", param="model_id") from None
    if parts.scheme not in ("https", "http") or parts.netloc not in known:
        raise InvalidRequest(
            f"models are fetched from {endpoint()} only: write org/name, or the address of a model there",
            param="model_id",
        )
    steps = unquote(parts.path).strip("/").split("/")
    if len(steps) > 3 and steps[2] == "tree":
        return "/".join(steps[:2]), "/".join(steps[3:])
    return "/".join(steps), None


def take(names: Iterable[str]) -> list[str]:
    """The files that a model needs, small kinds first. Never code, pickles, or a name that could leave the directory.

    Where the same weights are there twice (Mistral's ``consolidated``), the Hub's usual names are taken.
    """
    taken = [name for name in names if name != _OWN and any(kind.fullmatch(name) for kind in _WANTED)]
    weights = [name for name in taken if is_weights(name)]
    if any(not name.startswith("consolidated") for name in weights):
        taken = [name for name in taken if not name.startswith("consolidated")]
    return sorted(taken, key=lambda name: (is_weights(name), name))


def is_weights(name: str) -> bool:
    """Whether a file that is taken holds the model's own weights."""
    return name.endswith(".safetensors") and "/" not in name
