"""The job program that fetches a model from the Hub: resolve, choose, check the space, download, verify, rename.

Parameters: ``models`` (the directory that gets ``org/name/<commit>/``), ``repo``, ``revision``, ``commit`` (what the
revision meant when it was first asked, if it was), ``keep_free`` (bytes that must stay free on the disk),
``lock_patience_s`` (how long to wait for another fetch of it to end), ``patience`` (see ``fetch_retry.Patience``),
``checked`` (by path of a model and name of a file, what reading it has shown: ``size``, ``mtime_ns``, ``sound``).

Phases: ``resolve``, ``check`` (see ``fetch_repair``), ``download`` (bytes of the whole; the hashes are taken on the
way). Everything is written below ``org/name/.<commit>.partial/``, where a scan does not look: ``NAME.part`` while it
grows, ``NAME`` once it is whole, synced and has the Hub's hash. A run that is cut off goes on from there.

Parts of the result: ``commit`` as soon as it is known; before the first byte ``files`` (name, size, bytes that are
there; the largest ``FILES_TOLD``), ``done``, ``missing`` and ``free`` bytes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Before huggingface_hub is imported, which reads them once.
os.environ |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}

from filelock import Timeout
from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url

from models_admin import synced
from models_admin.fetch_hash import PartFile, Wished, WrongContent
from models_admin.fetch_http import receive
from models_admin.fetch_links import take_over, take_parts
from models_admin.fetch_lock import locked
from models_admin.fetch_place import put_back, take_place
from models_admin.fetch_plan import Plan, is_whole, make_plan, on_disk, part_of, size_of
from models_admin.fetch_repair import Known, keep_good
from models_admin.fetch_retry import Patience
from models_admin.fetch_words import explained
from models_admin.job_child import JobError, Reporter, run_job
from models_admin.job_words import amount
from models_admin.manifest import NAME as MANIFEST
from models_admin.manifest import FileEntry, Manifest, sync, write_manifest

FILES_TOLD = 200
_METADATA_TIMEOUT_S = 20.0
_SOURCE = "huggingface"


def fetch(params: dict[str, Any], report: Reporter) -> dict[str, Any]:
    """Fetch the model; see ``Plan.result``. Raises ``JobError`` with one sentence and a code."""
    return _Fetch(params, report).run()


class _Fetch:
    """One run. ``brought`` counts the bytes that came over the wire."""

    def __init__(self, params: dict[str, Any], report: Reporter) -> None:
        self._params, self._report = params, report
        self._repo, self._pinned = params["repo"], params.get("commit")
        self._keep_free = params["keep_free"]
        self._brought = self._done = 0
        self._phase, self._gated = "resolve", False
        self._plan: Plan | None = None
        first_s, most_s, give_up_s = params["patience"]
        self._patiently = Patience(first_s, most_s, give_up_s, self._say, lambda: self._brought)

    def run(self) -> dict[str, Any]:
        self._report(self._phase)
        plan = self._plan = self._resolve()
        known = Known(plan.target, self._params["checked"].get(str(plan.target), {}))
        if is_whole(plan, known):
            return plan.result(already=True)
        self._check_gate(plan)
        plan.partial.mkdir(parents=True, exist_ok=True)
        with _alone(plan, self._params["lock_patience_s"]):
            put_back(plan.target)
            if is_whole(plan, known):  # by another process, meanwhile, or put back
                with contextlib.suppress(OSError):
                    plan.partial.rmdir()
                return plan.result(already=True)
            keep_good(plan.files, plan.partial, known, lambda done: self._report("check", done, plan.total))
            checked = self._params["checked"]
            take_over(plan.files, plan.partial, checked, lambda done: self._report("check", done, plan.total))
            take_parts(plan.files, plan.partial)
            self._begin(plan)
            with explained(plan.repo, plan.commit, pinned=True):
                entries = {file.name: FileEntry(file.size, self._bring(plan, file)) for file in plan.files}
            _finish(plan, entries)
        return plan.result()

    def _resolve(self) -> Plan:
        """What there is at the Hub: of the commit that was found first, whatever the branch is by now."""
        wanted = self._pinned or self._params["revision"]
        with explained(self._repo, wanted, pinned=self._pinned is not None):
            info = self._patiently(
                lambda: HfApi().model_info(
                    self._repo, revision=wanted, files_metadata=True, timeout=_METADATA_TIMEOUT_S
                )
            )
            plan = make_plan(info, self._repo, Path(self._params["models"]))
        self._gated = bool(info.gated)
        self._report.part({"commit": plan.commit})
        return plan

    def _check_gate(self, plan: Plan) -> None:
        """A gated model says what it is to everybody, and gives its files to few."""
        if self._gated:
            with explained(plan.repo, plan.commit, pinned=True):
                url = _url(plan, plan.files[0])
                self._patiently(lambda: get_hf_file_metadata(url, timeout=_METADATA_TIMEOUT_S))

    def _begin(self, plan: Plan) -> None:
        """Say what is there and what is missing, and refuse where there is no room for it."""
        have = {file.name: on_disk(plan.partial, file) for file in plan.files}
        self._phase, self._done = "download", sum(have.values())
        free, missing = shutil.disk_usage(plan.partial).free, plan.total - self._done
        told = sorted(plan.files, key=lambda file: -file.size)[:FILES_TOLD]
        self._report.part(
            {
                "files": [[file.name, file.size, have[file.name]] for file in told],
                "done": self._done,
                "missing": missing,
                "free": free,
            }
        )
        if free - self._keep_free < missing:
            raise JobError(
                f"{plan.repo} needs {amount(missing)} more, but {amount(free)} are free on the disk of "
                f"{self._params['models']} and {amount(self._keep_free)} of them must stay free. Free some space and "
                "resume it.",
                code="insufficient_storage",
                details={"needed_bytes": missing, "free_bytes": free, "keep_free_bytes": self._keep_free},
            )
        self._report(self._phase, self._done, plan.total)

    def _bring(self, plan: Plan, file: Wished) -> str:
        """One file; returns its SHA-256. One that is not what the Hub says of it is fetched once more, alone."""
        try:
            return self._try(plan, file)
        except WrongContent as wrong:
            self._say(f"{file.name} {wrong}: it is fetched once more")
        try:
            return self._try(plan, file)
        except WrongContent as wrong:
            raise JobError(
                f"{file.name} of {plan.repo} {wrong}, twice in a row. It was deleted; the other files are kept.",
                code="hash_mismatch",
                details={"file": file.name},
            ) from wrong

    def _try(self, plan: Plan, file: Wished) -> str:
        """From where it stopped. What is whole already was verified before it was named."""
        final, part = plan.partial / file.name, part_of(plan.partial, file)
        if size_of(final) == file.size:
            return file.signature.of_whole(final)
        final.unlink(missing_ok=True)
        final.parent.mkdir(exist_ok=True)
        there = on_disk(plan.partial, file)

        def on_bytes(more: int) -> None:
            nonlocal there
            there += more
            self._done += more
            self._brought += max(0, more)
            self._report(self._phase, self._done, plan.total, file=file.name, file_done=there)

        with PartFile.open(part, file.size, on_bytes, self._keep_free, file.signature.value) as growing:
            try:
                self._patiently(lambda: receive(_url(plan, file), growing, file.size))
                growing.sync()
                if not growing.matches(file.signature):
                    raise WrongContent("arrived with another hash than the Hub names")
                sha256 = growing.sha256()
            except WrongContent:
                growing.truncate()
                part.unlink()
                synced.beside(part).unlink(missing_ok=True)
                raise
        part.rename(final)
        synced.beside(part).unlink(missing_ok=True)
        return sha256

    def _say(self, note: str) -> None:
        """What goes on while nothing comes."""
        total = self._plan.total if self._plan is not None and self._phase == "download" else 0
        self._report(self._phase, self._done if total else 0, total, note=note)


@contextlib.contextmanager
def _alone(plan: Plan, patience_s: float) -> Iterator[None]:
    """One fetch at a time per model and revision, also of other servers on the same directory."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(plan.target, patience_s))
        except Timeout:
            raise JobError(f"Another process is fetching {plan.repo} into {plan.target.parent}.", code="busy") from None
        yield


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


if __name__ == "__main__":
    run_job(fetch)
