"""What the API needs of jobs, and of fetching models from the Hub. ``models_admin.fetch`` implements ``Fetcher``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

JobWord = Literal["queued", "running", "paused", "done", "failed", "cancelled", "already_downloaded"]


@dataclass(frozen=True, slots=True)
class FileStatus:
    """One file of a fetch: ``done`` of its ``size`` bytes are here."""

    name: str
    size: int
    done: int


@dataclass(frozen=True, slots=True)
class JobStatus:
    """A job at one moment. ``done`` of ``total`` ``unit``s of its ``phase``; ``total`` 0 when nobody knows.

    ``bytes_per_second`` over the last seconds and ``seconds_left`` hold while it runs (0 and None when unknown).
    ``message`` is one sentence for people: what it does or waits for, after a failure or a pause why; ``code`` is that
    for programs. Times are in seconds since the epoch. ``already_downloaded`` is the end of a fetch that found
    everything in its place. ``result`` of a fetch has ``path``, ``repo``, ``revision`` (the commit) and ``bytes``;
    where it was to be loaded, ``auto_loaded`` once that has ended, and ``load_error``. ``place`` is 1 for the queued
    one that is next. ``files`` are the largest files of a fetch, 200 at most.
    """

    job: int
    kind: str
    subject: str
    state: JobWord
    phase: str = ""
    done: int = 0
    total: int = 0
    unit: str = "bytes"
    bytes_per_second: float = 0.0
    seconds_left: float | None = None
    message: str = ""
    code: str = ""
    started_at: float | None = None
    finished_at: float | None = None
    result: dict[str, Any] = field(default_factory=dict)
    files: tuple[FileStatus, ...] = ()
    place: int | None = None
    queued_at: float | None = None


class Fetcher(Protocol):
    """Starts fetches and tells of jobs of every kind. All methods belong to the server's event loop."""

    async def start(
        self, repo: str, revision: str | None = None, quantization: str | None = None, *, auto_load: bool = False
    ) -> JobStatus:
        """Fetch ``org/name`` (or its address at the Hub); returns once its size is known, it waits, or all is there.

        It waits while others are fetched before it (``queued``), and for a Hub that does not answer. The same model
        twice is one job, also where that is paused: it goes on then. ``auto_load``: it is loaded when it is done.

        Raises ``LmxError`` for what is known by then: 400 no such name or nothing usable in it, 403 ``model_gated``,
        404, 409 ``model_busy``, ``name_taken`` and ``volume_not_mounted`` (the job is paused), 429 too many wait, 503
        ``hub_error``, 507 ``insufficient_storage`` (the job is paused).
        A caller that is cancelled leaves the job running.
        """
        ...

    async def wait(self, job: int) -> JobStatus:
        """The job's end; returns at once when it does not run here. Raises ``NotFound``."""
        ...

    async def status(self, job: int) -> JobStatus:
        """Raises ``NotFound``."""
        ...

    async def jobs(self, limit: int = 100) -> list[JobStatus]:
        """The newest first; those that have ended without their files."""
        ...

    async def cancel(self, job: int) -> JobStatus:
        """End a job that runs, is queued or paused, and return when it is gone; what it has fetched stays.

        Raises ``NotFound``, ``Conflict``.
        """
        ...

    async def pause(self, job: int) -> JobStatus:
        """Have a fetch that runs or is queued wait until it is resumed, also over a restart.

        Raises ``NotFound``, ``Conflict``.
        """
        ...

    async def resume(self, job: int) -> JobStatus:
        """Have a fetch that is paused, has failed or was cancelled go on, under its number, when its turn comes.

        Raises ``NotFound``, ``Conflict``, and 429 where too many wait.
        """
        ...
