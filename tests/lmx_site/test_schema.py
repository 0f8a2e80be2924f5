"""The databases are brought up to date once, and recognised afterwards."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import connections

from inference.models import StoredResponse
from lmx_site import schema
from lmx_site.databases import Router
from lmx_site.home import StartRefused
from models_admin.models import ModelRecord
from monitoring.models import EventRow

ALL = ["default", "telemetry", "responses"]


@pytest.fixture
def migrations(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The databases are files of this test; gives the aliases in the order in which they were migrated."""
    done: list[str] = []

    def note(alias: str) -> None:
        done.append(alias)
        sqlite3.connect(str(settings.DATABASES[alias]["NAME"])).close()

    for alias in settings.DATABASES:
        monkeypatch.setitem(settings.DATABASES[alias], "NAME", tmp_path / f"{alias}.sqlite3")
    monkeypatch.setattr(schema, "_migrate", note)
    return done


def test_it_migrates_once(migrations: list[str]) -> None:
    assert schema.migrate_if_needed()
    assert migrations == ALL
    assert not schema.migrate_if_needed()
    assert migrations == ALL


def test_a_new_migration_is_noticed(migrations: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    schema.migrate_if_needed()
    monkeypatch.setattr(schema, "_fingerprint", lambda: 7)
    assert schema.migrate_if_needed()
    assert migrations == ALL * 2


def test_a_database_that_was_deleted_is_made_again(migrations: list[str]) -> None:
    schema.migrate_if_needed()
    Path(settings.DATABASES["telemetry"]["NAME"]).unlink()
    assert schema.migrate_if_needed()
    assert migrations == [*ALL, "telemetry"]


def test_a_file_that_is_no_database_is_refused(migrations: list[str]) -> None:
    Path(settings.DATABASES["default"]["NAME"]).write_bytes(b"something else entirely" * 50)
    with pytest.raises(StartRefused, match="cannot be used as a database"):
        schema.migrate_if_needed()


@pytest.mark.parametrize(("alias", "refused"), [("default", True), ("telemetry", False)])
def test_damage_behind_an_intact_first_page(migrations: list[str], alias: str, refused: bool) -> None:
    """Without its inventory the server cannot work, without its history it can."""
    file = Path(settings.DATABASES[alias]["NAME"])
    with closing(sqlite3.connect(file)) as connection, connection:
        for number in range(200):
            connection.execute(f"CREATE TABLE table_{number} (a, b, c)")
    content = file.read_bytes()
    file.write_bytes(content[:4096] + b"\x55" * (len(content) - 4096))
    schema._store(file, schema._fingerprint())
    if refused:
        with pytest.raises(StartRefused, match="cannot be used as a database"):
            schema.migrate_if_needed()
    else:
        schema.migrate_if_needed()


def test_stored_responses_are_private_and_set_aside_when_broken(migrations: list[str]) -> None:
    file = Path(settings.DATABASES["responses"]["NAME"])
    file.write_bytes(b"something else entirely" * 50)
    file.chmod(0o644)
    assert schema.migrate_if_needed()
    assert migrations == ALL
    assert file.stat().st_mode & 0o777 == 0o600
    aside = file.with_name("responses.sqlite3.broken")
    assert aside.read_bytes().startswith(b"something else")
    assert aside.stat().st_mode & 0o777 == 0o600


def test_tables_go_to_their_database() -> None:
    router = Router()
    assert router.db_for_read(EventRow) == router.db_for_write(EventRow) == "telemetry"
    assert router.db_for_write(ModelRecord) == "default"
    assert router.db_for_write(StoredResponse) == "responses"
    assert router.allow_migrate("telemetry", "monitoring")
    assert not router.allow_migrate("telemetry", "models_admin")
    assert not router.allow_migrate("default", "monitoring")
    assert not router.allow_relation(EventRow, ModelRecord)  # type: ignore[arg-type]


@pytest.mark.django_db(databases=ALL, transaction=True)
def test_connections_are_in_the_mode_that_writers_need() -> None:
    for alias in settings.DATABASES:
        with connections[alias].cursor() as cursor:
            values: dict[str, Any] = {}
            for name in ("journal_mode", "synchronous", "foreign_keys"):
                cursor.execute(f"PRAGMA {name}")
                values[name] = cursor.fetchone()[0]
        assert values == {"journal_mode": "wal", "synchronous": 1, "foreign_keys": 1}
        assert connections[alias].transaction_mode == "IMMEDIATE"  # type: ignore[attr-defined]
