"""Finding model directories below the roots an owner named. Reads the disk, never the database.

Layouts understood, all by depth below the root: ``name``, ``org/name`` (also LM Studio's), ``org/name/<revision>``
(ours), and the Hub cache's ``models--org--name/snapshots/<revision>``. What cannot be read is skipped and logged.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from models_admin.facts import FileFact, fingerprint, list_files

log = logging.getLogger(__name__)

_DEPTH = 3
_HUB_PREFIX = "models--"
_HUB_OTHERS = ("datasets--", "spaces--")
_REF_BYTES = 256


@dataclass(frozen=True, slots=True)
class Found:
    """One model directory. ``current`` is False for a revision that its cache does not point to any more.

    ``created`` is in seconds since the epoch; ``fingerprint`` changes when any file does. ``mount`` is where the volume
    is mounted that it lies on.
    """

    path: Path
    root: Path
    source: str
    repo: str
    revision: str = ""
    current: bool = True
    created: int = 0
    fingerprint: str = ""
    files: tuple[FileFact, ...] = field(default=())
    mount: str = ""


@dataclass(frozen=True, slots=True)
class Scan:
    """``offline`` lists what cannot be told now: roots that are not there (a volume not mounted), and directories
    below them that cannot be read."""

    found: tuple[Found, ...]
    offline: frozenset[Path]


def scan(roots: Iterable[Path], lmstudio: Container[Path] = ()) -> Scan:
    """Every model directory below ``roots``, each once, in the order of the roots.

    ``lmstudio``: the roots that are LM Studio's, which its models' source says.
    """
    found: dict[Path, Found] = {}
    offline: set[Path] = set()
    for root in roots:
        if _is_there(root):
            source = "lmstudio" if root in lmstudio or {".lmstudio", "lm-studio"} & set(root.parts) else "local"
            for model in _walk(root, root, (), source, offline):
                found.setdefault(model.path, model)
        # Asked again: a volume that went away meanwhile takes no model with it.
        if not _is_there(root):
            offline.add(root)
    mounts = _Mounts()
    return Scan(tuple(replace(model, mount=mounts.of(model.path)) for model in found.values()), frozenset(offline))


def is_away(found: Found) -> bool:
    """Whether the volume on which a model was last seen is not mounted: its empty mount point may well be there."""
    return bool(found.mount) and not os.path.ismount(found.mount)


class _Mounts:
    """Where volumes are mounted, each asked for once."""

    def __init__(self) -> None:
        self._known: dict[int, str] = {}

    def of(self, path: Path) -> str:
        """The mount of the volume that ``path`` is on; empty when it cannot be told."""
        try:
            device = os.stat(path).st_dev
            if device not in self._known:
                self._known[device] = _mount(os.path.realpath(path))
            return self._known[device]
        except OSError:
            return ""


def _mount(path: str) -> str:
    while not os.path.ismount(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    return path


def look_at(found: Found) -> Found | None:
    """The same directory as it is now; None when it cannot be read."""
    try:
        now = _found(found.path, found.root, found.source, found.repo, found.revision, found.current)
        return replace(now, mount=_Mounts().of(found.path))
    except OSError:
        return None


def _is_there(root: Path) -> bool:
    try:
        with os.scandir(root):
            return True
    except OSError:
        return False


def _walk(directory: Path, root: Path, parts: tuple[str, ...], source: str, unread: set[Path]) -> Iterator[Found]:
    try:
        with os.scandir(directory) as entries:
            names, folders = set[str](), list[str]()
            for entry in entries:
                (folders.append if _is_folder(entry) else names.add)(entry.name)
    except OSError as error:
        _skip(directory, error, unread)
        return
    if _is_model(names):
        try:
            yield _model(directory, root, parts, source)
        except OSError as error:
            _skip(directory, error, unread)
        return
    for name in sorted(folders):
        if name.startswith(_HUB_PREFIX):
            yield from _walk_hub(directory / name, root, name, unread)
        elif len(parts) < _DEPTH and _is_searched(name) and not _contains(directory / name, directory):
            yield from _walk(directory / name, root, (*parts, name), source, unread)


def _skip(directory: Path, error: OSError, unread: set[Path]) -> None:
    """Leave it out of this scan; that it cannot be read does not mean that what was in it is gone."""
    log.warning("skipped %s: %s", directory, error.strerror or error)
    if error.errno not in (errno.ENOENT, errno.ENOTDIR):
        unread.add(directory)


def _is_searched(name: str) -> bool:
    return not name.startswith((".", *_HUB_OTHERS)) and _is_text(name)


def _contains(link: Path, directory: Path) -> bool:
    """Whether ``link`` leads back to where it stands, so that following it would find everything again below it."""
    return link.is_symlink() and directory.resolve().is_relative_to(link.resolve())


def _walk_hub(directory: Path, root: Path, name: str, unread: set[Path]) -> Iterator[Found]:
    """The snapshots of one repository in the Hub cache; the one that ``refs/main`` names is current."""
    repo = name.removeprefix(_HUB_PREFIX).replace("--", "/")
    main = _read_ref(directory / "refs" / "main")
    try:
        snapshots = sorted(path for path in (directory / "snapshots").iterdir() if path.is_dir())
    except OSError as error:
        if error.errno != errno.ENOENT:  # else: a repository of which only metadata was ever fetched
            _skip(directory, error, unread)
        return
    for path in snapshots:
        if not _is_text(path.name) or not _is_text(repo):
            continue
        current = main in (None, path.name)
        try:
            yield _found(path, root, "huggingface-cache", repo, path.name, current)
        except OSError as error:
            _skip(path, error, unread)


def _model(directory: Path, root: Path, parts: tuple[str, ...], source: str) -> Found:
    repo = "/".join(parts[:2]) or root.name
    revision = "/".join(parts[2:])
    return _found(directory, root, source, repo, revision, current=True)


def _found(path: Path, root: Path, source: str, repo: str, revision: str, current: bool) -> Found:
    """Raises ``OSError``."""
    files = list_files(path)
    return Found(path, root, source, repo, revision, current, _seconds(path), fingerprint(files), files)


def _seconds(path: Path) -> int:
    """When the directory last changed, within what a date can hold."""
    return max(0, min(int(path.stat().st_mtime), 253_402_300_799))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def is_model(directory: Path) -> bool:
    """Whether a scan would take it for a model, and look no further below it."""
    try:
        with os.scandir(directory) as entries:
            return _is_model({entry.name for entry in entries if not _is_folder(entry)})
    except OSError:
        return False


def _is_model(names: set[str]) -> bool:
    return "config.json" in names or any(name.endswith(".safetensors") for name in names)


def _is_text(name: str) -> bool:
    """Names that no terminal or database can hold (bytes that are not UTF-8, control characters) are left alone."""
    return name.isprintable() and len(name) <= 255


def _read_ref(path: Path) -> str | None:
    try:
        # A pipe would keep the catalog's only thread for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return None
            return file.read(_REF_BYTES).decode("ascii").strip() or None
    except (OSError, UnicodeDecodeError):
        return None
