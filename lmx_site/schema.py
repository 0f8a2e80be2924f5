"""Brings both databases to the current schema when the server starts, and costs a millisecond when they are there.

SQLite keeps a number for its application (``user_version``); we store a fingerprint of the list of migrations there.
Only when it differs is Django's migration machinery loaded.
"""

from __future__ import annotations

import sqlite3
import zlib
from contextlib import closing
from pathlib import Path
from typing import cast

import django
from django.apps import apps
from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections

from lmx_site.home import StartRefused


def migrate_if_needed() -> bool:
    """Whether anything was done. Raises ``StartRefused`` when a database file cannot be used."""
    wanted = _fingerprint()
    done = False
    for alias in settings.DATABASES:
        file = Path(str(settings.DATABASES[alias]["NAME"]))
        try:
            if alias == DEFAULT_DB_ALIAS:  # the server can do without its history, not without its inventory
                _check(file)
            if _stored(file) != wanted:
                _migrate(alias)
                _store(file, wanted)
                done = True
        except (sqlite3.DatabaseError, DatabaseError) as error:
            raise StartRefused(
                f"{file} cannot be used as a database ({error}); move it away to start with an empty one"
            ) from error
    return done


def _fingerprint() -> int:
    names = [django.__version__]
    for app in apps.get_app_configs():
        folder = Path(app.path) / "migrations"
        names += sorted(f"{app.label}.{file.stem}" for file in folder.glob("[0-9]*.py"))
    return (zlib.crc32("\n".join(names).encode()) & 0x7FFFFFFF) or 1


def _check(file: Path) -> None:
    """Raise ``sqlite3.DatabaseError`` where the list of tables cannot be read: found before any work."""
    if file.exists():
        with closing(sqlite3.connect(file, timeout=5)) as connection:
            connection.execute("SELECT count(sql) FROM sqlite_master").fetchone()


def _stored(file: Path) -> int:
    if not file.exists():
        return 0
    with sqlite3.connect(file, timeout=5) as connection:
        found = cast("int", connection.execute("PRAGMA user_version").fetchone()[0])
    connection.close()
    return found


def _store(file: Path, fingerprint: int) -> None:
    with sqlite3.connect(file, timeout=5) as connection:
        connection.execute(f"PRAGMA user_version = {fingerprint:d}")
    connection.close()


def _migrate(alias: str) -> None:
    from django.core.management import call_command

    try:
        call_command("migrate", database=alias, interactive=False, verbosity=0)
    finally:
        connections[alias].close()
