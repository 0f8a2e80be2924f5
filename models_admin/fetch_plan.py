"""What is fetched from where, and where to. For the child only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub.hf_api import ModelInfo, RepoSibling

from models_admin import synced
from models_admin.fetch_hash import Signature, Wished
from models_admin.fetch_names import COMMIT, is_weights, parse_wanted, take
from models_admin.fetch_repair import Known
from models_admin.job_child import JobError
from models_admin.manifest import read_manifest
from models_admin.scan import is_model

_MAX_FILES = 2000


@dataclass(frozen=True, slots=True)
class Plan:
    """What is fetched from where, and where to. ``partial`` becomes ``target`` at the end."""

    repo: str
    commit: str
    files: list[Wished]
    target: Path
    partial: Path

    @property
    def total(self) -> int:
        """In bytes."""
        return sum(file.size for file in self.files)

    def result(self, *, already: bool = False) -> dict[str, Any]:
        about = {"path": str(self.target), "repo": self.repo, "revision": self.commit, "bytes": self.total}
        return about | {"already_downloaded": already}


def make_plan(info: ModelInfo, asked: str, models: Path) -> Plan:
    """Choose the files. The Hub's answer is not trusted: names and sizes are checked before they become paths."""
    repo = parse_wanted(info.id or asked).repo
    commit = info.sha or ""
    if not COMMIT.fullmatch(commit):
        raise JobError(f"The Hub named no commit for {repo}.", code="hub_error")
    siblings = {sibling.rfilename: sibling for sibling in info.siblings or []}
    names = take(siblings)
    if not any(is_weights(name) for name in names):
        raise JobError(
            f"{repo} has no safetensors weights, so it cannot be used here; look for an MLX version of the model, such "
            "as mlx-community has them.",
            code="unsupported_model",
        )
    if "config.json" not in names:
        raise JobError(f"{repo} has no config.json, so nothing says what model it is.", code="unsupported_model")
    if len(names) > _MAX_FILES:
        raise JobError(f"{repo} has more than {_MAX_FILES} files.", code="unsupported_model")
    directory = models / repo
    _check_place(directory, repo)
    files = [_wished(repo, siblings[name]) for name in names]
    return Plan(repo, commit, files, directory / commit, directory / f".{commit}.partial")


def _check_place(directory: Path, repo: str) -> None:
    """Below a model no other is found, and with it all that is below is deleted."""
    for place in (directory.parent.parent, directory.parent, directory):
        if is_model(place):
            raise JobError(
                f"{repo} cannot be downloaded: {place} is a model itself, as there are config.json or weights directly "
                "in it. Move it, or delete it, and then resume the download.",
                code="name_taken",
                details={"path": str(place)},
            )


def _wished(repo: str, sibling: RepoSibling) -> Wished:
    size = sibling.lfs.size if sibling.lfs else sibling.size
    signature = Signature(sibling.lfs.sha256, "sha256") if sibling.lfs else Signature(sibling.blob_id or "", "git")
    if not isinstance(size, int) or size < 0 or not signature.is_sound():
        raise JobError(f"The Hub does not say size and hash of {sibling.rfilename} in {repo}.", code="hub_error")
    return Wished(sibling.rfilename, size, signature)


def is_whole(plan: Plan, known: Known) -> bool:
    """The model is in its place, with the sizes that its manifest and the Hub name, and no file is known to be bad."""
    if read_manifest(plan.target) is None:
        return False
    return all(size_of(plan.target / file.name) == file.size and not known.is_bad(file.name) for file in plan.files)


def part_of(partial: Path, file: Wished) -> Path:
    """Where a file grows."""
    return partial / f"{file.name}.part"


def on_disk(partial: Path, file: Wished) -> int:
    """Bytes that need not be fetched again."""
    if size_of(partial / file.name) == file.size:
        return file.size
    part = synced.trusted(part_of(partial, file))
    return part if part <= file.size else 0


def size_of(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None
