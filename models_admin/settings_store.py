"""Settings of models to and from the inventory database. Blocking: call it from the catalog's thread only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from django.db import transaction

from models_admin.models import SettingsRecord

_LONGEST_IDENTITY = 700


@dataclass(frozen=True, slots=True)
class Kept:
    """What is stored for one model: its ``name`` as it was written, and the values by name."""

    name: str
    values: Mapping[str, Any]


def identity_of(repo: str, variant: str | None) -> str:
    """What settings belong to, as it is written; compared in lower case."""
    return (f"{repo}:{variant}" if variant else repo)[:_LONGEST_IDENTITY]


def load_settings() -> dict[str, Kept]:
    """Everything that is stored, by identity in lower case. What is no object is left out."""
    rows = SettingsRecord.objects.all().iterator(chunk_size=2000)
    return {row.identity: Kept(row.name, row.values) for row in rows if isinstance(row.values, dict)}


def change_settings(name: str, change: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> Kept:
    """Replace what is stored for ``name`` by what ``change`` makes of it, in one transaction.

    Nothing is written where ``change`` raises. Settings that are all put back leave no row.
    """
    with transaction.atomic():
        row = SettingsRecord.objects.filter(identity=name.lower()).first()
        before = row.values if row is not None and isinstance(row.values, dict) else {}
        values = dict(change(before))
        if values:
            SettingsRecord.objects.update_or_create(identity=name.lower(), defaults={"name": name, "values": values})
        elif row is not None:
            row.delete()
    return Kept(name, values)
