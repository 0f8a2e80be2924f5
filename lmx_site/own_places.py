"""What of the disk is this server's own, for the ledger and for deletions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lmx_site.home import Places, hub_cache
from models_admin.demo_source import wheel_cache
from models_admin.disk_ledger import Own


def own_places(home: Path, places: Places, quotas: Mapping[str, int]) -> Own:
    """All that is below ``LMX_HOME`` or was put elsewhere by the configuration, and the Hub's cache beside it.

    ``quotas`` are bytes by kind.
    """
    log = places.log_file
    kept = {
        "demo_cache": [wheel_cache(home)],
        "responses": _database(home / "responses.sqlite3"),
        "history": _database(home / "telemetry.sqlite3"),
        "inventory": _database(home / "inventory.sqlite3"),
        "logs": [log, *(log.with_name(f"{log.name}.{number}") for number in range(1, 10))],
    }
    if hub_cache() not in places.roots:
        kept["hub_cache"] = [hub_cache()]
    models = list(dict.fromkeys([places.models, home / "models"]))
    return Own(models, home / "cache" / "prefix", kept, quotas)


def _database(file: Path) -> list[Path]:
    return [file, *(file.with_name(file.name + end) for end in ("-wal", "-shm"))]
