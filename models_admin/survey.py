"""What directories take on a disk, and who else has names for their files. Blocking; follows no link."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_BLOCK = 512
"""What ``st_blocks`` counts, whatever the disk's own blocks are."""

Inode = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Survey:
    """Sizes in bytes as the disk counts them. ``freed``: of files without a name elsewhere. ``inodes`` of all files."""

    files: int
    freed: int
    shared: int
    inodes: frozenset[Inode]


def survey(places: Iterable[Path]) -> Survey:
    """Everything below ``places`` (directories or files); what cannot be read, or goes meanwhile, counts nothing."""
    names = dict[Inode, int]()
    about = dict[Inode, tuple[int, int]]()
    files = 0
    for status in _statuses(places):
        files += 1
        if stat.S_ISREG(status.st_mode):
            key = (status.st_dev, status.st_ino)
            names[key] = names.get(key, 0) + 1
            about[key] = (status.st_nlink, status.st_blocks * _BLOCK)
    alone = {key for key, (links, _) in about.items() if links <= names[key]}
    freed = sum(size for key, (_, size) in about.items() if key in alone)
    shared = sum(size for key, (_, size) in about.items() if key not in alone)
    return Survey(files, freed, shared, frozenset(about))


def _statuses(places: Iterable[Path]) -> Iterator[os.stat_result]:
    """Of every file and link below, not of directories."""
    for place in places:
        if os.path.isdir(place) and not os.path.islink(place):
            for base, _, found in os.walk(place):
                yield from (status for name in found if (status := _status(os.path.join(base, name))) is not None)
        elif (status := _status(place)) is not None:
            yield status


def _status(path: str | Path) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except OSError:
        return None


def same_place(one: Path, other: Path) -> bool:
    """Whether both are one directory, by whatever name; of one that is not there only the name counts."""
    if one == other:
        return True
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def links_into(places: Iterable[Path], others: Mapping[str, Path]) -> list[str]:
    """Those of ``others`` (directories by name) that are links, or have links, to something in ``places``."""
    real = [os.path.realpath(place) for place in places]

    def leads_in(path: str | Path) -> bool:
        target = os.path.realpath(path)
        return any(target == one or target.startswith(one + os.sep) for one in real)

    return sorted(
        name
        for name, path in others.items()
        if leads_in(path) or any(leads_in(entry.path) for entry in _entries(path) if entry.is_symlink())
    )


def same_files(inodes: frozenset[Inode], others: Mapping[str, Path]) -> list[str]:
    """Those of ``others`` that have a second name for one of the files."""
    return sorted(
        name
        for name, path in others.items()
        if any((status := _status(entry.path)) and (status.st_dev, status.st_ino) in inodes for entry in _entries(path))
    )


def _entries(path: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(path) as entries:
            return list(entries)
    except OSError:
        return []
