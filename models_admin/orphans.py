"""What lies in the directories of models and belongs to none that is known. Blocking; follows no link to a folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from inference.models_on_disk import Use
from models_admin.our_places import is_of_a_fetch
from models_admin.survey import survey

MOST = 1000
_HUB = "models--"
_WHY = "no model that is known here: another program's, or left over; delete it by hand if nobody needs it"
_BLOBS = "no revision in this repository of the Hugging Face cache names it; 'hf cache prune' deletes it"
_NOISE = frozenset({".DS_Store", ".locks", "CACHEDIR.TAG", "version.txt", ".gitattributes", ".cache"})
_OURS = (".lmx-deleted", ".lmx-converting", ".lock")


def orphans(root: Path, models: Iterable[Path]) -> list[Use]:
    """Files and folders below ``root`` outside ``models``, each folder once, the largest first; ``MOST`` at most."""
    known = frozenset(os.fspath(path) for path in models)
    above = frozenset(os.fspath(parent) for path in models for parent in path.parents)
    found = [
        Use("orphan", path, size, why=why)
        for path, why in _below(os.fspath(root), known, above)
        if (size := _size(Path(path)))
    ]
    return sorted(found, key=lambda use: (-use.bytes, use.path))[:MOST]


def _below(directory: str, known: frozenset[str], above: frozenset[str]) -> Iterator[tuple[str, str]]:
    try:
        with os.scandir(directory) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return
    for entry in listed:
        if entry.path in known or entry.name in _NOISE or _is_ours(entry.name):
            continue
        if not entry.is_dir(follow_symlinks=False):
            if not entry.is_symlink():  # a link takes nothing, and what it leads to is not ours to judge
                yield entry.path, _WHY
        elif entry.path not in above:
            yield entry.path, _WHY
        elif entry.name.startswith(_HUB):
            yield from ((path, _BLOBS) for path in _unnamed_blobs(entry.path))
        else:
            yield from _below(entry.path, known, above)


def _is_ours(name: str) -> bool:
    return name.startswith(".") and (name.endswith(_OURS) or is_of_a_fetch(name))


def _unnamed_blobs(repository: str) -> Sequence[str]:
    """Blobs of the Hub's cache that no snapshot has a name for; the cache's own small files are none."""
    named = set[tuple[int, int]]()
    for base, _, names in os.walk(os.path.join(repository, "snapshots")):
        for name in names:
            try:
                status = os.stat(os.path.join(base, name))
            except OSError:
                continue
            named.add((status.st_dev, status.st_ino))
    try:
        with os.scandir(os.path.join(repository, "blobs")) as entries:
            return sorted(entry.path for entry in entries if _is_unnamed(entry, named))
    except OSError:
        return ()


def _is_unnamed(entry: os.DirEntry[str], named: set[tuple[int, int]]) -> bool:
    status = entry.stat(follow_symlinks=False)
    return stat.S_ISREG(status.st_mode) and (status.st_dev, status.st_ino) not in named


def _size(path: Path) -> int:
    found = survey([path])
    return found.freed + found.shared
