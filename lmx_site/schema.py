"""Brings the databases to the current schema when the server starts, and costs a millisecond when they are there.

SQLite keeps a number for its application (``user_version``); we store a fingerprint of the list of migrations there.
Only when it differs is Django's migration machinery loaded.
"""

from __future__ import annotations

import logging
import os
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

logger = logging.getLogger(__name__)

_PRIVATE = "responses"  # prompts and answers; what it holds is expendable


def migrate_if_needed() -> bool:
    """Whether anything was done. Raises ``StartRefused`` when a database file cannot be used.

    But for stored responses: their file is set aside then, with a warning.
    """
    wanted = _fingerprint()
    done = False
    for alias in settings.DATABASES:
        file = Path(str(settings.DATABASES[alias]["NAME"]))
        try:
            if alias == _PRIVATE:
                _make_private(file)
            done |= _bring_up(alias, file, wanted)
        except (sqlite3.DatabaseError, DatabaseError) as error:
            if alias != _PRIVATE:
                raise StartRefused(
                    f"{file} cannot be used as a database ({error}); move it away to start with an empty one"
                ) from error
            _set_aside(file, error)
            done |= _bring_up(alias, file, wanted)
    return done


def _bring_up(alias: str, file: Path, wanted: int) -> bool:
    if alias == DEFAULT_DB_ALIAS:  # the server can do without its history, not without its inventory
        _check(file)
    if _stored(file) == wanted:
        return False
    _migrate(alias)
    _store(file, wanted)
    return True


def _make_private(file: Path) -> None:
    """For the owner alone; SQLite gives the files beside it the same mode."""
    os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))
    file.chmod(0o600)


def _set_aside(file: Path, error: Exception) -> None:
    aside = file.with_name(file.name + ".broken")
    file.replace(aside)
    for suffix in ("-wal", "-shm"):
        file.with_name(file.name + suffix).unlink(missing_ok=True)
    _make_private(file)
    logger.warning(
        "%s cannot be used as a database (%s); it is now %s, and no stored response is left", file, error, aside
    )


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
