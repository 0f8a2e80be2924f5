"""Hidden directories below ours that this server made: only names of exactly its own form, as others hide things too
(``.rsync.partial``). Blocking; follows no link."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

PARTIAL = ".partial"
DELETED = ".lmx-deleted"
"""Ends the hidden name that a directory has while it is being deleted."""

_DEPTH = 2
_OF_FETCHES = re.compile(r"\.[0-9a-f]{40}\.(partial|replaced)")
_OF_DELETIONS = re.compile(r"\..+\.lmx-deleted", re.DOTALL)


def is_of_a_fetch(name: str) -> bool:
    """Whether a fetch gives such a name, for parts or for what it replaces, beside ``org/name/<commit>``."""
    return _OF_FETCHES.fullmatch(name) is not None


def hidden_places(root: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    """Those of ours below ``root`` whose names end in one of ``suffixes``: of fetches where they put them, of deletions
    wherever models can lie."""
    yield from (place for place in _hidden(root, _DEPTH) if place.name.endswith(suffixes))


def _hidden(directory: Path, depth: int) -> Iterator[Path]:
    try:
        with os.scandir(directory) as entries:
            folders = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return
    for name in folders:
        if name.startswith("."):
            if _OF_DELETIONS.fullmatch(name) or (depth == 0 and is_of_a_fetch(name)):
                yield directory / name
        elif depth:
            yield from _hidden(directory / name, depth - 1)
