"""Who may keep how much of what models have read on disk: one quota for all of them, which is never exceeded.

Below one directory every model has its own, named by its id's hash, with one file per entry whose time of modification
is that of its last use. While a model is loaded its worker alone writes and deletes there, within the *grant* it was
loaded with; the directories of all others are this module's to thin out, the least recently used file first, wherever
it lies. All grants together with what the others hold stay within the quota.

A grant is half of what no other loaded model was given: one model alone may use half the quota, the next a quarter. So
there is always something for the next one, and nothing ever has to be taken from a worker that is using it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

_NAME = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True, order=True)
class _Entry:
    used: float
    path: str
    size: int


class PrefixDisk:
    """``grant`` and ``release`` belong to the event loop; ``tidy`` touches the disk and is for a thread.

    With a ``quota`` (bytes) of 0 nothing is kept, and what is there is deleted.
    """

    def __init__(self, root: Path, quota: int) -> None:
        self._root = root
        self._quota = quota
        self._grants: dict[str, int] = {}
        self._tidying = threading.Lock()

    def directory(self, model_id: str) -> Path:
        return self._root / hashlib.sha256(model_id.encode()).hexdigest()[:32]

    @property
    def grants(self) -> Mapping[str, int]:
        """Bytes by model id, of all whose worker lives or is about to start."""
        return dict(self._grants)

    def grant(self, model_id: str) -> int:
        """Bytes that the model may keep until ``release``. ``tidy`` must have run before its worker starts."""
        self._grants.pop(model_id, None)
        size = self._grants[model_id] = (self._quota - sum(self._grants.values())) // 2
        return size

    def release(self, model_id: str) -> None:
        """Its worker is gone."""
        self._grants.pop(model_id, None)

    def tidy(self, grants: Mapping[str, int], starting: str | None = None) -> None:
        """Delete what is over the quota; never raises. ``grants`` as they were on the event loop.

        ``starting`` is a model whose worker does not live yet: its directory is cut down to its grant.
        """
        with self._tidying:
            taken = {self.directory(name).name for name in grants}
            try:
                idle = [path for path in _directories(self._root) if os.path.basename(path) not in taken]
            except OSError as error:
                log.warning("the prefix cache on disk cannot be read: %s", error.strerror or error)
                return
            _thin_out(idle, self._quota - sum(grants.values()))
            if starting is not None:
                _thin_out([str(self.directory(starting))], grants.get(starting, 0))


def _directories(root: Path) -> list[str]:
    """The models' own directories; whatever else lies there is not ours to touch."""
    try:
        with os.scandir(root) as found:
            return [e.path for e in found if _NAME.fullmatch(e.name) and e.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def _entries(directory: str) -> Iterable[_Entry]:
    try:
        with os.scandir(directory) as found:
            for item in found:
                if item.is_file(follow_symlinks=False) or item.is_symlink():
                    status = item.stat(follow_symlinks=False)
                    yield _Entry(status.st_mtime, item.path, status.st_size)
    except FileNotFoundError:
        return
    except OSError as error:
        log.warning("%s cannot be read: %s", directory, error.strerror or error)


def _thin_out(directories: Iterable[str], limit: int) -> None:
    """Delete the least recently used files until ``limit`` bytes are left, and directories that are empty then."""
    directories = list(directories)
    entries = sorted(entry for directory in directories for entry in _entries(directory))
    left = sum(entry.size for entry in entries)
    for entry in entries:
        if left <= limit and limit > 0:
            break
        left -= _delete(entry)
    for directory in directories:
        try:
            os.rmdir(directory)
        except OSError:
            continue  # not empty, or not there


def _delete(entry: _Entry) -> int:
    """Bytes that are gone with it."""
    try:
        os.unlink(entry.path)
    except FileNotFoundError:
        return entry.size
    except OSError as error:
        log.warning("%s cannot be deleted: %s", entry.path, error.strerror or error)
        return 0
    return entry.size
