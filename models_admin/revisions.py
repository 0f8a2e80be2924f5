"""``Revisions``: which revision has a model's bare name. A new one gets it once it has answered a smoke prompt."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from inference.catalog import ModelRef
from inference.errors import Conflict, LmxError, ModelNotFound, NotFound
from inference.keeping import Kept, RolledBack, Trial
from inference.records import EventSink
from models_admin.busy import Busy
from models_admin.catalog import DiskCatalog
from models_admin.decisions import Decision, Decisions, key_of, superseded
from models_admin.row import Row
from models_admin.trial import Engine, Outcome, hand_over, status_of, try_out, until_idle
from models_admin.update_words import update_of

log = logging.getLogger(__name__)

_FOLLOWED = "main"
_IDLE_PATIENCE_S = 30.0
_ANSWERS_PATIENCE_S = 60.0


class Revisions:
    """The fetcher says ``before`` and ``arrived``; ``engine`` asks the new revision."""

    def __init__(
        self, catalog: DiskCatalog, decisions: Decisions, busy: Busy, events: EventSink, engine: Engine
    ) -> None:
        self._catalog, self._decisions, self._busy, self._events = catalog, decisions, busy, events
        self._engine = engine
        self._wished: set[str] = set()
        self._trials: dict[str, asyncio.Task[None]] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._going: set[asyncio.Task[RolledBack]] = set()

    # ------------------------------------------------------------------------------------------------ while fetching

    async def before(self, repo: str) -> None:
        """A revision of it is going to be fetched: what has the name now keeps it."""
        holder = self.holder(repo)
        decision = self._decisions.of(repo)
        if holder is not None and key_of(holder) != decision.current:
            await self._decisions.change(repo, lambda old: replace(old, current=key_of(holder)))

    async def arrived(self, path: Path, asked: str, *, fetched: bool) -> None:
        """What was fetched lies in ``path``, or lay there; ``asked`` is the revision as it was asked for.

        Only what the branch itself brings is to have the name; a commit that was named is just a further revision. What
        had the name before, or failed, gets another try only if it was fetched anew, or by an update.
        """
        row = self._catalog.row(path)
        if row is None:
            return
        repo, key = row.found.repo, key_of(row)
        decision, wished = self._decisions.of(repo), repo.lower() in self._wished
        self._wished.discard(repo.lower())
        if asked != _FOLLOWED or decision.current in ("", key):
            return
        if not wished and (key in decision.superseded or (key in decision.failed and not fetched)):
            return
        failed = {one: why for one, why in decision.failed.items() if one != key}
        await self._decisions.change(repo, lambda old: replace(old, trial=key, trial_problem="", failed=failed))
        self.begin_trial(repo)

    def wish(self, repo: str) -> None:
        """The owner wants what is fetched next to be tried, whatever came of it before."""
        self._wished.add(repo.lower())

    def unwish(self, repo: str) -> None:
        """It will not be fetched."""
        self._wished.discard(repo.lower())

    # ------------------------------------------------------------------------------------------------------- trials

    def begin_trial(self, repo: str) -> None:
        """Try what waits for its trial; one that is under way goes on."""
        task = self._trials.get(repo.lower())
        if task is None or task.done():
            self._trials[repo.lower()] = asyncio.create_task(self._try(repo), name=f"trial of {repo}")

    def begin_all(self) -> None:
        """Try all that wait, such as those that an earlier server has left."""
        for decision in self._decisions.all():
            if decision.trial:
                self.begin_trial(decision.repo)

    async def tried(self, repo: str) -> None:
        """Return when no trial of it is under way."""
        if (task := self._trials.get(repo.lower())) is not None:
            await asyncio.wait({task})

    async def stop(self) -> None:
        """End what is under way; it is tried again when the server starts."""
        tasks: list[asyncio.Task[Any]] = [*self._trials.values(), *self._going]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _try(self, repo: str) -> None:
        try:
            async with self._lock(repo):
                await self._try_alone(repo)
        except LmxError as error:
            problem = error.message
            await self._decisions.change(repo, lambda old: replace(old, trial_problem=problem))
        except Exception:
            log.exception("trying the new revision of %s", repo)

    async def _try_alone(self, repo: str) -> None:
        key = self._decisions.of(repo).trial
        row = next((one for one in self._catalog.rows_of(repo) if key_of(one) == key), None)
        if row is None or row.is_hidden:
            await self._decisions.change(repo, lambda old: replace(old, trial="", trial_problem=""))
            return
        await self._busy.free(repo)  # the fetch that brought it ends right after it has arrived
        with self._busy.work(row.found.repo, "update"):
            outcome = await self._outcome(row)
        match outcome.verdict:
            case "answered":
                await self._take_name(row, key, "model.updated")
            case "failed":
                await self._decisions.change(repo, lambda old: _failed(old, key, outcome.reason))
                await self._catalog.rename()
                self._events.emit("model.update_failed", model=row.found.repo, revision=key, message=outcome.reason)
            case "later":
                await self._decisions.change(repo, lambda old: replace(old, trial_problem=outcome.reason))

    async def _outcome(self, row: Row) -> Outcome:
        await until_idle(self._engine, _IDLE_PATIENCE_S)
        ref = self._catalog.ref(row.found.path)
        if ref is None:
            return Outcome("failed", "it is not on the disk any more")
        if ref.problem is not None:
            return Outcome("failed", ref.problem)
        return await try_out(self._engine, ref, template=row.facts.has_chat_template)

    async def _take_name(self, row: Row, key: str, event: str) -> None:
        """Give the bare name to that revision, and let whoever runs make place for it."""
        repo = row.found.repo
        holder, ref = self.holder(repo), self._catalog.ref(row.found.path)
        name = self._name(holder)
        before = ref.id if ref is not None else name
        ran = status_of(self._engine, name)
        now = time.time()
        await self._decisions.change(repo, lambda old: superseded(_holding(old, holder), key, now))
        await self._catalog.rename()
        self._events.emit(event, model=name, revision=key, previous=key_of(holder) if holder is not None else "")
        if holder is not None and holder.found.path != row.found.path:
            try:
                await hand_over(self._engine, name, ran, [before] if before != name else [], _ANSWERS_PATIENCE_S)
            except LmxError as error:  # the name is the new one's all the same; its next request loads it
                log.warning("loading the other revision of %s: %s", name, error.message)

    # ------------------------------------------------------------------------------------------------- going back

    async def rollback(self, model_id: str, revision: str | None = None, *, forward: bool = False) -> RolledBack:
        """See ``inference.keeping.Updater``."""
        row = self._catalog.row(self._catalog.resolve(model_id).path)
        if row is None:
            raise ModelNotFound(f"the model {model_id!r} is not on this server", param="model_id")
        self._busy.check(row.found.repo, "update")
        task = asyncio.create_task(self._go_back(row.found.repo, revision, forward=forward), name="roll back")
        self._going.add(task)
        task.add_done_callback(self._going.discard)
        # A client that leaves must not leave a name that means one revision and a worker that is the other.
        return await asyncio.shield(task)

    async def _go_back(self, repo: str, revision: str | None, *, forward: bool) -> RolledBack:
        async with self._lock(repo):
            holder = self.holder(repo)
            target = self._wanted(repo, holder, revision, forward=forward)
            if target.problem is not None:
                raise Conflict(f"{repo}@{key_of(target)} cannot be used: {target.problem}", code="model_not_usable")
            name = self._name(holder)
            if holder is None or target.found.path != holder.found.path:
                await self._take_name(target, key_of(target), "model.rolled_back")
        now = self._catalog.ref(target.found.path)
        old = self._catalog.ref(holder.found.path) if holder is not None else None
        previous = key_of(holder) if holder is not None else ""
        return RolledBack(
            now.id if now else name, key_of(target), str(target.found.path), previous, old.id if old else name
        )

    def _wanted(self, repo: str, holder: Row | None, revision: str | None, *, forward: bool) -> Row:
        others = [one for one in self._catalog.rows_of(repo) if not one.is_hidden]
        if revision is not None:
            fitting = [one for one in others if key_of(one).lower().startswith(revision.lower())]
            if len(fitting) != 1:
                known = ", ".join(sorted(key_of(one)[:12] for one in others)[:10])
                what = "no revision" if not fitting else f"{len(fitting)} revisions that begin with"
                raise NotFound(
                    f"{repo} has {what} {revision[:80]!r} on this disk; there are: {known}",
                    code="revision_not_found",
                    param="revision",
                )
            return fitting[0]
        decision = self._decisions.of(repo)
        usable = [one for one in others if one.problem is None and key_of(one) not in decision.failed]
        line = _in_order(usable, holder, decision)
        at = next((place for place, one in enumerate(line) if holder and one.found.path == holder.found.path), None)
        wanted = None if at is None else at + (1 if forward else -1)
        if wanted is None or not 0 <= wanted < len(line):
            which = "newer" if forward else "older"
            raise Conflict(f"there is no {which} revision of {repo} on this disk", code="no_other_revision")
        return line[wanted]

    # ------------------------------------------------------------------------------------------------ what there is

    def holder(self, repo: str) -> Row | None:
        """The revision that has the bare name; None where no usable one is on the disk."""
        rows = [row for row in self._catalog.rows_of(repo) if not row.is_hidden]
        by_path = {row.found.path: row for row in rows}
        named = [one for one in self._catalog.all() if one.path in by_path]
        # Of the names of a repository the bare one is the shortest.
        best = min(named, key=lambda one: (len(one.id), one.id), default=None)
        return None if best is None or best.problem is not None else by_path[best.path]

    def holders(self) -> list[Row]:
        """The same of every repository, in one pass."""
        best: dict[str, tuple[tuple[int, str], ModelRef, Row]] = {}
        for ref in self._catalog.all():
            row = self._catalog.row(ref.path)
            if row is None or row.vanished_at is not None:
                continue
            rank, known = (len(ref.id), ref.id), best.get(row.found.repo.lower())
            if known is None or rank < known[0]:
                best[row.found.repo.lower()] = rank, ref, row
        return [row for _, ref, row in best.values() if ref.problem is None]

    def kept(self, refs: Sequence[ModelRef]) -> list[Kept]:
        """See ``inference.keeping.Updater``."""
        return [self._kept(ref) for ref in refs]

    def _kept(self, ref: ModelRef) -> Kept:
        row = self._catalog.row(ref.path)
        if row is None:
            return Kept()
        decision, key = self._decisions.of(row.found.repo), key_of(row)
        is_current = ref.id == row.found.repo or "@" not in ref.id
        why = decision.failed.get(key)
        trial = None
        if why is not None:
            trial = Trial("failed", str(why.get("reason", "")), why.get("at"))
        elif key == decision.trial and not is_current:
            trial = Trial("waiting", decision.trial_problem)
        return Kept(
            is_current,
            update_of(decision.update) if is_current and decision.update.get("path") == str(ref.path) else None,
            decision.checked_at if row.found.source == "huggingface" else None,
            trial,
            decision.superseded.get(key),
        )

    def _name(self, holder: Row | None) -> str:
        ref = self._catalog.ref(holder.found.path) if holder is not None else None
        return ref.id if ref is not None else ""

    def _lock(self, repo: str) -> asyncio.Lock:
        return self._locks.setdefault(repo.lower(), asyncio.Lock())


def _holding(decision: Decision, holder: Row | None) -> Decision:
    """With who has the name now as its current one, which a decision that names none leaves open."""
    return decision if holder is None else replace(decision, current=key_of(holder))


def _failed(decision: Decision, key: str, reason: str) -> Decision:
    failed = {**decision.failed, key: {"reason": reason, "at": time.time()}}
    return replace(decision, trial="", trial_problem="", failed=failed)


def _in_order(rows: Sequence[Row], holder: Row | None, decision: Decision) -> list[Row]:
    """Those that ever had the name, as they came; where that says nothing of ``holder``, by the age of directories."""
    if holder is not None and key_of(holder) in decision.line:
        rows = [row for row in rows if key_of(row) in decision.line]
        return sorted(rows, key=lambda row: decision.line.index(key_of(row)))
    return sorted(rows, key=lambda row: (row.found.created, key_of(row)))
