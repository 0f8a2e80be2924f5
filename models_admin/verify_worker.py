"""The job program that reads every file of a model and compares it with what it should be.

Parameters: ``path`` (the model's directory), ``root`` (which no link may leave), ``source``, ``known`` (by name, what
earlier runs found: ``sha256``, ``basis``, ``size``, ``mtime_ns``), ``read`` (by name, ``[size, mtime_ns]`` of what this
run has read before it was cut off), ``gate`` (where it waits for a quiet moment, see ``quiet``; None: it does not).
Phase: ``verify`` (bytes). Each file is a part of the result once it is read.

What a file should be says the manifest beside it, the name of its blob in the Hub's cache, or an earlier run. Where
nothing says it, what is read becomes what is expected from now on. Nothing is ever written.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from models_admin.facts import MAX_DEPTH
from models_admin.job_child import JobError, Reporter, run_job
from models_admin.manifest import NAME as MANIFEST
from models_admin.manifest import read_manifest
from models_admin.quiet import keep_no_pages, passage
from models_admin.stamp import stamp_of

_CHUNK = 1 << 20
_MAX_FILES = 10_000
_BLOB = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_DISK_ERRORS = (errno.EIO, errno.ENXIO)


@dataclass(frozen=True, slots=True)
class Expected:
    """``kind``: ``sha256``, or ``git`` for the id that git gives a file of that content."""

    value: str
    kind: str
    basis: str


@dataclass(frozen=True, slots=True)
class Bytes:
    """What was read of a file, and the size and time that it had before and after."""

    size: int
    mtime_ns: int
    sha256: str
    git: str


class Changed(Exception):
    """The file was written, or another put in its place, while it was read."""


def verify(params: dict[str, Any], report: Reporter) -> dict[str, Any]:
    """Read what is to be read. The result counts; the files that are bad are in it by name.

    Raises ``JobError`` (``file_changed``, ``unreadable``) when some file could not be judged; all others are, first.
    """
    directory, root = Path(params["path"]), Path(params["root"])
    names = list_names(directory)
    sizes = {name: _size(directory / name) for name in names}
    total = sum(sizes.values())
    expect = expectations(directory, params)
    done, found = 0, dict[str, list[str]]()
    report("verify", 0, total)

    with passage(params.get("gate")) as quiet:
        is_quiet = params.get("gate") is not None

        def on_bytes(count: int) -> None:
            nonlocal done
            done += count
            report("verify", min(done, total), total)
            quiet.wait()

        read = partial(read_bytes, on_bytes=on_bytes, keep=not is_quiet)
        for name in names:
            before, start = params["read"].get(name), done
            outcome = "skipped" if before and before == _stamp(directory / name) else ""
            if not outcome:
                outcome = _judge(directory, root, name, expect, report, read)
            found.setdefault(outcome, []).append(name)
            done = start + sizes[name]
    report("verify", total, total)
    _complain(found)
    result = {"path": str(directory), "files": len(names), "bytes": total, "skipped": len(found.get("skipped", []))}
    return result | {"bad": found.get("bad", []), "first_sight": found.get("first sight", [])}


def list_names(directory: Path) -> list[str]:
    """The files of a model and of the folders below it (a sentence-transformer has such), the small kinds first.

    Hidden ones are no part of a model, the manifest is what others are held against; links to folders are passed over.
    """
    found: list[str] = []
    for base, prefix in _folders(directory, ""):
        with os.scandir(base) as entries:
            for entry in entries:
                if entry.name.startswith(".") or (not prefix and entry.name == MANIFEST) or not _is_text(entry.name):
                    continue
                if entry.is_file():
                    found.append(prefix + entry.name)
                if len(found) > _MAX_FILES:
                    raise JobError(f"{directory} has more than {_MAX_FILES} files.")
    return sorted(found, key=lambda name: (name.endswith((".safetensors", ".gguf")), name))


def _is_text(name: str) -> bool:
    return name.isprintable()


def _folders(directory: Path, prefix: str) -> Iterator[tuple[Path, str]]:
    """The directory and what is below it, as deep as the inventory looks, with what the names there begin with."""
    yield directory, prefix
    if prefix.count("/") >= MAX_DEPTH:
        return
    with os.scandir(directory) as entries:
        found = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    for name in sorted(found):
        if not name.startswith(".") and _is_text(name):
            yield from _folders(directory / name, f"{prefix}{name}/")


def expectations(directory: Path, params: dict[str, Any]) -> Callable[[str, Path, Bytes], Expected | None]:
    """A function from a file's name, its real place and what was read to what it should be; None where nobody knows."""
    manifest = read_manifest(directory)
    published = {name: entry.sha256 for name, entry in manifest.files.items()} if manifest else {}
    blobs = params["source"] == "huggingface-cache"

    def expected(name: str, real: Path, read: Bytes) -> Expected | None:
        if name in published:
            return Expected(published[name], "sha256", "published")
        if blobs and real.parent.name == "blobs" and _BLOB.fullmatch(real.name):
            return Expected(real.name, "git" if len(real.name) == 40 else "sha256", "published")
        known = params["known"].get(name)
        if known is None or not known["sha256"]:
            return None
        # What was recorded at first sight holds while nobody has written the file since; a published hash always does.
        same = (known["size"], known["mtime_ns"]) == (read.size, read.mtime_ns)
        return Expected(known["sha256"], "sha256", known["basis"]) if same or known["basis"] == "published" else None

    return expected


def _judge(
    directory: Path,
    root: Path,
    name: str,
    expect: Callable[[str, Path, Bytes], Expected | None],
    report: Reporter,
    read_file: Callable[[Path], Bytes],
) -> str:
    """Read one file and report it: ``sound``, ``bad``, ``first sight``, or in vain: ``changed``, ``unreadable``."""
    path = directory / name
    real = Path(os.path.realpath(path))
    if not real.is_relative_to(os.path.realpath(root)):
        return "unreadable"  # a link to a place outside: it is none of the model's
    try:
        read = read_file(real)
    except Changed:
        return "changed"
    except OSError as error:
        stamp = _stamp(path)
        if error.errno not in _DISK_ERRORS or stamp is None:
            return "unreadable"
        known = expect(name, real, Bytes(stamp[0], stamp[1], "", ""))
        basis = known.basis if known else "first sight"
        wanted = known.value if known and known.kind == "sha256" else ""
        report.part(_part(name, Bytes(stamp[0], stamp[1], "", ""), basis, wanted, sound=False))
        return "bad"
    known = expect(name, real, read)
    if known is None:
        report.part(_part(name, read, "first sight", read.sha256, sound=True))
        return "first sight"
    sound = known.value == (read.sha256 if known.kind == "sha256" else read.git)
    wanted = known.value if known.kind == "sha256" else read.sha256 if sound else ""
    report.part(_part(name, read, known.basis, wanted, sound=sound))
    return "sound" if sound else "bad"


def _part(name: str, read: Bytes, basis: str, expected: str, *, sound: bool) -> dict[str, Any]:
    about = {"name": name, "size": read.size, "mtime_ns": read.mtime_ns, "sha256": read.sha256}
    return about | {"basis": basis, "expected": expected, "sound": sound}


def read_bytes(path: Path, on_bytes: Callable[[int], None], *, keep: bool = True) -> Bytes:
    """Both hashes of a regular file. Raises ``Changed`` or ``OSError``.

    ``keep`` False: what was read is not left in the system's cache, where it would push out what is used.
    """
    # A pipe would let nobody go on; what is no file any more since it was listed was changed too.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise Changed
        sha256 = hashlib.sha256()
        git = hashlib.sha1(b"blob %d\0" % before.st_size, usedforsecurity=False)
        while chunk := file.read(_CHUNK):
            sha256.update(chunk)
            git.update(chunk)
            if not keep:
                keep_no_pages(descriptor)
            on_bytes(len(chunk))
        after, now = os.fstat(descriptor), os.stat(path)
    same = (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    if not same or (now.st_dev, now.st_ino) != (before.st_dev, before.st_ino):
        raise Changed
    return Bytes(*stamp_of(before), sha256.hexdigest(), git.hexdigest())


def _complain(found: dict[str, list[str]]) -> None:
    for outcome, what in (("unreadable", "could not be read"), ("changed", "changed while it was read")):
        if names := found.get(outcome):
            shown = ", ".join(names[:5])
            code = "unreadable" if outcome == "unreadable" else "file_changed"
            raise JobError(
                f"{shown} {what}; all other files were judged. Verify the model again once that is over.",
                code=code,
                details={"files": names},
            )


def _stamp(path: Path) -> list[int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return list(stamp_of(status))


def _size(path: Path) -> int:
    stamp = _stamp(path)
    return stamp[0] if stamp else 0


if __name__ == "__main__":
    run_job(verify)
