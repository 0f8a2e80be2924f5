"""Whether the volume that the models lie on is mounted: nothing is fetched into an empty mount point."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

from inference.errors import Conflict, LmxError
from models_admin.jobs import End
from models_admin.models import JobState
from models_admin.row import Row
from models_admin.scan import is_away

_GONE = ("absent", "offline")


class VolumeAway(Conflict):
    """It was mounted when models were last seen on it."""

    code = "volume_not_mounted"


async def check_volume(rows: Sequence[Row], models: Path) -> None:
    """Raise ``VolumeAway`` where the directory ``models`` is not where its models, of ``rows``, were last seen."""
    if (mount := await asyncio.to_thread(_away, rows, models)) is not None:
        raise VolumeAway(
            f"The volume of {models} is not mounted: it was at {mount}. Mount it, and then resume the download.",
            details={"mount": mount},
        )


def ended_by(error: LmxError) -> End:
    """What becomes of a fetch that is refused as its turn comes: it waits for its volume, else it has failed."""
    state = JobState.PAUSED if isinstance(error, VolumeAway) else JobState.FAILED
    return End(state, error.message, error.code, dict(error.details or {}) if state is JobState.PAUSED else {})


def _away(rows: Sequence[Row], models: Path) -> str | None:
    ours = [row for row in rows if row.found.root == models]
    # Where models are there now, those of a volume that was used before say nothing.
    last = [row for row in ours if row.disk_state not in _GONE] or ours
    place = Path(os.path.realpath(models))
    for found in {row.found.mount: row.found for row in last}.values():
        # A model of another volume may be linked to from here.
        if found.mount and place.is_relative_to(found.mount) and is_away(found):
            return found.mount
    return None
