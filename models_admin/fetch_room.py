"""Whether a download that has just told its size has room: under the owner's limit, and beside the others under way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from models_admin.fetch_line import Fetch
from models_admin.job_words import amount
from models_admin.jobs import End
from models_admin.models import JobState
from models_admin.quota import ModelsQuota, QuotaExceeded


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes: ``missing`` still of it, ``free`` on its disk; ``keep_free`` must stay so, ``promised`` are others'."""

    missing: int
    free: int
    keep_free: int
    promised: int


def no_room(fetch: Fetch, room: Room, held: Mapping[str, int], quota: ModelsQuota | None) -> End | None:
    """How a download that knows its size is paused that has no room; None for one that has.

    What others that are under way still need is theirs; its own program sees what is free. ``held`` are the bytes that
    they will have, by their places: see ``Line.held``.
    """
    repo = fetch.wanted.repo
    try:
        if quota is not None:
            quota.check(repo, fetch.latest.total, fetch.place, held)
    except QuotaExceeded as error:
        return End(JobState.PAUSED, error.message, error.code, error.details)
    if not room.promised or room.missing <= room.free - room.keep_free - room.promised:
        return None
    numbers = {"needed_bytes": room.missing, "free_bytes": room.free, "keep_free_bytes": room.keep_free}
    return End(
        JobState.PAUSED,
        f"{repo} needs {amount(room.missing)} more; {amount(room.free)} are free, of which "
        f"{amount(room.promised)} are promised to other downloads and {amount(room.keep_free)} must stay free. "
        "Resume it when they are done, or free some space.",
        "insufficient_storage",
        numbers | {"promised_bytes": room.promised},
    )
