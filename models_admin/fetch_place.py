"""A fetched model takes its place, also where one is that was not sound; nothing of its owner's is lost by that."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

from filelock import Timeout

from models_admin.fetch_lock import locked
from models_admin.manifest import NAME as MANIFEST
from models_admin.manifest import sync

REPLACED = ".replaced"


def replaced_name(target: Path) -> Path:
    """Where the model in ``target`` is while another takes its place."""
    return target.with_name(f".{target.name}{REPLACED}")


def take_place(partial: Path, target: Path, published: Collection[str]) -> None:
    """Give ``partial`` the name ``target``. Files there that are not among those ``published`` come along.

    Killed at any moment, the old model or the new one is whole below one of three names: see ``put_back``.
    """
    if not os.path.lexists(target):
        partial.rename(target)
    else:
        _bring_along(target, partial, published)
        old = replaced_name(target)
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
        partial.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    sync(target.parent)


def _bring_along(target: Path, partial: Path, published: Collection[str]) -> None:
    """Copy what the owner put beside the published files: an adapter, an edited template under another name."""
    for path in _files(target):
        name = path.relative_to(target).as_posix()
        there = partial / name
        if name in published or name == MANIFEST or os.path.lexists(there):
            continue
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, there, follow_symlinks=False)


def _files(directory: Path) -> Iterator[Path]:
    for base, folders, names in os.walk(directory):
        links = [name for name in folders if (Path(base) / name).is_symlink()]
        yield from (Path(base) / name for name in (*names, *links))


def put_back(target: Path) -> bool:
    """Whether a model was out of its place, left there by a kill in the middle of ``take_place``. Call it locked."""
    old = replaced_name(target)
    if os.path.lexists(target) or not os.path.isdir(old) or os.path.islink(old):
        return False
    old.rename(target)
    sync(target.parent)
    return True


def put_all_back(places: Iterator[Path]) -> list[Path]:
    """The models that were put back, of the ``places`` that end in ``REPLACED``; those in use elsewhere are left."""
    back = []
    for place in places:
        target = place.with_name(place.name.removeprefix(".").removesuffix(REPLACED))
        try:
            with locked(target):
                if put_back(target):
                    back.append(target)
        except (Timeout, OSError):
            continue
    return back
