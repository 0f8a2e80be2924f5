"""A file that grows as it is fetched, hashed on the way, and what the Hub says its content is."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from models_admin import synced
from models_admin.job_child import JobError
from models_admin.job_words import amount
from models_admin.manifest import sha256_file

_CHUNK = 1 << 20
_LOOK_EVERY = 64 << 20
"""Bytes between two looks at the free space, and two syncs: a machine that goes down loses no more."""


@dataclass(frozen=True, slots=True)
class Signature:
    """``sha256`` of the content for what the Hub keeps in LFS, git's blob id for the small files beside it."""

    value: str
    kind: Literal["sha256", "git"]

    def is_sound(self) -> bool:
        length = 64 if self.kind == "sha256" else 40
        return re.fullmatch(rf"[0-9a-f]{{{length}}}", self.value) is not None

    def matches(self, path: Path) -> bool:
        """Whether a file has that content; reads all of it."""
        if self.kind == "sha256":
            return sha256_file(path) == self.value
        digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        return digest.hexdigest() == self.value

    def of_whole(self, path: Path) -> str:
        """The SHA-256 of a file that was verified before."""
        return self.value if self.kind == "sha256" else sha256_file(path)


@dataclass(frozen=True, slots=True)
class Wished:
    """A file to fetch: its name, its size in bytes, and what the Hub says its content is."""

    name: str
    size: int
    signature: Signature


class WrongContent(Exception):
    """What came is not the file that was promised; the text says how it differs."""


class PartFile:
    """Bytes on disk with their hashes: it only grows, or begins anew.

    ``on_bytes`` hears how many bytes came, or were lost (negative). Raises ``JobError`` when less than ``keep_free``
    bytes are left on the disk.
    """

    def __init__(
        self, path: Path, size: int, on_bytes: Callable[[int], None], keep_free: int, signature: str = ""
    ) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = os.fdopen(os.open(path, flags, 0o644), "r+b", buffering=0)
        self._path, self._size, self._on_bytes, self._keep_free = path, size, on_bytes, keep_free
        self._signature = signature
        self._reset()

    @classmethod
    def open(cls, path: Path, size: int, on_bytes: Callable[[int], None], keep_free: int, signature: str = "") -> Self:
        """What is there is read once for its hashes; more than ``size`` bytes are not this file's: it begins anew.

        Of what was there when the machine went down only the synced part counts. ``signature`` is noted with it.
        """
        there, noted = synced.trusted(path), synced.known(path)
        part = cls(path, size, on_bytes, keep_free, signature)
        try:
            os.ftruncate(part._file.fileno(), there if there <= size else 0)
            if noted is None or noted.boot != synced.boot() or there > size:
                part.sync()
            while chunk := part._file.read(_CHUNK):
                part._take(chunk)
        except BaseException:
            part._file.close()
            raise
        return part

    def _reset(self) -> None:
        self._there, self._looked = 0, 0
        self._sha256 = hashlib.sha256()
        # What git calls a file's id is no protection, only its name.
        self._git = hashlib.sha1(b"blob %d\0" % self._size, usedforsecurity=False)

    def _take(self, chunk: bytes) -> None:
        self._sha256.update(chunk)
        self._git.update(chunk)
        self._there += len(chunk)

    def write(self, chunk: bytes) -> int:
        if self._there + len(chunk) > self._size:
            raise WrongContent(f"is longer than the {self._size} bytes that were promised")
        if self._there - self._looked >= _LOOK_EVERY:
            self._looked = self._there
            self.sync()
            free = shutil.disk_usage(self._path.parent).free
            if free < self._keep_free:
                raise JobError(
                    f"The disk is full: {self._path.stem} needs {amount(self._size - self._there)} more, "
                    f"{amount(free)} are free and {amount(self._keep_free)} of them must stay free. What was fetched "
                    "is kept: free some space and resume it.",
                    code="insufficient_storage",
                    details={
                        "needed_bytes": self._size - self._there,
                        "free_bytes": free,
                        "keep_free_bytes": self._keep_free,
                    },
                )
        left = memoryview(chunk)
        while left:
            left = left[self._file.write(left) :]
        self._take(chunk)
        self._on_bytes(len(chunk))
        return len(chunk)

    def tell(self) -> int:
        return self._there

    def truncate(self) -> int:
        """Begin anew."""
        self._file.seek(0)
        self._on_bytes(-self._there)
        self._reset()
        self._file.truncate(0)
        synced.note(self._path, 0, self._signature)
        return 0

    def sync(self) -> None:
        """Return when what is there is on the disk for good, and noted as such."""
        os.fsync(self._file.fileno())
        synced.note(self._path, os.fstat(self._file.fileno()).st_size, self._signature)

    def sha256(self) -> str:
        return self._sha256.hexdigest()

    def matches(self, signature: Signature) -> bool:
        """Whether the content is what the Hub says."""
        whole = self._there == self._size
        return whole and signature.value == (self.sha256() if signature.kind == "sha256" else self._git.hexdigest())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
