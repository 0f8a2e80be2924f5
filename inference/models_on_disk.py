"""What the API needs for keeping the models on disk in order. ``models_admin`` implements it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from inference.catalog import DiskState, ModelRef
from inference.fetching import JobStatus


@dataclass(frozen=True, slots=True)
class Removal:
    """What a deletion frees, or would. Sizes in bytes as the disk counts them.

    ``freed_bytes`` leaves out ``shared_bytes``, of files that have a name elsewhere too; ``shared_with`` names the
    models among these. ``deleted`` is False for a dry run and where a model was only forgotten.
    """

    model_id: str
    path: str
    deleted: bool
    forgotten: bool
    files: int
    freed_bytes: int
    shared_bytes: int
    shared_with: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FileOnDisk:
    """A file of a model. ``expected`` is the SHA-256 it should have, ``actual`` the one that was read, both empty where
    nobody knows. ``basis``: ``published`` or ``first sight``, empty where none has read it; ``sound`` is None then.

    ``verified_at`` is in seconds since the epoch.
    """

    name: str
    size: int
    expected: str
    actual: str
    basis: str
    sound: bool | None
    verified_at: float | None


@dataclass(frozen=True, slots=True)
class Hidden:
    """A model that its owner took off the list. ``name`` is its repository, with its revision if it has one."""

    name: str
    path: str
    source: str
    disk_state: DiskState
    weight_bytes: int


@dataclass(frozen=True, slots=True)
class Use:
    """Something that takes space. ``bytes`` as the disk counts them, files with several names once.

    ``reclaimable`` is what of it would be free if it were deleted, of what nobody needs; ``why`` says that it is so.
    ``name`` is the model it belongs to, if any.
    """

    kind: str
    path: str
    bytes: int
    name: str = ""
    reclaimable: int = 0
    why: str = ""


@dataclass(frozen=True, slots=True)
class RootUse:
    """A directory of models: all that is in it, and what its models take of that. ``present`` False: not mounted."""

    path: str
    owner: str
    present: bool
    bytes: int
    models: tuple[Use, ...]


@dataclass(frozen=True, slots=True)
class Volume:
    """A volume, by where it is mounted, and the places of ours that are on it."""

    path: str
    total_bytes: int
    free_bytes: int
    places: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Models with the same files: ``bytes`` would be saved if one of them were kept. ``why``: ``content`` where their
    hashes say so, ``revision`` where only name and revision do."""

    models: tuple[str, ...]
    paths: tuple[str, ...]
    bytes: int
    why: str


@dataclass(frozen=True, slots=True)
class Quota:
    """How much there may be of a kind, and is."""

    kind: str
    limit_bytes: int
    used_bytes: int


@dataclass(frozen=True, slots=True)
class DiskUse:
    """``others`` are all that lies outside the roots, and what in them is no model: unfinished downloads, leftovers,
    models off the list, orphans that belong to no model."""

    roots: tuple[RootUse, ...]
    others: tuple[Use, ...]
    volumes: tuple[Volume, ...]
    duplicates: tuple[Duplicate, ...] = ()
    quotas: tuple[Quota, ...] = ()


@dataclass(frozen=True, slots=True)
class Skipped:
    path: str
    why: str


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """What was freed, or would be for a dry run; ``skipped`` turned out to be needed, or could not be deleted."""

    dry_run: bool
    freed_bytes: int
    freed: tuple[Use, ...]
    skipped: tuple[Skipped, ...]


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

    async def delete(
        self, model_id: str, *, dry_run: bool = False, forget: bool = False, path: str | None = None
    ) -> Removal:
        """Delete a model of our own directory and what is left of its downloads; ``dry_run`` only says what that frees.

        ``forget`` takes a model of any directory off the list until its files change, and deletes nothing. ``model_id``
        is an id or alias, never a guess; ``path`` is where the caller was told that the model lies. Raises
        ``ModelNotFound``; 409 ``model_changed`` (the name means another directory than ``path``),
        ``model_loaded``, ``model_busy``, ``model_not_ours``, ``model_shared`` (others have links
        into it), ``model_not_on_disk``; 500 ``delete_incomplete``.
        """
        ...

    def hidden(self) -> list[Hidden]:
        """The models that were taken off the list and are on the disk, or on a volume that is away; by name."""
        ...

    async def restore(self, name: str, *, path: str | None = None) -> ModelRef:
        """Bring a hidden model back to the list. Raises ``ModelNotFound``, and 409 ``model_ambiguous`` where several
        have that name and no ``path`` says which."""
        ...

    async def files(self, path: Path) -> list[FileOnDisk]:
        """The files of the model in that directory, by name, as they are recorded; none of one that is not known."""
        ...

    async def disk(self) -> DiskUse:
        """What takes space, by looking at every file; callers at the same time share one look."""
        ...

    async def reclaim(self, *, kind: str | None = None, path: str | None = None, dry_run: bool = False) -> Reclaimed:
        """Delete what the ledger, made anew, says is reclaimable: of one kind, at one path, or all of it.

        Raises 404 ``not_reclaimable`` where ``path`` is no such thing.
        """
        ...
