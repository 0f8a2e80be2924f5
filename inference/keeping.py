"""What the API needs for keeping models up to date, and for converting them. ``models_admin`` implements it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from inference.catalog import ModelRef
from inference.fetching import JobStatus
from inference.models_on_disk import Removal

UpdateWord = Literal["running", "updated", "up_to_date", "failed", "waiting"]


@dataclass(frozen=True, slots=True)
class ChangedFile:
    """A file that an update would bring, with its bytes; ``new`` where there is none of that name here."""

    name: str
    bytes: int
    change: Literal["changed", "new"] = "changed"


@dataclass(frozen=True, slots=True)
class Update:
    """What the Hub has now: ``bytes`` are those of ``files``, all others are here already.

    ``documents_only``: nothing but the README or the licence differs, so the model would be the same.
    """

    commit: str
    bytes: int
    files: tuple[ChangedFile, ...]
    removed: tuple[str, ...]
    documents_only: bool


@dataclass(frozen=True, slots=True)
class Trial:
    """A revision that has not answered a smoke prompt: it waits, ``reason`` says why, or it failed."""

    state: Literal["waiting", "failed"]
    reason: str = ""
    at: float | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """What keeping has to say of a model. Times in seconds since the epoch.

    ``is_current``: it has its repository's bare name. ``superseded_at`` is when another took that from it. ``update``
    is None where the Hub has nothing else, or was not asked (``checked_at`` None).
    """

    is_current: bool = True
    update: Update | None = None
    checked_at: float | None = None
    trial: Trial | None = None
    superseded_at: float | None = None


@dataclass(frozen=True, slots=True)
class Looked:
    """One model after the Hub was asked: ``update``, or why it is not known, or neither: nothing else is there."""

    model_id: str
    update: Update | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Updated:
    """How an update stands. ``revision`` is the new one (empty while nobody knows), ``previous`` had the name before.

    ``kept`` is what deleting the previous one would free.
    """

    model_id: str
    outcome: UpdateWord
    job: JobStatus
    revision: str = ""
    previous: str = ""
    reason: str = ""
    kept: Removal | None = None


@dataclass(frozen=True, slots=True)
class RolledBack:
    """``model_id`` means ``revision`` again, in ``path``; ``previous`` is called ``previous_id`` now."""

    model_id: str
    revision: str
    path: str
    previous: str
    previous_id: str


@dataclass(frozen=True, slots=True)
class ConvertTo:
    """``bits`` None keeps a GGUF file's own quantization; the other two None: what suits the machine."""

    bits: int | None = None
    group_size: int | None = None
    dtype: str | None = None


@dataclass(frozen=True, slots=True)
class Conversion:
    """A conversion under way, or ended. ``model_id`` is what the result is called, in ``path``."""

    model_id: str
    path: str
    job: JobStatus
    origin: dict[str, Any] = field(default_factory=dict)


class Updater(Protocol):
    """All methods belong to the server's event loop."""

    async def check(self, model_id: str | None = None) -> list[Looked]:
        """Ask the Hub what it has of one model, or of all that came from there. Downloads nothing.

        Raises ``ModelNotFound``; 409 ``not_from_hub``; 503 ``hub_unreachable``.
        """
        ...

    async def update(self, model_id: str) -> Updated:
        """Fetch what the Hub has now as a job; returns once it runs. The name goes over when the new one has answered.

        Raises what ``Fetcher.start`` does, and 409 ``not_from_hub``.
        """
        ...

    async def wait(self, model_id: str, job: int) -> Updated:
        """The end of an update: of its job, and of the smoke prompt after it."""
        ...

    async def rollback(self, model_id: str, revision: str | None = None, *, forward: bool = False) -> RolledBack:
        """Let the bare name mean the revision before this one, the one after it, or the one named.

        Raises ``ModelNotFound``, 404 ``revision_not_found``, 409 ``no_other_revision``, ``model_not_usable`` and
        ``model_busy``.
        """
        ...

    def kept(self, refs: Sequence[ModelRef]) -> list[Kept]:
        """What there is to say of each."""
        ...


class Converter(Protocol):
    """All methods belong to the server's event loop."""

    async def convert(
        self, source: str, to: ConvertTo, *, name: str | None = None, is_path: bool = False
    ) -> Conversion:
        """Convert a model, or the GGUF file at a path, as a job; returns once it runs. The same twice is one job.

        Raises ``ModelNotFound``, 400 for what cannot be converted so, 409 ``name_taken`` and ``model_busy``, 429, 507
        ``insufficient_storage`` and ``insufficient_memory``.
        """
        ...

    async def wait(self, conversion: Conversion) -> Conversion:
        """Its end."""
        ...
