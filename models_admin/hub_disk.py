"""Whether the disk has room for a download, and what of it lies there from one that was cut off. Reads the disk."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from inference.finding import DiskRoom, HubFile, HubModel
from models_admin import synced
from models_admin.second_names import plain_size


def with_parts(models: Path, model: HubModel, files: Sequence[HubFile]) -> list[HubFile]:
    """The files with what is here of each, in ``models``, where a download would go on."""
    partial = models / model.model_id / f".{model.revision}.partial"
    if not model.revision or not partial.is_dir():
        return list(files)
    return [replace(file, part=_on_disk(partial, file)) if file.fetched else file for file in files]


def _on_disk(partial: Path, file: HubFile) -> int:
    """As a download counts: a whole file, or the beginning of one."""
    if plain_size(partial / file.name) == file.size:
        return file.size
    part = synced.trusted(partial / f"{file.name}.part")
    return part if part <= file.size else 0


def room_for(models: Path, size: int, have: int, keep_free: int) -> DiskRoom | None:
    """``size`` and ``have`` of a download in bytes; None where the disk cannot be looked at."""
    for place in (models, *models.parents):
        try:
            free = shutil.disk_usage(place).free
        except OSError:
            continue
        needed = max(0, size - have)
        return DiskRoom(needed, have, free, keep_free, needed + keep_free <= free)
    return None
