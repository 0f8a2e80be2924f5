"""``Updates``: asks the Hub for newer revisions, and fetches them. Implements ``inference.keeping.Updater``."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from inference.catalog import ModelRef
from inference.errors import Conflict, InvalidRequest, LmxError, ModelNotFound, ModelUnavailable
from inference.fetching import JobStatus
from inference.keeping import Kept, Looked, RolledBack, Updated, UpdateWord
from inference.models_on_disk import Removal
from inference.records import EventSink
from models_admin.catalog import DiskCatalog
from models_admin.decisions import Decisions, key_of
from models_admin.fetch_names import COMMIT, endpoint, parse_wanted
from models_admin.file_checks import Checked
from models_admin.job_runner import JobFailed
from models_admin.jobs import Jobs
from models_admin.revisions import Revisions
from models_admin.row import Row
from models_admin.update_words import update_of

log = logging.getLogger(__name__)

PROGRAM = "models_admin.updates_worker"
_FROM_HUB = "huggingface"
_MATCHED = ("local", "lmstudio")
_OWN_ORG = "local/"
_TRUE = frozenset({"1", "on", "yes", "true"})


class _Fetcher(Protocol):
    async def start(self, repo: str, *, exact: bool = False) -> JobStatus: ...

    async def wait(self, job: int) -> JobStatus: ...


class _Keeper(Protocol):
    async def delete(
        self, model_id: str, *, dry_run: bool = False, forget: bool = False, path: str | None = None
    ) -> Removal: ...


def is_offline() -> bool:
    """Whether the environment forbids asking the Hub."""
    return any(os.environ.get(name, "").lower() in _TRUE for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))


class Updates:
    """``keeper`` says what deleting an old revision would free."""

    def __init__(
        self,
        jobs: Jobs,
        catalog: DiskCatalog,
        decisions: Decisions,
        revisions: Revisions,
        fetcher: _Fetcher,
        keeper: _Keeper,
        events: EventSink,
    ) -> None:
        self._jobs, self._catalog, self._decisions, self._revisions = jobs, catalog, decisions, revisions
        self._fetcher, self._keeper, self._events = fetcher, keeper, events
        self._asking: dict[str | None, asyncio.Task[list[Looked]]] = {}

    # ------------------------------------------------------------------------------------------------------- checks

    async def check(self, model_id: str | None = None) -> list[Looked]:
        """See ``inference.keeping.Updater``. Callers that ask for the same at the same time share one answer."""
        key = None if model_id is None else self._from_hub(model_id).found.repo.lower()
        _refuse_offline()
        task = self._asking.get(key)
        if task is None or task.done():
            rows = self.followed() if key is None else [row for row in self.followed() if row.found.repo.lower() == key]
            task = self._asking[key] = asyncio.create_task(self._check(rows), name="check for updates")
        # A client that leaves must not end it for the others.
        return await asyncio.shield(task)

    def followed(self) -> list[Row]:
        """The models that came from the Hub, of each repository the one that has the bare name."""
        return [row for row in self._revisions.holders() if _is_from_hub(row)]

    async def _check(self, rows: Sequence[Row]) -> list[Looked]:
        parts = await self._asked([_params(row, row.found.revision) for row in rows], _subject(rows))
        looked = []
        for row in rows:
            ref, part = self._catalog.ref(row.found.path), parts.get(str(row.found.path))
            if ref is None or part is None:
                continue
            if "problem" in part:
                looked.append(Looked(ref.id, None, str(part["problem"])))
                continue
            await self._keep(row, ref, part)
            looked.append(Looked(ref.id, self._kept_update(ref)))
        return looked

    async def _keep(self, row: Row, ref: ModelRef, part: dict[str, Any]) -> None:
        repo, here = row.found.repo, {key_of(one) for one in self._catalog.rows_of(row.found.repo)}
        # What is here already, tried in vain or rolled back from, is nothing to fetch.
        report = {} if part["commit"] in here else part
        before = self._decisions.of(repo).update.get("commit")
        now = time.time()
        await self._decisions.change(repo, lambda old: replace(old, update=report, checked_at=now))
        update = update_of(report)
        if update is not None and not update.documents_only and update.commit != before:
            names = [file.name for file in update.files][:20]
            self._events.emit(
                "model.update_available", model=ref.id, revision=update.commit, bytes=update.bytes, files=names
            )

    async def _asked(self, models: list[dict[str, Any]], subject: str) -> dict[str, dict[str, Any]]:
        """What the child says of each, by path. Raises ``LmxError``."""
        parts = dict[str, dict[str, Any]]()
        if not models:
            return parts

        def on_part(about: dict[str, Any]) -> None:
            parts[str(about["path"])] = about

        try:
            await self._jobs.run(
                "check-updates",
                PROGRAM,
                {"models": models},
                subject=subject,
                on_progress=lambda progress: None,
                on_part=on_part,
            )
        except JobFailed as failure:
            if parts and failure.code == "hub_unreachable":  # what it did answer counts
                silent = {"problem": failure.message, "code": failure.code}
                return {model["path"]: {"path": model["path"], **silent} for model in models} | parts
            if failure.code in ("hub_unreachable", "hub_error", "interrupted"):
                raise ModelUnavailable(failure.message, code=failure.code) from failure
            if failure.code == "job_cancelled":
                raise Conflict(failure.message, code=failure.code) from failure
            raise
        return parts

    # ----------------------------------------------------------------------------------------- adopted models' origin

    def unmatched(self) -> list[Row]:
        """Adopted models of which every file was read, but of some nobody knows what was published."""
        return [row for row in self._catalog.rows() if _may_match(row)]

    async def match(self, rows: Sequence[Row]) -> int:
        """Hold adopted models against the Hub's; where its hashes are theirs, they are what was published.

        Returns how many became verified. Raises ``LmxError`` as ``check``.
        """
        _refuse_offline()
        rows = [row for row in rows if _may_match(row)]
        parts = await self._asked([_params(row, "") for row in rows], _subject(rows))
        verified = 0
        for row in rows:
            same = set(parts.get(str(row.found.path), {}).get("same", ()))
            weights = {name for name in row.checks if name.endswith(".safetensors")}
            # A README of that name proves nothing: it is the weights that say which model this is.
            if weights and weights <= same:
                await self._catalog.record(row.found.path, partial(_published, same))
                now = self._catalog.row(row.found.path)
                verified += now is not None and now.disk_state == "verified"
        return verified

    # ------------------------------------------------------------------------------------------------------ updating

    async def update(self, model_id: str) -> Updated:
        """See ``inference.keeping.Updater``."""
        row = self._from_hub(model_id)
        repo = row.found.repo
        _refuse_offline()
        self._revisions.wish(repo)
        try:
            job = await self._fetcher.start(repo, exact=True)
        except BaseException:
            self._revisions.unwish(repo)
            raise
        if job.state == "failed":
            self._revisions.unwish(repo)
        return await self._told(repo, job, waited=False)

    async def wait(self, model_id: str, job: int) -> Updated:
        """See ``inference.keeping.Updater``."""
        repo = self._from_hub(model_id).found.repo
        ended = await self._fetcher.wait(job)
        await self._revisions.tried(repo)
        return await self._told(repo, ended, waited=True)

    async def _told(self, repo: str, job: JobStatus, *, waited: bool) -> Updated:
        decision, holder = self._decisions.of(repo), self._revisions.holder(repo)
        ref = self._catalog.ref(holder.found.path) if holder is not None else None
        name, current = (ref.id if ref else repo), (key_of(holder) if holder else "")
        new = str(job.result.get("revision", ""))
        outcome: UpdateWord = "running"
        reason, previous, kept = "", current, None
        if job.state in ("failed", "cancelled"):
            outcome, reason = "failed", job.message
        elif new in decision.failed:
            outcome, reason = "failed", str(decision.failed[new].get("reason", ""))
        elif new and new == decision.trial:
            outcome, reason = ("waiting" if waited else "running"), decision.trial_problem
        elif new and new == current:
            previous = max(decision.superseded, key=lambda key: decision.superseded[key], default="")
            fresh = previous and decision.superseded[previous] >= (job.started_at or 0.0)
            outcome = "updated" if fresh else "up_to_date"
            previous = previous if fresh else ""
            kept = await self._freed(repo, previous) if fresh else None
        return Updated(name, outcome, job, new, previous, reason, kept)

    async def _freed(self, repo: str, key: str) -> Removal | None:
        """What deleting that revision would free; None where it may not be deleted."""
        row = next((one for one in self._catalog.rows_of(repo) if key_of(one) == key), None)
        ref = self._catalog.ref(row.found.path) if row is not None else None
        try:
            return await self._keeper.delete(ref.id, dry_run=True) if ref is not None else None
        except LmxError:
            return None

    async def rollback(self, model_id: str, revision: str | None = None, *, forward: bool = False) -> RolledBack:
        """See ``inference.keeping.Updater``."""
        return await self._revisions.rollback(model_id, revision, forward=forward)

    def kept(self, refs: Sequence[ModelRef]) -> list[Kept]:
        """See ``inference.keeping.Updater``."""
        return self._revisions.kept(refs)

    def _kept_update(self, ref: ModelRef) -> Any:
        [kept] = self._revisions.kept([ref])
        return kept.update

    def _from_hub(self, model_id: str) -> Row:
        """The row of the model, or of the one that has its bare name. Raises ``LmxError``."""
        row = self._catalog.row(self._catalog.resolve(model_id).path)
        if row is None:
            raise ModelNotFound(f"the model {model_id!r} is not on this server", param="model_id")
        if not _is_from_hub(row):
            raise Conflict(
                f"{model_id} was not fetched from the Hub by this server ({row.found.source}): it is kept up to date "
                "where it came from",
                code="not_from_hub",
            )
        return row


def _refuse_offline() -> None:
    if is_offline():
        raise ModelUnavailable(
            f"HF_HUB_OFFLINE is set, so {endpoint()} is not asked; unset it and restart the server.",
            code="hub_unreachable",
        )


def _is_from_hub(row: Row) -> bool:
    """Fetched by a server of ours, by its manifest, and on the disk."""
    found = row.found
    known = found.source == _FROM_HUB and COMMIT.fullmatch(found.revision) is not None
    return known and row.vanished_at is None and not row.is_hidden


def _may_match(row: Row) -> bool:
    """Adopted, wholly read, not known to be the Hub's, and called as a model of the Hub could be."""
    found = row.found
    if row.disk_state != "adopted" or row.vanished_at is not None or row.is_hidden or not row.checks:
        return False
    if found.source not in _MATCHED or found.repo.lower().startswith(_OWN_ORG) or row.verified_at is None:
        return False
    try:
        return parse_wanted(found.repo).repo == found.repo
    except InvalidRequest:
        return False


def _params(row: Row, revision: str) -> dict[str, Any]:
    hashes = {check.name: check.sha256 for check in row.checks.values() if check.sound and check.sha256}
    return {"repo": row.found.repo, "path": str(row.found.path), "revision": revision, "hashes": hashes}


def _subject(rows: Sequence[Row]) -> str:
    return rows[0].found.repo if len(rows) == 1 else f"{len(rows)} models"


def _published(same: set[str], row: Row) -> Row:
    checks: dict[str, Checked] = {
        name: replace(check, basis="published", expected=check.sha256) if name in same and check.sound else check
        for name, check in row.checks.items()
    }
    return replace(row, checks=checks)
