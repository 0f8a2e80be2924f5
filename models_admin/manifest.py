"""``lmx-manifest.json``: where a model came from and the SHA-256 of every file, beside the files themselves.

Written by jobs in the child process, read by scans. It makes a directory *verified* until a file changes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

NAME = "lmx-manifest.json"
_CHUNK = 1 << 20
_MAX_BYTES = 8 * 1024 * 1024

Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Name = Annotated[str, Meta(max_length=512)]


class FileEntry(Struct, frozen=True):
    size: int
    sha256: Sha256


class Manifest(Struct, frozen=True):
    """``origin`` says what the files were made from, for people; ``files`` holds all files but the manifest.

    Names of files in folders have slashes; a manifest of version 1 leaves those files out.
    ``made`` says what ``origin`` says, of a conversion and for programs: ``from`` (``repo``, ``revision``, ``source``,
    ``files`` with their SHA-256), ``bits``, ``group_size``, ``dtype``, ``tools`` with their versions.
    """

    source: Annotated[str, Meta(max_length=32)]
    repo: Name
    revision: Annotated[str, Meta(max_length=256)]
    files: dict[Name, FileEntry]
    origin: Annotated[str, Meta(max_length=1024)] = ""
    version: int = 2
    made: dict[str, Any] = {}


def sha256_file(path: Path, on_bytes: Callable[[int], None] = lambda count: None) -> str:
    """Hex digest; ``on_bytes`` hears of every chunk's size."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            on_bytes(len(chunk))
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Return when a file, or a directory's list of names, is on the disk for good."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_manifest(directory: Path, manifest: Manifest) -> None:
    (directory / NAME).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=1))


def sign(directory: Path, manifest: Manifest, report: Callable[[int, int], None]) -> int:
    """Hash every file as it lies in ``directory`` and write ``manifest`` with them; returns the bytes of all.

    On return everything is on the disk for good. ``report`` hears how many bytes of how many were read.
    """
    files = sorted(file for file in directory.iterdir() if file.is_file())
    total, done, entries = sum(file.stat().st_size for file in files), 0, dict[str, FileEntry]()

    def on_bytes(count: int) -> None:
        nonlocal done
        done += count
        report(done, total)

    for file in files:
        sync(file)
        entries[file.name] = FileEntry(file.stat().st_size, sha256_file(file, on_bytes))
    write_manifest(directory, msgspec.structs.replace(manifest, files=entries))
    for path in (directory / NAME, directory):
        sync(path)
    return total


def read_manifest(directory: Path) -> Manifest | None:
    """The manifest of ``directory``; None when there is none that can be understood."""
    path = directory / NAME
    try:
        if not path.is_file() or path.stat().st_size > _MAX_BYTES:
            return None
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except (OSError, msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None
