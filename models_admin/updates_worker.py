"""The job program that asks the Hub what it has of models that are here. Nothing is downloaded but names and hashes.

Parameter ``models``: each with ``repo``, ``path`` and ``revision`` (a commit, or empty where nobody knows it), and
``hashes`` (by file, the SHA-256 that reading it has shown). Phase: ``compare`` (models). Each model is a part of the
result: ``path`` with ``commit``, ``files`` (``name``, ``bytes``, ``change``: those of the Hub that are not here) and
``removed`` (names that are here alone); where no revision is known also ``same`` (names of files that are the Hub's);
or with ``problem`` and ``code``. Raises ``JobError`` when the Hub cannot be reached.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Before huggingface_hub is imported, which reads them once.
os.environ |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}

from huggingface_hub import HfApi

from models_admin.fetch_hash import Wished
from models_admin.fetch_plan import make_plan
from models_admin.fetch_words import explained
from models_admin.job_child import JobError, Reporter, run_job
from models_admin.manifest import read_manifest

_TIMEOUT_S = 20.0
_BRANCH = "main"
_MOST_READ = 64 << 20
"""Bytes: a larger file of which no hash is known is not read for this; a verification does."""

_SILENCES = 3
"""Models in a row for which the Hub did not answer, after which it is not asked for the others."""


def compare(params: dict[str, Any], report: Reporter) -> dict[str, Any]:
    """Ask for one model after the other. Raises the Hub's silence if it answered for none, or not for some in a row."""
    models, heard, silent = params["models"], 0, 0
    report("compare", 0, len(models), "models")
    for asked, model in enumerate(models, start=1):
        try:
            part = look(model)
            heard, silent = heard + 1, 0
        except JobError as error:
            silent = silent + 1 if error.code == "hub_unreachable" else 0
            if silent and (not heard or silent >= _SILENCES):
                raise
            part = {"path": model["path"], "problem": str(error), "code": error.code}
        report.part(part)
        report("compare", asked, len(models), "models")
    return {"models": len(models), "answered": heard}


def look(model: Mapping[str, Any]) -> dict[str, Any]:
    """What the Hub's branch has of it, beside what is here."""
    repo, directory = model["repo"], Path(model["path"])
    with explained(repo, _BRANCH):
        info = HfApi().model_info(repo, revision=_BRANCH, files_metadata=True, timeout=_TIMEOUT_S)
        plan = make_plan(info, repo, directory.parent)
    told: dict[str, Any] = {"path": str(directory), "commit": plan.commit, "files": [], "removed": []}
    if plan.commit == model["revision"]:
        return told
    hashes = {**_signed(directory), **model["hashes"]}
    same = [file.name for file in plan.files if _is_same(directory / file.name, file, hashes.get(file.name))]
    if not model["revision"]:
        told["same"] = same
    for file in plan.files:
        if file.name not in same:
            change = "changed" if os.path.isfile(directory / file.name) else "new"
            told["files"].append({"name": file.name, "bytes": file.size, "change": change})
    wanted = {file.name for file in plan.files}
    told["removed"] = sorted(name for name in _signed(directory) if name not in wanted)
    return told


def _signed(directory: Path) -> dict[str, str]:
    manifest = read_manifest(directory)
    return {name: entry.sha256 for name, entry in manifest.files.items()} if manifest else {}


def _is_same(path: Path, file: Wished, sha256: str | None) -> bool:
    """Whether the file here is the Hub's, by what is known of it, or where it is small by reading it."""
    try:
        if path.stat().st_size != file.size:
            return False
        if file.signature.kind == "sha256" and sha256:
            return sha256 == file.signature.value
        return file.size <= _MOST_READ and path.is_file() and file.signature.matches(path)
    except OSError:
        return False


if __name__ == "__main__":
    run_job(compare)
