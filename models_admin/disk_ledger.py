"""What this server and the models it knows take on the disks, and what of it nobody needs. Blocking; follows no link
but those of a model to its own files."""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from inference.catalog import ModelRef
from inference.engine.prefix_disk import PrefixDisk
from inference.models_on_disk import DiskUse, Hidden, Quota, RootUse, Use, Volume
from models_admin.fetch_place import REPLACED
from models_admin.orphans import orphans
from models_admin.our_places import DELETED, PARTIAL, hidden_places
from models_admin.survey import survey

_PREFIX = re.compile(r"[0-9a-f]{32}")
_GONE = ("absent",)


@dataclass(frozen=True, slots=True)
class Own:
    """Where this server keeps things: ``models`` are the directories that it fetches to, ``prefix`` has a directory of
    each model's prefix cache, ``places`` are all others by kind, directories or files. ``quotas`` are bytes by kind:
    ``models``, ``prefix_cache``."""

    models: Sequence[Path]
    prefix: Path
    places: Mapping[str, Sequence[Path]]
    quotas: Mapping[str, int] = field(default_factory=dict)


def look(
    own: Own,
    roots: Sequence[Path],
    models: Sequence[ModelRef],
    is_fetched: Callable[[str], bool],
    *,
    hidden: Sequence[Hidden] = (),
    running: Iterable[str] = (),
) -> DiskUse:
    """Everything but duplicates. ``is_fetched`` says whether a repository is being downloaded now; ``hidden`` are
    models off the list, ``running`` the ids of those in memory."""
    found = [_root(root, own, models) for root in roots]
    caches = list(_prefix_caches(own.prefix, models, running))
    off = [Use("hidden_model", one.path, _with_links(Path(one.path)), one.name) for one in hidden]
    unfinished = list(_unfinished(own.models, is_fetched))
    known = [ref.path for ref in models]
    known += [Path(path) for path in (*(one.path for one in hidden), *(use.path for use in unfinished))]
    strays = [use for root in roots for use in orphans(root, [path for path in known if path.is_relative_to(root)])]
    others = [*unfinished, *caches, *_places(own.places), *off, *strays]
    paths = [*roots, own.prefix, *(path for paths in own.places.values() for path in paths)]
    used = {
        "models": sum(root.bytes for root in found if Path(root.path) in own.models),
        "prefix_cache": sum(use.bytes for use in caches),
    }
    quotas = tuple(Quota(kind, limit, used[kind]) for kind, limit in own.quotas.items())
    return DiskUse(tuple(found), tuple(others), tuple(_volumes(paths)), quotas=quotas)


def _root(root: Path, own: Own, models: Sequence[ModelRef]) -> RootUse:
    here = [ref for ref in models if ref.path.is_relative_to(root) and os.path.isdir(ref.path)]
    listed = tuple(Use("model", str(ref.path), _with_links(ref.path), ref.id) for ref in here)
    return RootUse(str(root), _owner(root, own, here), os.path.isdir(root), _bytes([root]), listed)


def _owner(root: Path, own: Own, models: Sequence[ModelRef]) -> str:
    # LM Studio's models may lie in a folder of any name; those found there say whose it is.
    if {".lmstudio", "lm-studio"} & set(root.parts) or any(ref.source == "lmstudio" for ref in models):
        return "lmstudio"
    if root in own.models:
        return "lmx"
    return "huggingface-cache" if any(name.startswith("models--") for name in _names(root)) else "other"


def _names(directory: Path) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []


def _bytes(places: Iterable[Path]) -> int:
    found = survey(places)
    return found.freed + found.shared


def _with_links(directory: Path) -> int:
    """What a model takes wherever its files really lie: in the Hub's cache they are links to blobs."""
    sizes = dict[tuple[int, int], int]()
    for base, _, names in os.walk(directory):
        for name in names:
            try:
                status = os.stat(os.path.join(base, name))
            except OSError:
                continue
            if stat.S_ISREG(status.st_mode):
                sizes[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(sizes.values())


def _unfinished(own: Sequence[Path], is_fetched: Callable[[str], bool]) -> Iterator[Use]:
    """Parts of downloads, and what replacing and deleting have left when they were cut off."""
    for root in own:
        for place in hidden_places(root, (PARTIAL, REPLACED, DELETED)):
            found = survey([place])
            repo = place.parent.relative_to(root).as_posix()
            size = found.freed + found.shared
            if place.name.endswith(PARTIAL):
                name = f"{repo}@{place.name.removesuffix(PARTIAL).lstrip('.')}"
                if is_fetched(repo):
                    yield Use("partial", str(place), size, name)
                else:
                    why = "a download that nobody goes on with; it goes on when the model is downloaded again"
                    yield Use("partial", str(place), size, name, found.freed, why)
            else:
                yield Use("leftover", str(place), size, repo, found.freed, "a replaced or deleted model's remains")


def _prefix_caches(prefix: Path, models: Sequence[ModelRef], running: Iterable[str]) -> Iterator[Use]:
    """One entry for each model; those of models that are gone can be deleted."""
    disk = PrefixDisk(prefix, 0)
    here = [*(ref.id for ref in models if ref.disk_state not in _GONE), *running]
    names = {disk.directory(name).name: name for name in here}
    for folder in filter(_PREFIX.fullmatch, _names(prefix)):
        size = _bytes([prefix / folder])
        name = names.get(folder, "")
        why = "" if name else "the prefix cache of a model that is gone"
        yield Use("prefix_cache", str(prefix / folder), size, name, 0 if name else size, why)


def _places(places: Mapping[str, Sequence[Path]]) -> Iterator[Use]:
    for kind, paths in places.items():
        there = [path for path in paths if os.path.exists(path)]
        if there:
            yield Use(kind, str(there[0]), _bytes(there))


def _volumes(paths: Iterable[Path]) -> Iterator[Volume]:
    """Each volume once, in the order of the places."""
    found = dict[Path, list[str]]()
    for path in paths:
        if os.path.exists(path):
            found.setdefault(_mount(path.resolve()), []).append(str(path))
    for mount, places in found.items():
        try:
            usage = shutil.disk_usage(mount)
        except OSError:
            continue
        yield Volume(str(mount), usage.total, usage.free, tuple(dict.fromkeys(places)))


def _mount(path: Path) -> Path:
    while not path.is_mount() and path != path.parent:
        path = path.parent
    return path
