"""Models that their owner took off the list: which there are, and how one comes back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from inference.catalog import ModelRef
from inference.errors import Conflict, ModelNotFound
from inference.models_on_disk import Hidden
from models_admin.catalog import DiskCatalog
from models_admin.row import Row

_SHOWN = 5


class HiddenModels:
    """For the event loop."""

    def __init__(self, catalog: DiskCatalog) -> None:
        self._catalog = catalog

    def all(self) -> list[Hidden]:
        """See ``inference.models_on_disk.Keeper.hidden``."""
        found = [_told(row) for row in self._catalog.hidden()]
        return sorted(found, key=lambda model: (model.name, model.path))

    async def restore(self, name: str, *, path: str | None = None) -> ModelRef:
        """See ``inference.models_on_disk.Keeper``."""
        row = self._named(name.strip(), path)
        await self._catalog.record(row.found.path, lambda known: replace(known, forgotten=""))
        back = self._at(row.found.path)
        if back is None:  # it went from the disk while it was asked for
            raise ModelNotFound(f"{name[:200]!r} is not on the disk any more: {row.found.path}", param="model_id")
        return back

    def _named(self, name: str, path: str | None) -> Row:
        rows = [row for row in self._catalog.hidden() if path is None or str(row.found.path) == path]
        wanted = name.lower()
        fitting = [row for row in rows if _name(row).lower() == wanted]
        fitting = fitting or [row for row in rows if row.found.repo.lower() == wanted]
        if not fitting:
            known = ", ".join(repr(model.name) for model in self.all()[:_SHOWN])
            hint = f" Off the list are: {known}" if known else " None was taken off it."
            raise ModelNotFound(f"no model {name[:200]!r} was taken off the list.{hint}", param="model_id")
        if len(fitting) > 1:
            paths = sorted(str(row.found.path) for row in fitting)
            raise Conflict(
                f"{len(fitting)} models that are off the list are called {name[:200]!r}; say which with path: "
                f"{', '.join(paths[:_SHOWN])}",
                code="model_ambiguous",
                details={"paths": paths},
            )
        return fitting[0]

    def _at(self, path: Path) -> ModelRef | None:
        return next((ref for ref in self._catalog.all() if ref.path == path), None)


def _name(row: Row) -> str:
    return f"{row.found.repo}@{row.found.revision}" if row.found.revision else row.found.repo


def _told(row: Row) -> Hidden:
    found = row.found
    return Hidden(_name(row), str(found.path), found.source, row.disk_state, row.facts.weight_bytes)
