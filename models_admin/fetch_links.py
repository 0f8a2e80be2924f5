"""Files of other revisions that a new one has too: linked, or copied, never downloaded again. For the child only."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from filelock import Timeout

from models_admin import second_names, synced
from models_admin.fetch_hash import Wished
from models_admin.fetch_lock import locked
from models_admin.fetch_repair import Known
from models_admin.manifest import read_manifest, sync
from models_admin.our_places import PARTIAL, is_of_a_fetch
from models_admin.second_names import plain_size


def take_over(
    files: Iterable[Wished],
    partial: Path,
    checked: Mapping[str, Mapping[str, dict[str, Any]]],
    report: Callable[[int], None],
) -> None:
    """Give every file that another revision has with the Hub's content a second name in ``partial``.

    ``checked`` are the revisions by path with what reading their files has shown. A file is read before it is taken
    over unless that is known; the other revision stays as it is. ``report`` hears how many bytes were looked at.
    """
    others = [Known(Path(path), dict(shown)) for path, shown in checked.items() if Path(path).parent == partial.parent]
    done = 0
    for file in files:
        done += file.size
        wanted = partial / file.name
        if plain_size(wanted) == file.size:
            continue
        there = [known for known in others if plain_size(known.directory / file.name) == file.size]
        if any(_taken(file, known, wanted) for known in there):
            wanted.with_name(f"{wanted.name}.part").unlink(missing_ok=True)
        if there:
            report(done)


def take_parts(files: Iterable[Wished], partial: Path) -> None:
    """Go on with what downloads of other revisions that were cut off have of the same content.

    A part says itself what it is to become; a file that is whole is read before it is taken over. What another program
    works on is left.
    """
    for other in partial.parent.glob(".*.partial"):
        if other == partial or not is_of_a_fetch(other.name) or other.is_symlink():
            continue
        with contextlib.suppress(Timeout, OSError), locked(partial.parent / other.name[1 : -len(PARTIAL)]):
            for file in files:
                _take_part(file, other, partial)


def _take_part(file: Wished, other: Path, partial: Path) -> None:
    wanted, there = partial / file.name, other / file.name
    part, old = wanted.with_name(f"{wanted.name}.part"), there.with_name(f"{there.name}.part")
    if plain_size(wanted) == file.size or synced.trusted(part):
        return
    wanted.parent.mkdir(exist_ok=True)
    if plain_size(there) == file.size:
        if file.signature.matches(there):
            second_names.give(there, wanted, _copy)
        return
    noted, have = synced.known(old), synced.trusted(old)
    if have and noted is not None and noted.signature == file.signature.value:
        os.truncate(old, have)
        synced.beside(old).replace(synced.beside(part))
        old.replace(part)


def _taken(file: Wished, known: Known, wanted: Path) -> bool:
    there = known.directory / file.name
    if known.is_bad(file.name) or _is_another(file, known):
        return False
    try:
        if not known.is_sound(file.name) and not file.signature.matches(there):
            return False
        wanted.unlink(missing_ok=True)
        wanted.parent.mkdir(exist_ok=True)
        return second_names.give(there, wanted, _copy)
    except OSError:
        return False  # it is fetched


def _is_another(file: Wished, known: Known) -> bool:
    """Whether it was published with other content, as its manifest says: then it need not be read."""
    manifest = read_manifest(known.directory)
    entry = manifest.files.get(file.name) if manifest else None
    return entry is not None and file.signature.kind == "sha256" and entry.sha256 != file.signature.value


def _copy(there: Path, wanted: Path) -> None:
    """On a disk that shares blocks this costs no space either."""
    shutil.copyfile(there, wanted, follow_symlinks=False)
    sync(wanted)
