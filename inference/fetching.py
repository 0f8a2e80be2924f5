"""What the API needs of jobs, and of fetching models from the Hub. ``models_admin.fetch`` implements ``Fetcher``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

JobWord = Literal["queued", "running", "done", "failed", "cancelled", "already_downloaded"]


@dataclass(frozen=True, slots=True)
class JobStatus:
    """A job at one moment. ``done`` of ``total`` ``unit``s of its ``phase``; ``total`` 0 when nobody knows.

    ``bytes_per_second`` over the last seconds and ``seconds_left`` hold while it runs (0 and None when unknown).
    ``message`` is one sentence for people, after a failure why; ``code`` is the failure's for programs. Times are in
    seconds since the epoch. ``already_downloaded`` is the end of a fetch that found everything in its place.
    ``result`` of a fetch has ``path``, ``repo``, ``revision`` (the commit) and ``bytes``.
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


class Fetcher(Protocol):
    """Starts fetches and tells of jobs of every kind. All methods belong to the server's event loop."""

    async def start(self, repo: str, revision: str | None = None, quantization: str | None = None) -> JobStatus:
        """Fetch ``org/name`` (or its address at the Hub); returns once its size is known, or it is there already.

        The same model twice is one job. Raises ``LmxError`` for what is known by then: 400 no such name or nothing
        usable in it, 403 ``model_gated``, 404, 429 too many at once, 503 ``hub_unreachable``, 507
        ``insufficient_storage``. A caller that is cancelled leaves the job running.
        """
        ...

    async def wait(self, job: int) -> JobStatus:
        """The job's end; returns at once when it does not run here. Raises ``NotFound``."""
        ...

    async def status(self, job: int) -> JobStatus:
        """Raises ``NotFound``."""
        ...

    async def jobs(self, limit: int = 100) -> list[JobStatus]:
        """The newest first."""
        ...

    async def cancel(self, job: int) -> JobStatus:
        """End a running job and return when it is gone; what it has fetched stays. ``NotFound``, ``Conflict``."""
        ...
