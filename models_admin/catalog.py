"""``DiskCatalog``: the models on disk, answered from memory, kept true by scanning.

``all`` and ``resolve`` read an immutable snapshot that ``refresh`` swaps in one assignment. Scanning and the database
belong to one thread of the catalog's own; a database that cannot be written costs the records, never the listing.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from django.db import DatabaseError, connections

from inference.catalog import ModelRef
from inference.model_settings import Values
from models_admin import lmstudio, store
from models_admin.facts import fingerprint, list_files
from models_admin.names import Names, Placed
from models_admin.row import Row, examine, vanished
from models_admin.scan import Found, is_away, look_at, scan
from models_admin.settings_shelf import SettingsShelf
from models_admin.settings_store import change_settings, identity_of

log = logging.getLogger(__name__)

FORGET_AFTER_S = 7 * 24 * 3600.0
"""How long a directory that vanished is still listed as absent. Its record stays."""


_UNRECORDED = (DatabaseError, OverflowError, ValueError)
"""A database that fails, or a value from the disk that it does not hold."""


class DiskCatalog:
    """Implements ``inference.catalog.Catalog``. Empty until the first ``refresh``.

    ``roots`` are searched in that order: of two directories with one name the earlier root's has it. A root that does
    not exist makes its models offline, nothing else. ``aliases`` maps a name to a model's name. ``studio`` is LM
    Studio's home, of which models in its folders get their names too. ``settings`` are what the owner keeps for single
    models, aliases among it, which come before ``aliases``. ``standing`` ranks the revisions of a repository for its
    bare name, lower first, before all but their usability; it is asked in the catalog's thread.
    """

    def __init__(
        self,
        roots: Sequence[Path],
        *,
        default_model: str | None = None,
        aliases: Mapping[str, str] | None = None,
        studio: Path | None = None,
        settings: SettingsShelf | None = None,
        standing: Callable[[Row], int] = lambda row: 0,
    ) -> None:
        self.roots = [Path(root).expanduser().absolute() for root in roots]
        self._ranks = {root: rank for rank, root in enumerate(self.roots)}
        self.default_model = default_model
        self.aliases = dict(aliases or {})
        self.settings = settings or SettingsShelf()
        self._studio = studio
        self._standing = standing
        self._keys: lmstudio.Keys = {}
        self._keys_stamp: tuple[int, ...] | None = None
        self._rows: dict[Path, Row] | None = None
        self._names = self._named([])
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="catalog")
        self._scanning: asyncio.Task[None] | None = None
        self._next_scan: asyncio.Task[None] | None = None

    def all(self) -> list[ModelRef]:
        """Every known model, sorted by id, broken ones too (``problem`` says why)."""
        return list(self._names.all)

    def resolve(self, name: str) -> ModelRef:
        """The model meant by ``name``. Raises ``ModelNotFound``, whose message names the nearest."""
        return self._names.resolve(name)

    def resolve_exactly(self, name: str) -> ModelRef:
        """The model that has ``name`` for its id or alias; nothing is guessed. Raises ``ModelNotFound``."""
        return self._names.resolve_exactly(name)

    def usable(self) -> list[ModelRef]:
        """The models against which nothing speaks."""
        return [ref for ref in self._names.all if ref.problem is None]

    async def refresh(self) -> None:
        """Scan the roots and update records and snapshot: what is on the disk at the call is listed on return.

        Callers share scans: those that come during one wait together for the next, as it may have passed by what they
        ask for. A caller that is cancelled leaves the scan running for the others.
        """
        if self._next_scan is None or self._next_scan.done():
            self._next_scan = asyncio.create_task(self._refresh(self._scanning), name="catalog refresh")
        await asyncio.shield(self._next_scan)

    async def recheck(self, ref: ModelRef) -> ModelRef:
        """See ``inference.catalog.Catalog``."""
        row = (self._rows or {}).get(ref.path)
        if row is None or row.vanished_at is not None:
            return ref
        if await asyncio.to_thread(_stamp, ref.path) != row.found.fingerprint:
            await self._update(ref.path)
        return self._current(ref)

    async def record(self, path: Path, change: Callable[[Row], Row]) -> None:
        """Apply ``change``, in the catalog's thread, to what is known of a model, and judge the model anew by it."""
        await self._update(path, change)

    async def rename(self) -> None:
        """Give the names anew, after what ``standing`` says has changed."""
        loop = asyncio.get_running_loop()
        self._names = await loop.run_in_executor(self._executor, lambda: self._named((self._rows or {}).values()))

    def ref(self, path: Path) -> ModelRef | None:
        """The model in that directory, under the id that it has now; None where it is not listed."""
        return next((one for one in self._names.all if one.path == path), None)

    def rows(self) -> list[Row]:
        """What is known of every model, of those that vanished too."""
        return list((self._rows or {}).values())

    def row(self, path: Path) -> Row | None:
        """What is known of the model in that directory."""
        return (self._rows or {}).get(path)

    def rows_of(self, repo: str) -> list[Row]:
        """What is known of the revisions of a repository that are on the disk."""
        rows = (self._rows or {}).values()
        return [row for row in rows if row.found.repo.lower() == repo.lower() and row.vanished_at is None]

    def identity(self, ref: ModelRef) -> str:
        """What the settings of a model belong to: its repository (and variant), whatever the revision."""
        row = self.row(ref.path)
        return identity_of(row.found.repo if row is not None else ref.id, ref.variant)

    async def change_settings(self, identity: str, change: Callable[[Values], Values]) -> None:
        """Store what ``change`` makes, in the catalog's thread, of what is kept for ``identity``; it holds on return.

        Raises what ``change`` raises, and ``DatabaseError``; then nothing is changed.
        """
        loop = asyncio.get_running_loop()
        self._names = await loop.run_in_executor(self._executor, self._keep, identity, change)

    def _keep(self, identity: str, change: Callable[[Values], Values]) -> Names:
        try:
            self.settings.put(change_settings(identity, change))
            return self._named((self._rows or {}).values())
        finally:
            connections.close_all()

    def hidden(self) -> list[Row]:
        """Models that their owner took off the list, and that are on the disk or on a volume that is away."""
        return [row for row in (self._rows or {}).values() if row.is_hidden and row.disk_state != "absent"]

    def _current(self, ref: ModelRef) -> ModelRef:
        return self.ref(ref.path) or ref

    async def _update(self, path: Path, change: Callable[[Row], Row] = lambda row: row) -> None:
        loop = asyncio.get_running_loop()
        self._names = await loop.run_in_executor(self._executor, self._examine_again, path, change)

    def _examine_again(self, path: Path, change: Callable[[Row], Row]) -> Names:
        """In the catalog's thread: one model alone."""
        rows = dict(self._rows or {})
        try:
            old = rows.get(path)
            if old is None:
                return self._names
            known = change(old)
            found = look_at(old.found) if old.vanished_at is None else None
            if old.vanished_at is not None:
                rows[path] = known  # what is there again the next scan finds
            elif found is None:
                rows[path] = vanished(known, offline=_is_away(old.found), now=time.time())
            else:
                rows[path] = examine(found, known)
            self._save({path: old}, {path: rows[path]}, [])
            self._rows = rows
            return self._named(rows.values())
        finally:
            connections.close_all()

    def close(self) -> None:
        """Give back the thread; waits for a scan under way."""
        self._executor.shutdown(wait=True)

    async def _refresh(self, before: asyncio.Task[None] | None) -> None:
        if before is not None and not before.done():
            await asyncio.wait({before})
        self._scanning, self._next_scan = self._next_scan, None
        loop = asyncio.get_running_loop()
        self._names = await loop.run_in_executor(self._executor, self._scan)

    def _scan(self) -> Names:
        """In the catalog's thread."""
        try:
            before = self._known()
            rows = self._look(before, time.time())
            self._learn_keys()
            self._save(before, rows, self.roots)
            self._rows = rows
            return self._named(rows.values())
        finally:
            connections.close_all()

    def _known(self) -> dict[Path, Row]:
        self.settings.read()
        if self._rows is not None:
            return self._rows
        try:
            return store.load_rows(self.roots)
        except _UNRECORDED as error:
            log.warning("the inventory cannot be read, so every model is examined anew: %s", error)
            return {}

    def _look(self, before: Mapping[Path, Row], now: float) -> dict[Path, Row]:
        """The rows after one look at the disk; those whose files did not change are taken over as they are."""
        seen = scan(self.roots, frozenset(lmstudio.model_folders(self._studio)) if self._studio else ())
        rows = {found.path: self._row(found, before.get(found.path)) for found in seen.found}
        for path, old in before.items():
            if path not in rows:
                away = not seen.offline.isdisjoint((old.found.root, path, *path.parents))
                rows[path] = vanished(old, offline=away or is_away(old.found), now=now)
        return rows

    def _row(self, found: Found, old: Row | None) -> Row:
        if old is None or old.vanished_at is not None or old.stamp != found.fingerprint:
            return examine(found, old)
        # What a manifest says of its origin stays; what only the place says may change with the place.
        source = found.source if old.found.source in ("local", "lmstudio") else old.found.source
        now = replace(old.found, root=found.root, current=found.current, source=source, mount=found.mount)
        return old if now == old.found else replace(old, found=now)

    def _learn_keys(self) -> None:
        """What another program's files are costs its names for models at most, never the listing or the start."""
        try:
            stamp = lmstudio.keys_stamp(self._studio)
            if stamp != self._keys_stamp:
                self._keys_stamp = stamp  # also when it fails, so that it is told once
                self._keys = lmstudio.model_keys(self._studio)
        except Exception:
            log.warning("LM Studio's names for its models cannot be read", exc_info=True)

    def _save(self, before: Mapping[Path, Row], rows: Mapping[Path, Row], roots: Sequence[Path]) -> None:
        try:
            store.save_rows([row for path, row in rows.items() if before.get(path) is not row], roots)
        except _UNRECORDED as error:
            log.warning("the inventory cannot be written: %s", error)

    def _rank(self, row: Row) -> tuple[int, ...]:
        unusable = row.vanished_at is not None, row.problem is not None
        return (*unusable, self._standing(row), self._ranks[row.found.root], *row.age())

    def _named(self, rows: Collection[Row]) -> Names:
        horizon = time.time() - FORGET_AFTER_S
        placed = [
            Placed(self.settings.told(row, row.ref()), self._rank(row))
            for row in rows
            if not row.is_hidden and (row.disk_state != "absent" or (row.vanished_at or 0) > horizon)
        ]
        aliases = {**self.aliases, **self.settings.aliases(rows)}
        return Names(placed, aliases, self.default_model, self._keys)


def _is_away(found: Found) -> bool:
    return not os.path.isdir(found.root) or is_away(found)


def _stamp(path: Path) -> str:
    """The fingerprint of the files as they are now; empty when the directory cannot be read."""
    try:
        return fingerprint(list_files(path))
    except OSError:
        return ""
