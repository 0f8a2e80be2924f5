"""Three SQLite files: what is on disk (``default``), what happened (``telemetry``), and what clients had kept
(``responses``). No relation crosses them."""

from __future__ import annotations

from typing import Any

from django.db.models import Model

_DATABASES = {"monitoring": "telemetry", "inference": "responses"}


def database_of(app_label: str) -> str:
    return _DATABASES.get(app_label, "default")


class Router:
    """Sends monitoring's tables to ``telemetry``, those of inference to ``responses``, all others to ``default``."""

    def db_for_read(self, model: type[Model], **hints: Any) -> str:
        return database_of(model._meta.app_label)

    def db_for_write(self, model: type[Model], **hints: Any) -> str:
        return database_of(model._meta.app_label)

    def allow_relation(self, left: Model, right: Model, **hints: Any) -> bool:
        return database_of(left._meta.app_label) == database_of(right._meta.app_label)

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool:
        return database_of(app_label) == db
