"""What was decided of the revisions of each repository: which one has its bare name, which one is to be tried.

Held in memory, written through to ``RepoRecord``. ``standing`` is asked by the catalog's thread; all else belongs to
the event loop. A database that cannot be written costs the memory of it at the next start, never the decision now.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from asgiref.sync import sync_to_async
from django.db import DatabaseError

from models_admin.models import RepoRecord
from models_admin.row import Row

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Decision:
    """See ``RepoRecord``. Revisions go by ``key_of``; ``update`` is what ``updates_worker`` reported, or empty."""

    repo: str
    current: str = ""
    trial: str = ""
    trial_problem: str = ""
    failed: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    superseded: Mapping[str, float] = field(default_factory=dict)
    line: tuple[str, ...] = ()
    update: Mapping[str, Any] = field(default_factory=dict)
    checked_at: float | None = None


def key_of(row: Row) -> str:
    """What a revision is called in a decision: its commit, or for a directory without one where it came from."""
    return row.found.revision or row.found.source


class Decisions:
    """Empty until ``load``."""

    def __init__(self) -> None:
        self._known: dict[str, Decision] = {}

    async def load(self) -> None:
        """Read what earlier servers have decided."""
        try:
            self._known = await sync_to_async(_read)()
        except (DatabaseError, ValueError) as error:
            log.warning("which revisions are current cannot be read, so the newest are: %s", error)

    def of(self, repo: str) -> Decision:
        """What was decided of it; the neutral decision where nothing was."""
        return self._known.get(repo.lower()) or Decision(repo.lower())

    def all(self) -> list[Decision]:
        return list(self._known.values())

    async def change(self, repo: str, change: Callable[[Decision], Decision]) -> Decision:
        """Decide anew; what is decided holds at once."""
        decision = change(self.of(repo))
        # A new mapping each time: the catalog's thread reads it meanwhile.
        self._known = {**self._known, decision.repo: decision}
        try:
            await sync_to_async(_write)(decision)
        except (DatabaseError, ValueError) as error:
            log.warning("what was decided of %s cannot be written: %s", repo, error)
        return decision

    def standing(self, row: Row) -> int:
        """For ranking the revisions of a repository: 0 for the one that was chosen, 2 for one not to be trusted yet."""
        decision = self._known.get(row.found.repo.lower())
        if decision is None:
            return 0
        key = key_of(row)
        if key == decision.current:
            return 0
        if key == decision.trial or key in decision.failed:
            return 2
        return 1 if decision.current else 0


def superseded(decision: Decision, key: str, now: float) -> Decision:
    """The name goes from ``decision.current``, if that is another, to ``key``."""
    before = {one: at for one, at in decision.superseded.items() if one != key}
    if decision.current and decision.current != key:
        before[decision.current] = now
    trial = "" if decision.trial == key else decision.trial
    failed = {one: why for one, why in decision.failed.items() if one != key}
    line = tuple(dict.fromkeys(one for one in (*decision.line, decision.current, key) if one))
    decision = replace(decision, current=key, superseded=before, failed=failed, line=line)
    return replace(decision, trial=trial, trial_problem=trial and decision.trial_problem)


def _read() -> dict[str, Decision]:
    return {record.repo: _decision(record) for record in RepoRecord.objects.all().iterator(chunk_size=2000)}


def _decision(record: RepoRecord) -> Decision:
    return Decision(
        record.repo,
        record.current,
        record.trial,
        record.trial_problem,
        {str(key): dict(why) for key, why in dict(record.failed).items()},
        {str(key): float(at) for key, at in dict(record.superseded).items()},
        tuple(map(str, record.line)),
        dict(record.update),
        record.checked_at.timestamp() if record.checked_at else None,
    )


def _write(decision: Decision) -> None:
    RepoRecord.objects.update_or_create(
        repo=decision.repo,
        defaults={
            "current": decision.current,
            "trial": decision.trial,
            "trial_problem": decision.trial_problem,
            "failed": dict(decision.failed),
            "superseded": dict(decision.superseded),
            "line": list(decision.line),
            "update": dict(decision.update),
            "checked_at": datetime.fromtimestamp(decision.checked_at, UTC) if decision.checked_at else None,
        },
    )
