"""What the API needs for keeping the models on disk in order. ``models_admin`` implements it."""

from __future__ import annotations

from typing import Protocol

from inference.fetching import JobStatus


class Keeper(Protocol):
    """All methods belong to the server's event loop."""

    async def verify(self, model_id: str) -> JobStatus:
        """Read every file of a model as a job; returns once it runs. The same model twice is one job.

        A run that was cut off within the last days goes on: its files are not read again while their size and time
        stay. Raises ``ModelNotFound``, 409 ``model_busy`` and ``model_not_on_disk``, 429 too many at once.
        """
        ...

    async def wait(self, job: int) -> JobStatus:
        """The end of a verification, with what was found recorded; at once when it does not run here."""
        ...
