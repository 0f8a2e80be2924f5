"""What a server does by itself for its models, while nobody waits for it: verify, ask the Hub, try again, tidy up.

Never at the start's expense: nothing happens in the first minutes. One thing at a time, none while the engine is busy.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from inference.errors import LmxError
from inference.fetching import JobStatus
from inference.models_on_disk import Removal
from inference.records import EventSink
from models_admin.catalog import DiskCatalog
from models_admin.decisions import Decision, Decisions, key_of
from models_admin.fetch import KEEP_FREE_BYTES
from models_admin.quiet import Gate
from models_admin.revisions import Revisions
from models_admin.row import Row
from models_admin.trial import Engine, is_idle
from models_admin.updates import Updates, is_offline

log = logging.getLogger(__name__)

_DAY_S = 24 * 3600.0
_FIRST_S = 600.0
_VERIFY_EVERY_S = 60.0
_LOOK_EVERY_S = 600.0
_ASK_AGAIN_S = 3600.0
_POLL_S = 0.5
_CALM_S = 5.0


@dataclass(frozen=True, slots=True)
class Wishes:
    """Of the configuration. Days; 0 of ``verify_days`` means never, None of ``keep_days`` for ever.

    ``keep_free`` is what a conversion leaves free on the disk, in bytes.
    """

    check_updates: bool = True
    verify_days: float = 30.0
    keep_days: float | None = None
    keep_free: int = KEEP_FREE_BYTES


class _Keeper(Protocol):
    async def verify(self, model_id: str, *, gate: Path | None = None) -> JobStatus: ...

    async def wait(self, job: int) -> JobStatus: ...

    async def delete(
        self, model_id: str, *, dry_run: bool = False, forget: bool = False, path: str | None = None
    ) -> Removal: ...

    def is_quiet(self, model_id: str) -> bool: ...


def due(rows: Sequence[Row], wishes: Wishes, now: float, not_before: Mapping[Path, float]) -> Row | None:
    """The model to be read next: one that was begun, then one that never was, then the one read longest ago.

    None of those that are corrupt, partial, away or hidden.
    """
    if not wishes.verify_days:
        return None

    def waits(row: Row) -> bool:
        sound = row.disk_state in ("adopted", "verified") and row.vanished_at is None and not row.is_hidden
        if not sound or not_before.get(row.found.path, 0.0) > now:
            return False
        return row.verified_at is None or row.verified_at + wishes.verify_days * _DAY_S <= now

    def rank(row: Row) -> tuple[bool, bool, float, str]:
        return row.verify_began is None, row.verified_at is not None, row.verified_at or 0.0, str(row.found.path)

    return min(filter(waits, rows), key=rank, default=None)


class Schedule:
    """``gate`` is what quiet children wait at. ``look`` and ``verify_one`` may be called by hand."""

    def __init__(
        self,
        catalog: DiskCatalog,
        decisions: Decisions,
        revisions: Revisions,
        updates: Updates,
        keeper: _Keeper,
        engine: Engine,
        events: EventSink,
        gate: Path,
        wishes: Wishes,
    ) -> None:
        self._catalog, self._decisions, self._revisions, self._updates = catalog, decisions, revisions, updates
        self._keeper, self._engine, self._events, self._wishes = keeper, engine, events, wishes
        self._gate = Gate(gate)
        self._not_before: dict[Path, float] = {}
        self._next_check = 0.0
        self._interval = _DAY_S * random.uniform(0.9, 1.1)

    async def verifying(self) -> None:
        """Verify one model after the other, for as long as the server runs."""
        await self._repeat(self.verify_one, _VERIFY_EVERY_S)

    async def looking(self) -> None:
        """Do all else, for as long as the server runs."""
        await self._repeat(self.look, _LOOK_EVERY_S)

    @staticmethod
    async def _repeat(work: Callable[[], Awaitable[object]], every_s: float) -> None:
        # Not all servers of the world at the same minute.
        await asyncio.sleep(_FIRST_S * random.uniform(1.0, 2.0))
        while True:
            await work()
            await asyncio.sleep(every_s)

    # ---------------------------------------------------------------------------------------------------- verifying

    async def verify_one(self) -> Row | None:
        """Read the model that is due, if the engine is idle; the row it had before, None where nothing was done."""
        row = due(self._catalog.rows(), self._wishes, time.time(), self._not_before)
        ref = self._catalog.ref(row.found.path) if row is not None else None
        if row is None or ref is None or not is_idle(self._engine):
            return None
        # Whatever comes of it, not again at once.
        self._not_before[row.found.path] = time.time() + _DAY_S
        watch = asyncio.create_task(self._mind_the_gate(ref.id), name="gate of verifying")
        try:
            job = await self._keeper.verify(ref.id, gate=self._gate.path)
            ended = await self._keeper.wait(job.job)
        except LmxError as error:
            log.info("%s is not verified now: %s", ref.id, error.message)
            return None
        finally:
            watch.cancel()
            await asyncio.wait({watch})
            self._gate.open()
        if ended.state == "done":
            await self._match([self._catalog.row(row.found.path)])
        return row

    async def _mind_the_gate(self, model_id: str) -> None:
        """Closed while the engine is busy and for some seconds after; open once the owner waits for the model too."""
        calm_since = 0.0
        while True:
            if not is_idle(self._engine):
                calm_since = time.monotonic()
            if time.monotonic() - calm_since >= _CALM_S or not self._keeper.is_quiet(model_id):
                self._gate.open()
            elif not self._gate.close():
                await asyncio.sleep(0)  # a child is just passing: it does so for a moment only
                continue
            await asyncio.sleep(_POLL_S)

    async def _match(self, rows: Sequence[Row | None]) -> None:
        """Hold what was adopted against the Hub, where it may be asked."""
        adopted = [row for row in rows if row is not None]
        if not adopted or not self._wishes.check_updates or is_offline():
            return
        try:
            await self._updates.match(adopted)
        except LmxError as error:
            log.info("the Hub is not asked for what was adopted: %s", error.message)

    # ------------------------------------------------------------------------------------------------------ the rest

    async def look(self) -> None:
        """Try again what could not be tried, ask the Hub if it is time, delete what was to be kept for some days."""
        if is_idle(self._engine):
            self._revisions.begin_all()
        if self._wishes.check_updates and not is_offline():
            await self._check(time.time())
        if self._wishes.keep_days is not None:
            for decision in self._decisions.all():
                await self._drop_old(decision, time.time() - self._wishes.keep_days * _DAY_S)

    async def _check(self, now: float) -> None:
        followed, unmatched = self._updates.followed(), self._updates.unmatched()
        asked = [self._decisions.of(row.found.repo).checked_at or 0.0 for row in followed]
        oldest = min(asked, default=0.0 if unmatched else now)
        if now < max(self._next_check, oldest + self._interval):
            return
        self._next_check = now + _ASK_AGAIN_S * random.uniform(1.0, 2.0)
        try:
            if followed:
                await self._updates.check()
            await self._updates.match(unmatched)
            # One of which the Hub says nothing (it is gone) must not be asked for every hour.
            self._next_check = now + self._interval
        except LmxError as error:
            log.info("the Hub cannot be asked for updates: %s", error.message)

    async def _drop_old(self, decision: Decision, before: float) -> None:
        if all(at > before for at in decision.superseded.values()):
            return
        holder = self._revisions.holder(decision.repo)
        if holder is None or key_of(holder) != decision.current:
            return
        for row in self._catalog.rows_of(decision.repo):
            key, ref = key_of(row), self._catalog.ref(row.found.path)
            at = decision.superseded.get(key)
            if at is None or at > before or ref is None or ref.aliases or key == decision.current:
                continue
            try:
                removal = await self._keeper.delete(ref.id, path=str(ref.path))
            except LmxError as error:
                log.info("the old revision %s is kept: %s", ref.id, error.message)
                continue
            self._events.emit("revision.deleted", model=ref.id, bytes=removal.freed_bytes)
            await self._decisions.change(decision.repo, partial(_without, key))


def _without(key: str, decision: Decision) -> Decision:
    return replace(decision, superseded={one: at for one, at in decision.superseded.items() if one != key})
