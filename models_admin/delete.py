"""Deleting models: only what is ours, not while anybody uses it, and never through a link."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from filelock import Timeout

from inference.catalog import ModelRef
from inference.errors import Conflict, LmxError
from inference.models_on_disk import Removal
from models_admin.busy import Busy
from models_admin.catalog import DiskCatalog
from models_admin.fetch_lock import locked
from models_admin.fetch_place import REPLACED, put_all_back
from models_admin.manifest import sync
from models_admin.nested import is_below, models_below, works_below
from models_admin.our_places import DELETED, hidden_places, is_of_a_fetch
from models_admin.row import Row
from models_admin.survey import Survey, links_into, same_files, same_place, survey

_KEPT_OF_NAME = 48

_OWNERS = {
    "lmstudio": "belongs to LM Studio: delete it there",
    "huggingface-cache": "belongs to the Hugging Face cache: delete it with 'hf cache'",
}


class DeleteIncomplete(LmxError):
    """The disk refused to give up some file; what is left has a hidden name and is no model any more."""

    status, code = 500, "delete_incomplete"


class Remover:
    """``own`` are the directories where models may be deleted; ``in_use`` lists where what runs lies, and how;
    ``fetched`` tells the repositories (lower case) whose downloads go on."""

    def __init__(
        self,
        catalog: DiskCatalog,
        busy: Busy,
        own: Sequence[Path],
        in_use: Callable[[], Iterable[tuple[Path, str]]],
        fetched: Callable[[], Awaitable[Iterable[str]]],
    ) -> None:
        self._catalog, self._busy, self._in_use, self._fetched = catalog, busy, in_use, fetched
        self._own = [Path(place).absolute() for place in own]

    async def delete(
        self, model_id: str, *, dry_run: bool = False, forget: bool = False, path: str | None = None
    ) -> Removal:
        """See ``inference.models_on_disk.Keeper``."""
        ref = self._catalog.resolve_exactly(model_id)
        if path is not None and path != str(ref.path):
            raise Conflict(
                f"{model_id} is another model now: {ref.path}, not {path}. Look again at what would be deleted.",
                code="model_changed",
                details={"path": str(ref.path)},
            )
        row = self._catalog.row(ref.path)
        if row is None or (row.vanished_at is not None and not forget):
            raise Conflict(f"{ref.id} cannot be deleted: {ref.problem}", code="model_not_on_disk")
        if not forget:
            self._check_ours(ref, row)
        # A client that leaves must not leave half a deletion unrecorded.
        return await asyncio.shield(asyncio.ensure_future(self._work(ref, row, dry_run=dry_run, forget=forget)))

    async def _work(self, ref: ModelRef, row: Row, *, dry_run: bool, forget: bool) -> Removal:
        with self._busy.work(row.found.repo, "delete"):
            self._check_idle(ref)
            if forget:
                return await self._forget(ref, dry_run=dry_run)
            await self._check_below(ref, row.found.root)
            return await self._delete(ref, row.found.root, dry_run=dry_run)

    async def finish(self) -> None:
        """Delete what earlier deletions, cut off, have left under hidden names; put back what a replacing left so."""
        await asyncio.to_thread(_finish, self._own)

    def _check_ours(self, ref: ModelRef, row: Row) -> None:
        root, path = row.found.root, row.found.path
        why = _OWNERS.get(row.found.source)
        if why is None and not any(same_place(root, own) for own in self._own):
            why = f"lies in {root}, where this server only reads: delete it there"
        if why is None and same_place(path, root):
            why = "is the directory of the models itself"
        inside = os.path.join(os.path.realpath(root), os.path.relpath(path, root))
        if why is None and os.path.realpath(path) != inside:
            why = f"is reached through a link: {path} leads to {os.path.realpath(path)}"
        if why is not None:
            raise Conflict(
                f"{ref.id} {why}. To take it off the list and delete nothing, ask to forget it.", code="model_not_ours"
            )

    def _check_idle(self, ref: ModelRef) -> None:
        # By directory: a run keeps the id that it began with, while the catalog may have given it to another revision.
        for path, state in self._in_use():
            words = "in memory" if state == "ready" else state
            if same_place(path, ref.path):
                raise Conflict(f"{ref.id} is {words}: unload it first", code="model_loaded")
            if is_below(path, ref.path):
                raise Conflict(f"{path}, a model in the directory of {ref.id}, is {words}", code="model_loaded")

    async def _check_below(self, ref: ModelRef, root: Path) -> None:
        """No other model lies in its directory, and none is being put there."""
        place = ref.path.relative_to(root).as_posix().lower()
        for repo in await self._fetched():
            if repo.startswith(f"{place}/"):
                raise Conflict(f"{repo} is being downloaded into the directory of {ref.id}", code="model_busy")
        # Those that a scan does not find any more, as it ends at the first model on its way, are there all the same.
        known = {ref.id: ref.path for ref in self._catalog.all()}
        known |= {str(row.found.path): row.found.path for row in self._catalog.rows() if row.found.path != ref.path}
        works = await asyncio.to_thread(works_below, ref.path)
        if works:
            raise Conflict(
                f"{ref.id} cannot be deleted: a download or conversion in its directory is not done, or was cut off: "
                f"{', '.join(works[:5])}",
                code="model_busy",
            )
        models = await asyncio.to_thread(models_below, ref.path, known)
        if models:
            raise Conflict(
                f"{ref.id} cannot be deleted: its directory holds other models: {', '.join(models[:5])}",
                code="model_shared",
                details={"shared_with": models},
            )

    async def _forget(self, ref: ModelRef, *, dry_run: bool) -> Removal:
        if not dry_run:
            await self._catalog.record(ref.path, _hidden)
        return Removal(ref.id, str(ref.path), False, not dry_run, 0, 0, 0)

    async def _delete(self, ref: ModelRef, root: Path, *, dry_run: bool) -> Removal:
        if not await asyncio.to_thread(os.path.isdir, ref.path):
            raise Conflict(f"{ref.id} is not on the disk any more: {ref.path}", code="model_not_on_disk")
        others = {one.id: one.path for one in self._catalog.all() if one.path != ref.path}
        others |= {str(one.found.path): one.found.path for one in self._catalog.hidden()}
        found, users, sharers = await asyncio.to_thread(_look, ref.path, others)
        if users:
            raise Conflict(
                f"{ref.id} cannot be deleted: {', '.join(users[:5])} would lose files, which are links into it",
                code="model_shared",
                details={"shared_with": users},
            )
        removal = Removal(ref.id, str(ref.path), False, False, found.files, found.freed, found.shared, tuple(sharers))
        if dry_run:
            return removal
        with _alone(ref, root):
            await self._check_below(ref, root)
            # From here to the new names nobody else has a turn: what is not loaded now finds nothing to load.
            self._check_idle(ref)
            hidden = _hide_all(ref)
            try:
                await asyncio.to_thread(_remove, ref.path, hidden)
            except OSError as error:
                raise DeleteIncomplete(
                    f"{ref.id} could not be deleted wholly: {error.filename}: {error.strerror}. What is left lies in "
                    f"{ref.path.parent} under hidden names that end in {DELETED}"
                ) from error
            finally:
                # Who deleted it need not be told for a week that it is gone.
                await self._catalog.record(ref.path, _hidden)
        return replace(removal, deleted=True)


def _hidden(row: Row) -> Row:
    return replace(row, forgotten=row.found.fingerprint)


def _look(path: Path, others: dict[str, Path]) -> tuple[Survey, list[str], list[str]]:
    places = _places(path)
    found = survey(places)
    return found, links_into(places, others), same_files(found.inodes, others)


def _places(path: Path) -> list[Path]:
    """The model's directory, and what an unfinished fetch of it has left; links are nobody's."""
    beside = [path.with_name(f".{path.name}.{what}") for what in ("partial", "replaced")]
    ours = [place for place in beside if is_of_a_fetch(place.name)]
    return [path, *(place for place in ours if os.path.isdir(place) and not os.path.islink(place))]


@contextlib.contextmanager
def _alone(ref: ModelRef, root: Path) -> Iterator[None]:
    """Not while another server on the same directory fetches it; the lock is that of ``fetch_worker``."""
    try:
        with contextlib.ExitStack() as stack:
            try:
                lock = stack.enter_context(locked(ref.path))
            except Timeout:
                raise Conflict(f"another process is fetching {ref.id}", code="model_busy") from None
            except OSError as error:
                raise _refused(ref, error) from error
            stack.callback(Path(lock.lock_file).unlink, missing_ok=True)
            yield
    finally:
        remove_empty(ref.path.parent, root)


def _hide_all(ref: ModelRef) -> list[Path]:
    """Hide the model last: cut off before, it stays. All or nothing: one that is refused its name takes none."""
    hidden = list[tuple[Path, Path]]()
    try:
        for place in reversed(_places(ref.path)):
            hidden.append((place, _hide(place)))
    except OSError as error:
        for place, name in reversed(hidden):
            with contextlib.suppress(OSError):
                name.rename(place)
        raise _refused(ref, error) from error
    return [name for _, name in hidden]


def _refused(ref: ModelRef, error: OSError) -> Conflict:
    if not os.path.lexists(ref.path):
        return Conflict(f"{ref.id} is not on the disk any more: {ref.path}", code="model_not_on_disk")
    why = error.strerror or str(error)
    return Conflict(f"{ref.id} cannot be deleted, and nothing was: {ref.path}: {why}", code="disk_refused")


def _hide(place: Path) -> Path:
    """A name at which no scan looks: at once, so that a kill leaves no half of a model."""
    name = place.name.lstrip(".")[:_KEPT_OF_NAME]
    hidden = place.with_name(f".{name}{DELETED}")
    number = 1
    while os.path.lexists(hidden):
        number += 1
        hidden = place.with_name(f".{name}-{number}{DELETED}")
    place.rename(hidden)
    return hidden


def _remove(path: Path, hidden: Sequence[Path]) -> None:
    for place in hidden:
        shutil.rmtree(place)
    if os.path.isdir(path.parent):
        sync(path.parent)


def remove_empty(directory: Path, root: Path) -> None:
    """Remove the directories of an organisation and a repository that hold nothing any more; never the root."""
    with contextlib.suppress(OSError):
        while directory != root and directory.is_relative_to(root):
            directory.rmdir()
            directory = directory.parent


def _finish(own: Sequence[Path]) -> None:
    for root in own:
        put_all_back(hidden_places(root, (REPLACED,)))
        for place in hidden_places(root, (DELETED,)):
            shutil.rmtree(place, ignore_errors=True)
            remove_empty(place.parent, root)
