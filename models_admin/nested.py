"""What lies below a model's directory and is not the model's: other models, and downloads under way. Blocking."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from models_admin.manifest import NAME as MANIFEST

_UNDER_WAY = (".partial", ".replaced", ".lmx-converting")


def is_below(path: Path, directory: Path) -> bool:
    """Whether ``path`` lies strictly below ``directory``, by whatever names."""
    one, other = Path(os.path.realpath(path)), Path(os.path.realpath(directory))
    return one != other and one.is_relative_to(other)


def works_below(directory: Path) -> list[str]:
    """Hidden directories below it in which a model is being made, or was when it was cut off."""
    return sorted(path for path, _ in _folders(directory) if _is_under_way(os.path.basename(path)))


def models_below(directory: Path, known: Mapping[str, Path]) -> list[str]:
    """Names of the models below it: of those ``known`` (directories by name) the names, of others the paths.

    A model's own folders (``1_Pooling``) look like models, so in a whole model only what was signed counts.
    """
    found = {name for name, path in known.items() if os.path.isdir(path) and is_below(path, directory)}
    places = {os.path.realpath(path) for path in known.values()}
    try:
        whole = _is_whole(os.listdir(directory))
    except OSError:
        whole = False
    for path, names in _folders(directory):
        if os.path.realpath(path) not in places and (MANIFEST in names or (not whole and _is_whole(names))):
            found.add(path)
    return sorted(found)


def _folders(directory: Path) -> Iterator[tuple[str, list[str]]]:
    for base, folders, names in os.walk(directory):
        if base != os.fspath(directory):
            yield base, names
        if _is_under_way(os.path.basename(base)):
            folders.clear()


def _is_under_way(name: str) -> bool:
    return name.startswith(".") and name.endswith(_UNDER_WAY)


def _is_whole(names: Iterable[str]) -> bool:
    return "config.json" in names and any(name.endswith(".safetensors") for name in names)
