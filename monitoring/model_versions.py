"""What a model's page tells of its revisions, and of what can be made of it."""

from __future__ import annotations

from typing import Any

from inference.api.deps import catalog, services
from inference.catalog import ModelRef
from inference.keeping import Kept

BITS = (4, 6, 8, 3)
_HERE = ("adopted", "verified")


def versions(ref: ModelRef) -> dict[str, Any]:
    """``kept`` as the updater tells it, ``others`` of the same repository, ``bits`` a conversion may have."""
    updater = services().updater
    [kept] = updater.kept([ref]) if updater is not None else [Kept()]
    repo = repo_of(ref)
    others = [one for one in catalog().all() if one.path != ref.path and repo_of(one) == repo] if repo else []
    told = dict(zip((one.path for one in others), updater.kept(others) if updater is not None else [], strict=False))
    return {
        "from_hub": ref.source == "huggingface" and bool(ref.revision),
        "kept": kept,
        "bare_name": repo or ref.id,
        "others": [{"ref": one, "kept": told.get(one.path, Kept())} for one in others],
        "bits": BITS if ref.kind == "llm" and ref.disk_state in _HERE and ref.problem is None else (),
    }


def repo_of(ref: ModelRef) -> str:
    """The repository that a revision belongs to; empty for a model that is no revision of one."""
    return ref.id.split("@", 1)[0].split(":", 1)[0] if ref.revision else ""
