"""What reading a model's files has shown, and what follows for the model. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from models_admin.facts import FileFact, is_hidden
from models_admin.manifest import Manifest

Basis = Literal["published", "first sight"]
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Checked:
    """A file's content when it was last read; it says nothing about a file of another size or time.

    ``sha256`` is empty where the disk could not give the bytes back. ``expected`` is the SHA-256 it was held against,
    empty where that is known by another hash. ``at`` is in seconds since the epoch.
    """

    name: str
    size: int
    mtime_ns: int
    sha256: str
    basis: Basis
    sound: bool
    at: float
    expected: str = ""


Checks = Mapping[str, Checked]
"""By the file's name."""


def still_true(files: Iterable[FileFact], checks: Checks) -> dict[str, Checked]:
    """Those whose file has kept its size and time."""
    there = {file.name: (file.size, file.mtime_ns) for file in files}
    return {name: check for name, check in checks.items() if there.get(name) == (check.size, check.mtime_ns)}


def complaints(files: Iterable[FileFact], manifest: Manifest | None, checks: Checks) -> dict[str, str]:
    """What is wrong with which file, by name; ``checks`` are still true."""
    found = dict[str, str]()
    there = {file.name: file.size for file in files}
    for name, entry in sorted(manifest.files.items() if manifest else ()):
        if name not in there:
            found[name] = f"{name} is missing"
        elif there[name] != entry.size:
            found[name] = f"{name} has {there[name]} bytes, not the {entry.size} that were verified"
    for name, check in sorted(checks.items()):
        if not check.sound and name not in found:
            found[name] = f"{name} {_wrong(check)}"
    return found


def _wrong(check: Checked) -> str:
    if not check.sha256:
        return "cannot be read from the disk"
    if check.basis == "published":
        return "has another content than was published"
    return "changed while its size and time stayed"


def worded(found: Mapping[str, str], source: str, repo: str, revision: str) -> str:
    """The sentence for people: which files, and what to do."""
    shown = ", ".join(list(found.values())[:_SHOWN])
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"its files are corrupt: {shown}{more}. {_remedy(source, repo, revision)}"


def _remedy(source: str, repo: str, revision: str) -> str:
    again = "verify it again (lmx verify)"
    match source:
        case "huggingface":
            which = f"{repo}@{revision}" if revision else repo
            return f"Download {which} again (only the bad files are fetched), or {again} after restoring them"
        case "lmstudio":
            return f"Let LM Studio download it again, then {again}"
        case "huggingface-cache":
            return f"Delete the bad files and fetch it again with the program that did, then {again}"
        case _:
            return f"Put sound copies in their place, then {again}"


def all_published(files: Iterable[FileFact], own: str, checks: Checks) -> bool:
    """Whether every file but ``own`` and hidden ones was read and has the content that was published."""
    names = [file.name for file in files if file.name != own and not is_hidden(file.name)]
    known = all(name in checks for name in names)
    return bool(names) and known and all(check.sound and check.basis == "published" for check in checks.values())
