"""What is good of a model that is in its place but not sound is kept when it is fetched again. For the child only."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models_admin import second_names
from models_admin.fetch_hash import Wished
from models_admin.second_names import plain_size
from models_admin.stamp import stamp_of


@dataclass(frozen=True, slots=True)
class Known:
    """What reading the files in ``directory`` has shown, by name: ``size``, ``mtime_ns``, ``sound``."""

    directory: Path
    files: dict[str, dict[str, Any]]

    def is_bad(self, name: str) -> bool:
        """Whether the file that is there now was read and is not what it should be."""
        return self._verdict(name) is False

    def is_sound(self, name: str) -> bool:
        """Whether the file that is there now was read and is what was published."""
        return self._verdict(name) is True

    def _verdict(self, name: str) -> bool | None:
        known = self.files.get(name)
        if known is None:
            return None
        try:
            status = (self.directory / name).stat()
        except OSError:
            return None
        same = stamp_of(status) == (known["size"], known["mtime_ns"])
        return bool(known["sound"]) if same else None


def keep_good(files: Iterable[Wished], partial: Path, known: Known, report: Callable[[int], None]) -> None:
    """Give every file of the model in its place that has the Hub's content a second name in ``partial``.

    What was read before is not read again; ``report`` hears how many bytes were looked at. The model in its place stays
    as it is, but on a disk without hard links, where its good files move.
    """
    done = 0
    for file in files:
        there, wanted = known.directory / file.name, partial / file.name
        done += file.size
        if plain_size(wanted) == file.size or plain_size(there) != file.size or known.is_bad(file.name):
            continue
        if known.is_sound(file.name) or file.signature.matches(there):
            wanted.unlink(missing_ok=True)
            wanted.parent.mkdir(exist_ok=True)
            move = Path.rename if _is_ours(known.directory, partial) else None
            if second_names.give(there, wanted, move):
                wanted.with_name(f"{wanted.name}.part").unlink(missing_ok=True)
        report(done)


def _is_ours(directory: Path, partial: Path) -> bool:
    """Whether it is really the directory beside ``partial``, and no link to some other place."""
    return os.path.realpath(directory) == os.path.join(os.path.realpath(partial.parent), directory.name)
