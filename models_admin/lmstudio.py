"""LM Studio's own files, as far as they are known: where its home is, its model folders, its names for models.

Nothing of it is documented; the shapes are those that its versions 0.3 and 0.4 write. Whatever is missing, broken or of
another shape is left out, never an error: other programs' files change without notice.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from inference.model_files import Unusable, read_json

log = logging.getLogger(__name__)

SETTINGS = "settings.json"
INDEX = ".internal/model-index-cache.json"
_POINTER = ".lmstudio-home-pointer"
_HOMES = (".lmstudio", ".cache/lm-studio")
_MAX_POINTER, _MAX_YAML, _MAX_ALL_YAML = 4096, 32 * 1024, 1024 * 1024
_MAX_VIRTUAL = 2000

Keys = dict[str, tuple[str, ...]]
"""LM Studio's keys of a model by its ``publisher/repo`` in lower case, the best first."""


def find_home() -> Path | None:
    """LM Studio's home: the one that its pointer file names, ``~/.lmstudio``, or the older ``~/.cache/lm-studio``."""
    user = Path("~").expanduser()
    candidates = [*_pointed(user / _POINTER), *(user / name for name in _HOMES)]
    return next((one for one in candidates if os.path.isdir(one)), None)


def model_folders(home: Path | None) -> list[Path]:
    """Where LM Studio keeps models, each once, the one it downloads to first. They need not be there now.

    The folder that ``settings.json`` names counts also while its volume is away; the usual ones only where they are.
    """
    user = Path("~").expanduser()
    folders: list[Path] = []
    if home is not None and (named := downloads_folder(home)) is not None:
        folders.append(named)
    homes = [*([] if home is None else [home]), *(user / name for name in _HOMES)]
    # A link that leads nowhere is a volume that is away, too.
    folders += [one for one in (at / "models" for at in homes) if os.path.isdir(one) or os.path.islink(one)]
    return list(dict.fromkeys(folders))


def downloads_folder(home: Path) -> Path | None:
    """The model folder that its settings name, absolute; None when they name none (or cannot be read)."""
    try:
        named = read_json(home / SETTINGS, SETTINGS).get("downloadsFolder")
    except Unusable:
        return None
    if not isinstance(named, str) or not named.strip() or "\0" in named:
        return None
    try:
        folder = Path(named).expanduser()
    except RuntimeError:  # the home of a user whom nobody knows
        return None
    return folder if folder.is_absolute() else None


def model_keys(home: Path | None) -> Keys:
    """What LM Studio calls its models: from its index, and from the ``model.yaml`` of its virtual models."""
    if home is None:
        return {}
    found: dict[str, dict[str, None]] = {}
    for repo, key in [*_indexed(home), *_virtual(home)]:
        found.setdefault(repo.lower(), {})[key] = None
    return {repo: tuple(keys) for repo, keys in found.items()}


def keys_stamp(home: Path | None) -> tuple[int, ...]:
    """Changes when ``model_keys`` may say something else; cheap."""
    stamps: list[int] = []
    for name in (INDEX, "hub/models"):
        try:
            status = os.stat((home or Path(os.devnull)) / name)
        except OSError:
            stamps += [0, 0]
        else:
            stamps += [status.st_mtime_ns, status.st_size]
    return tuple(stamps)


def _pointed(pointer: Path) -> Iterator[Path]:
    try:
        named = (_read(pointer, _MAX_POINTER) or b"").decode().strip()
    except UnicodeDecodeError:
        return
    if named and "\0" not in named and Path(named).is_absolute():
        yield Path(named)


def _indexed(home: Path) -> Iterator[tuple[str, str]]:
    """(repository, key) of each entry of the index. One of a virtual model is ``key@repository``."""
    try:
        entries = read_json(home / INDEX, INDEX).get("models")
    except Unusable as problem:
        if (home / INDEX).exists():
            log.info("LM Studio's names for its models are not known: %s", problem)
        return
    for entry in entries if isinstance(entries, list) else []:
        if not isinstance(entry, dict):
            continue
        repo = _text(entry, "indexedModelIdentifier")
        virtual, at, concrete = repo.partition("@")
        for name in ("defaultIdentifier", "modelKey"):
            if repo and (key := _text(entry, name)):
                yield (concrete if at else repo), key
        if at and virtual and concrete:
            yield concrete, virtual


def _virtual(home: Path) -> Iterator[tuple[str, str]]:
    """(repository, key) by the virtual models in ``hub/models/publisher/name/model.yaml``, which list what they are."""
    files = sorted((home / "hub" / "models").glob("*/*/model.yaml"))[:_MAX_VIRTUAL]
    left = _MAX_ALL_YAML  # parsing takes seconds for each MiB
    for file in files:
        data = _read(file, _MAX_YAML) or b""
        if (left := left - len(data)) < 0:
            log.info("LM Studio's virtual models from %s on are not read: they are too many bytes", file.parent.name)
            return
        try:
            # Its author is anyone: all is text, and no tag is followed.
            told = yaml.load(data, Loader=yaml.BaseLoader)
        except (yaml.YAMLError, ValueError, RecursionError, LookupError, TypeError, AttributeError):
            continue
        if not isinstance(told, dict) or not (key := _text(told, "model")):
            continue
        base = told.get("base")
        for one in base if isinstance(base, list) else []:
            if isinstance(one, dict) and (repo := _text(one, "key")):
                yield repo, key


def _read(file: Path, most: int) -> bytes | None:
    """The whole of a regular file; None for anything else, for one that is longer, and for one that cannot be read."""
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            return None  # opening a pipe would wait for ever
        with file.open("rb") as stream:
            data = stream.read(most + 1)
    except OSError:
        return None
    return data if len(data) <= most else None


def _text(entry: Mapping[str, Any], name: str) -> str:
    """A name that may stand in lists and answers; empty for anything else."""
    value = entry.get(name)
    fits = isinstance(value, str) and value.isprintable() and len(value) <= 256 and value == value.strip()
    return value if fits and isinstance(value, str) else ""
