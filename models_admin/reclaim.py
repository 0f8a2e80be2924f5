"""Freeing what the ledger says nobody needs: nothing else, nothing that runs or is fetched, and through no link."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import stat
from collections.abc import Awaitable, Callable, Container, Iterable, Iterator
from pathlib import Path

from filelock import Timeout

from inference.engine.prefix_disk import PrefixDisk
from inference.errors import Conflict, NotFound
from inference.models_on_disk import DiskUse, Reclaimed, Skipped, Use
from models_admin.busy import Busy
from models_admin.delete import remove_empty
from models_admin.disk_ledger import Own
from models_admin.fetch_lock import locked
from models_admin.fetch_place import REPLACED
from models_admin.our_places import DELETED, PARTIAL


class NotReclaimable(NotFound):
    code = "not_reclaimable"


class _Spared(Exception):
    """It is needed after all; the message says by whom."""


class Reclaimer:
    """``look`` makes the ledger anew; ``known`` tells the ids of the models that are on the disk or run, ``fetched``
    the repositories (lower case) whose downloads go on."""

    def __init__(
        self,
        own: Own,
        busy: Busy,
        look: Callable[[], Awaitable[DiskUse]],
        known: Callable[[], Iterable[str]],
        fetched: Callable[[], Awaitable[Container[str]]],
    ) -> None:
        self._own, self._busy, self._look, self._known, self._fetched = own, busy, look, known, fetched
        self._turn = asyncio.Lock()

    async def reclaim(self, *, kind: str | None, path: str | None, dry_run: bool) -> Reclaimed:
        """See ``inference.models_on_disk.Keeper``."""
        # A client that leaves must not leave half of it undone.
        return await asyncio.shield(asyncio.ensure_future(self._work(kind, path, dry_run=dry_run)))

    async def _work(self, kind: str | None, path: str | None, *, dry_run: bool) -> Reclaimed:
        async with self._turn:
            found = [use for use in (await self._look()).others if use.reclaimable]
            chosen = [use for use in found if kind in (None, use.kind) and path in (None, use.path)]
            if path is not None and not chosen:
                raise NotReclaimable(
                    f"{path[:300]} is nothing that the ledger says nobody needs; look at it again", param="path"
                )
            if dry_run:
                return Reclaimed(True, sum(use.reclaimable for use in chosen), tuple(chosen), ())
            done, skipped = list[Use](), list[Skipped]()
            for use in chosen:
                try:
                    await self._free(use)
                    done.append(use)
                except (Conflict, _Spared) as refusal:
                    skipped.append(Skipped(use.path, str(getattr(refusal, "message", refusal))))
                except OSError as error:
                    skipped.append(Skipped(use.path, error.strerror or str(error)))
            return Reclaimed(False, sum(use.reclaimable for use in done), tuple(done), tuple(skipped))

    async def _free(self, use: Use) -> None:
        place = Path(use.path)
        if use.kind == "prefix_cache":
            if place.name in {PrefixDisk(self._own.prefix, 0).directory(name).name for name in self._known()}:
                raise _Spared("it is the prefix cache of a model that is here now")
            await asyncio.to_thread(remove_folder, self._own.prefix, place)
        elif use.kind in ("partial", "leftover"):
            root = next((one for one in self._own.models if place.is_relative_to(one)), None)
            if root is None:
                raise _Spared("it does not lie in this server's own directory")
            repo = place.parent.relative_to(root).as_posix()
            # From here to the new name nobody else has a turn: no fetch of it begins, and none is under way.
            with self._busy.work(repo, "delete"), _alone(place, root):
                if use.kind == "partial" and repo.lower() in await self._fetched():
                    raise _Spared("a download goes on with it")
                await asyncio.to_thread(_remove_hidden, root, place)
        else:
            raise _Spared(f"nothing of the kind {use.kind} is deleted for you")


@contextlib.contextmanager
def _alone(place: Path, root: Path) -> Iterator[None]:
    """Not while another server on the same directory fetches that model, or puts it back."""
    target = _target(place)
    if target is None:
        yield
        return
    try:
        with contextlib.ExitStack() as stack:
            try:
                lock = stack.enter_context(locked(target))
            except Timeout:
                raise _Spared("another process is fetching it") from None
            stack.callback(Path(lock.lock_file).unlink, missing_ok=True)
            if place.name.endswith(REPLACED) and not os.path.lexists(target):
                raise _Spared("it is the only copy of a model, which the next start of the server puts back")
            yield
    finally:
        remove_empty(place.parent, root)


def _target(place: Path) -> Path | None:
    """The model's directory whose remains these are; None of what is being deleted anyway."""
    for suffix in (PARTIAL, REPLACED):
        if place.name.endswith(suffix):
            return place.with_name(place.name.removeprefix(".").removesuffix(suffix))
    return None


def _remove_hidden(root: Path, place: Path) -> None:
    """At once under a name at which nobody looks, which the next start deletes wholly if this is cut off."""
    remove_folder(root, place, as_name=None if place.name.endswith(DELETED) else f"{place.name}{DELETED}")


def remove_folder(root: Path, place: Path, *, as_name: str | None = None) -> None:
    """Delete the folder ``place``, below ``root``; a link, or one on the way to it, is refused. Raises ``OSError``.

    ``as_name``: what it is called meanwhile.
    """
    with contextlib.ExitStack() as stack:

        def opened(name: str | Path, above: int | None) -> int:
            no_link = os.O_NOFOLLOW if above is not None else 0
            descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | no_link, dir_fd=above)
            stack.callback(os.close, descriptor)
            return descriptor

        folder = opened(root, None)
        for part in place.relative_to(root).parts[:-1]:
            folder = opened(part, folder)
        name = place.name
        if not stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            raise NotADirectoryError(20, "it is no folder", str(place))
        if as_name is not None:
            os.rename(name, as_name, src_dir_fd=folder, dst_dir_fd=folder)
            name = as_name
        shutil.rmtree(name, dir_fd=folder)
        os.fsync(folder)
