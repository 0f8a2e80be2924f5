"""The settings of all models as the catalog holds them in memory, and what they make of its models.

Written by the catalog's thread alone, which replaces what it holds and changes nothing in place.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from django.db import DatabaseError

from inference.catalog import ModelRef
from inference.model_settings import Values, settings_of
from inference.model_settings_checks import SettingProblem, checked
from models_admin.row import Row
from models_admin.settings_store import Kept, identity_of, load_settings

log = logging.getLogger(__name__)


def _sound(kept: Kept) -> Kept:
    """Without what another version, or another program, wrote and nothing here could use; it stays in the database."""
    sound: dict[str, Any] = {}
    for name, value in kept.values.items():
        try:
            sound[name] = checked(name, value)
        except SettingProblem as problem:
            log.warning("the setting %s of %s is not used: it %s", name, kept.name, problem)
    return Kept(kept.name, sound)


class SettingsShelf:
    """``configured`` is the baseline of config.yaml: settings by the name of a model, in any case."""

    def __init__(self, configured: Mapping[str, Values] | None = None) -> None:
        self._configured = {name.lower(): dict(values) for name, values in (configured or {}).items()}
        self._kept: dict[str, Kept] = {}
        self._is_read = False

    def read(self) -> None:
        """Read what is stored, if that was not done; tried again later where the database cannot be read."""
        if self._is_read:
            return
        try:
            self._kept = {identity: _sound(kept) for identity, kept in load_settings().items()}
            self._is_read = True
        except (DatabaseError, ValueError) as error:
            log.warning("the settings of models cannot be read: %s", error)

    def put(self, kept: Kept) -> None:
        """Take over what was stored just now."""
        kept = _sound(kept)
        others = {identity: other for identity, other in self._kept.items() if identity != kept.name.lower()}
        self._kept = {**others, kept.name.lower(): kept} if kept.values else others

    def all(self) -> Mapping[str, Kept]:
        """What is stored, by identity in lower case."""
        return self._kept

    def kept(self, identity: str) -> Kept:
        """What is stored for that model; nothing where there is nothing."""
        return self._kept.get(identity.lower()) or Kept(identity, {})

    def configured(self, identity: str) -> Values:
        """What config.yaml says of that model."""
        return self._configured.get(identity.lower(), {})

    def told(self, row: Row, ref: ModelRef) -> ModelRef:
        """The model with what is kept for it."""
        identity = identity_of(row.found.repo, ref.variant)
        stored, configured = self.kept(identity).values, self.configured(identity)
        return replace(ref, settings=settings_of({**configured, **stored})) if stored or configured else ref

    def aliases(self, rows: Iterable[Row]) -> dict[str, str]:
        """Aliases of the models that there are, with the name that each stands for."""
        if not (holders := {name: kept for name, kept in self._kept.items() if kept.values.get("aliases")}):
            return {}
        present = {row.found.repo.lower() for row in rows}
        return {
            alias: kept.name
            for identity, kept in holders.items()
            if identity.partition(":")[0] in present or identity in present
            for alias in kept.values["aliases"]
        }
