"""The job program that fetches a model from the Hub: resolve, choose, check the space, download, verify, rename.

Parameters: ``models`` (the directory that gets ``org/name/<commit>/``), ``repo``, ``revision``, ``keep_free`` (bytes
that must stay free on the disk), ``lock_patience_s`` (how long to wait for another fetch of it to end), ``checked`` (by
path of a model and name of a file, what reading it has shown: ``size``, ``mtime_ns``, ``sound``). Phases: ``resolve``,
``check`` (see ``fetch_repair``), ``download`` (bytes of the whole; the hashes are taken on the way). Everything is
written below ``org/name/.<commit>.partial/``, where a scan does not look: ``NAME.part`` while it grows, ``NAME`` once
it is whole, synced and has the Hub's hash. A run that is cut off goes on from there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Before huggingface_hub is imported, which reads them once.
os.environ |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}

from filelock import Timeout
from huggingface_hub import HfApi, constants, get_hf_file_metadata, hf_hub_url
from huggingface_hub.file_download import http_get  # the only thing there that can resume; see test_fetch.py
from huggingface_hub.hf_api import ModelInfo, RepoSibling
from huggingface_hub.utils import build_hf_headers

from models_admin.fetch_hash import PartFile, Signature, Wished
from models_admin.fetch_lock import locked
from models_admin.fetch_names import COMMIT, is_weights, parse_wanted, take
from models_admin.fetch_place import put_back, take_place
from models_admin.fetch_repair import Known, keep_good
from models_admin.fetch_words import explained
from models_admin.job_child import JobError, Reporter, run_job
from models_admin.manifest import NAME as MANIFEST
from models_admin.manifest import FileEntry, Manifest, read_manifest, sync, write_manifest

_METADATA_TIMEOUT_S = 20.0
_MAX_FILES = 2000
_SOURCE = "huggingface"

# What the library holds back before it writes, 10 MiB: lost at every kill, and a progress that stands and jumps.
constants.DOWNLOAD_CHUNK_SIZE = 1 << 20


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


def fetch(params: dict[str, Any], report: Reporter) -> dict[str, Any]:
    """Fetch the model; see ``Plan.result``. Raises ``JobError`` with one sentence and a code."""
    models = Path(params["models"])
    report("resolve")
    with explained(params["repo"], params["revision"]):
        info = HfApi().model_info(
            params["repo"], revision=params["revision"], files_metadata=True, timeout=_METADATA_TIMEOUT_S
        )
        plan = make_plan(info, params["repo"], models)
        known = Known(plan.target, params["checked"].get(str(plan.target), {}))
        if is_whole(plan, known):
            return plan.result(already=True)
        if info.gated:
            get_hf_file_metadata(_url(plan, plan.files[0]), timeout=_METADATA_TIMEOUT_S)
    plan.partial.mkdir(parents=True, exist_ok=True)
    with _alone(plan, params["lock_patience_s"]):
        put_back(plan.target)
        if is_whole(plan, known):  # by another process, meanwhile, or put back
            with contextlib.suppress(OSError):
                plan.partial.rmdir()
            return plan.result(already=True)
        keep_good(plan.files, plan.partial, known, lambda done: report("check", done, plan.total))
        have = sum(_on_disk(plan.partial, file) for file in plan.files)
        _check_space(plan, have, params["keep_free"])
        report("download", have, plan.total)
        with explained(plan.repo, plan.commit):
            entries = _download(plan, have, params["keep_free"], report)
        _finish(plan, entries)
    return plan.result()


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
    files = [_wished(repo, siblings[name]) for name in names]
    return Plan(repo, commit, files, directory / commit, directory / f".{commit}.partial")


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
    return all(_size(plan.target / file.name) == file.size and not known.is_bad(file.name) for file in plan.files)


@contextlib.contextmanager
def _alone(plan: Plan, patience_s: float) -> Iterator[None]:
    """One fetch at a time per model and revision, also of other servers on the same directory."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(plan.target, patience_s))
        except Timeout:
            raise JobError(f"Another process is fetching {plan.repo} into {plan.target.parent}.", code="busy") from None
        yield


def _check_space(plan: Plan, have: int, keep_free: int) -> None:
    free, needed = shutil.disk_usage(plan.partial).free, plan.total - have
    if free - keep_free < needed:
        raise JobError(
            f"{plan.repo} needs {needed} more bytes in {plan.target.parent}, but {free} are free there and "
            f"{keep_free} of them must stay free. Free some space and start it again.",
            code="insufficient_storage",
            details={"needed_bytes": needed, "free_bytes": free, "keep_free_bytes": keep_free},
        )


def _download(plan: Plan, have: int, keep_free: int, report: Reporter) -> dict[str, FileEntry]:
    """Bring every file; returns what the manifest says of those that lie directly in the model's directory."""
    done, entries = have, dict[str, FileEntry]()

    def on_bytes(more: int) -> None:
        nonlocal done
        done += more
        report("download", done, plan.total)

    for file in plan.files:
        sha256 = _bring(plan, file, keep_free, on_bytes)
        if "/" not in file.name:
            entries[file.name] = FileEntry(file.size, sha256)
    return entries


def _bring(plan: Plan, file: Wished, keep_free: int, on_bytes: Callable[[int], None]) -> str:
    """One file, from where it stopped; returns its SHA-256. What is whole already was verified before it was named."""
    final = plan.partial / file.name
    if _size(final) == file.size:
        return file.signature.of_whole(final)
    final.unlink(missing_ok=True)
    final.parent.mkdir(exist_ok=True)
    part = _part(plan.partial, file)
    with PartFile.open(part, file.size, on_bytes, keep_free) as growing:
        if growing.tell() < file.size:
            http_get(
                _url(plan, file),
                growing,
                resume_size=growing.tell(),
                headers=build_hf_headers(),
                # Above this it refuses to ask at all; how much comes is checked by the hash as well.
                expected_size=file.size if file.size <= constants.MAX_HTTP_DOWNLOAD_SIZE else None,
            )
        growing.sync()
        sound, sha256 = growing.matches(file.signature), growing.sha256()
    if not sound:
        part.unlink()
        raise JobError(
            f"{file.name} of {plan.repo} arrived with another hash than the Hub names and was deleted; the other files "
            "are kept. Start it again.",
            code="hash_mismatch",
            details={"file": file.name},
        )
    part.rename(final)
    return sha256


def _finish(plan: Plan, entries: dict[str, FileEntry]) -> None:
    """Sign, and give the directory its name."""
    wanted = {file.name for file in plan.files}
    for left in [path for path in plan.partial.rglob("*") if path.is_file()]:
        if left.relative_to(plan.partial).as_posix() not in wanted:
            left.unlink()
    write_manifest(plan.partial, Manifest(_SOURCE, plan.repo, plan.commit, entries, f"{plan.repo} at the Hub"))
    for path in (plan.partial / MANIFEST, plan.partial):
        sync(path)
    take_place(plan.partial, plan.target, wanted)


def _url(plan: Plan, file: Wished) -> str:
    return str(hf_hub_url(plan.repo, file.name, revision=plan.commit))


def _part(partial: Path, file: Wished) -> Path:
    return partial / f"{file.name}.part"


def _on_disk(partial: Path, file: Wished) -> int:
    """Bytes that need not be fetched again."""
    if _size(partial / file.name) == file.size:
        return file.size
    part = _size(_part(partial, file)) or 0
    return part if part <= file.size else 0


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


if __name__ == "__main__":
    run_job(fetch)
