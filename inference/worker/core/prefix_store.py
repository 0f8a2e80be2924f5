"""Cached prefixes of one model on disk: one file per prefix, checked before it is believed, never more than the quota.

A file is a fixed prelude, a header (MessagePack: what the arrays are, which tokens they stand for) and the bytes of the
arrays one after the other. Header and arrays have a digest each, so the index is made from the headers alone. Nothing
in a file is executed, and no size in it is believed before it agrees with the size of the file. A file's modification
time is its last use. Only files that are named as this module names them are ever removed.

Thread-safe. ``read`` and ``write`` touch the disk on the thread that calls them.
"""

from __future__ import annotations

import math
import os
import re
import stat
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray

from inference.worker.core.prefix_file import (
    BadFile,
    OutOfTime,
    Packed,
    Stop,
    Stored,
    encode,
    read_arrays,
    read_header,
    write_file,
)

Tokens: TypeAlias = NDArray[np.int32]

_SUFFIX = ".prefix"
_PARTIAL = ".partial"
_WRITING_TO_READING = 2.0
"""How much longer writing a file may take than reading its arrays did."""
_OURS = re.compile(r"[0-9a-f]{40}\.prefix(\.partial)?")


@dataclass(eq=False, slots=True)
class Entry:
    """One stored prefix. ``cuttable``: any beginning of it can be used; else it counts only as a whole."""

    name: str
    tokens: Tokens
    cuttable: bool
    nbytes: int
    used: int


def common_length(one: Tokens, other: Tokens) -> int:
    """How many tokens two sequences have in common at their beginning."""
    size = min(one.size, other.size)
    different = one[:size] != other[:size]
    first = int(different.argmax()) if size else 0
    return first if size and different[first] else size


class PrefixStore:
    """The entries in ``directory`` (made with mode 0700), at most ``quota`` bytes of files, partial ones counted.

    Entries of another ``fingerprint`` are removed by ``open``. A quota of 0 only reads. ``log`` gets one sentence when
    the disk refuses (once in the store's life) and one for each file that is found damaged.
    """

    def __init__(self, directory: Path, quota: int, fingerprint: str, log: Callable[[str], None]) -> None:
        self._directory = directory
        self._quota = quota
        self._fingerprint = fingerprint
        self._log = log
        self._lock = threading.RLock()
        self._writing = threading.Lock()
        self._entries: dict[str, Entry] = {}
        self._foreign = 0
        self._reserved = 0
        self._complained = False

    @property
    def nbytes(self) -> int:
        """Size of the stored entries, without what is being written."""
        with self._lock:
            return sum(entry.nbytes for entry in self._entries.values())

    @property
    def entries(self) -> list[Entry]:
        with self._lock:
            return list(self._entries.values())

    def open(self) -> None:
        """Make the directory, read the headers, remove what is left over, damaged, foreign or beyond the quota."""
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = sorted(os.scandir(self._directory), key=lambda one: one.name)
        except OSError as error:
            self._complain("opened", error)
            return
        for item in found:
            self._open_one(item)
        with self._lock:
            if self._quota:
                self._make_room(0)

    def _open_one(self, item: os.DirEntry[str]) -> None:
        if not item.is_file(follow_symlinks=False):
            return
        if not _OURS.fullmatch(item.name):
            with suppress(OSError):
                self._foreign += item.stat(follow_symlinks=False).st_size
            return
        if item.name.endswith(_PARTIAL):
            self._unlink(item.name)
            return
        try:
            with self._opened(item.name) as file:
                status = os.fstat(file.fileno())
                header = read_header(file, status.st_size)
        except (OSError, BadFile) as error:
            self._damaged(item.name, error)
            return
        tokens = np.frombuffer(header.tokens, np.int32)
        if header.fingerprint != self._fingerprint or self._name(tokens, header.cuttable) != item.name:
            self._unlink(item.name)
            return
        with self._lock:
            entry = Entry(item.name, tokens, header.cuttable, status.st_size, status.st_mtime_ns)
            self._entries[item.name] = entry

    # ---------------------------------------------------------------------------------------------------- reading

    def best(self, tokens: Tokens) -> tuple[Entry, int] | None:
        """The entry that covers most of ``tokens`` except the last one, and how many it covers; None if none does."""
        best: tuple[Entry, int] | None = None
        for entry in self.entries:
            covered = self._covered(entry, tokens[:-1], best[1] if best else 0)
            if covered > (best[1] if best else 0):
                best = entry, covered
        return best

    @staticmethod
    def _covered(entry: Entry, tokens: Tokens, least: int) -> int:
        if min(entry.tokens.size, tokens.size) <= least or entry.tokens[least] != tokens[least]:
            return 0
        common = common_length(entry.tokens, tokens)
        return common if entry.cuttable or common == entry.tokens.size else 0

    def read(self, entry: Entry) -> Stored | None:
        """What is stored, checked against its digest, in ordinary memory; a damaged file is removed. Marks it used."""
        try:
            with self._opened(entry.name) as file:
                header = read_header(file, os.fstat(file.fileno()).st_size)
                if header.fingerprint != self._fingerprint or header.tokens != entry.tokens.tobytes():
                    raise BadFile("it is another entry")
                stored = read_arrays(file, header)
        except FileNotFoundError:
            self._forget(entry)
            return None
        except (OSError, BadFile, MemoryError) as error:
            if isinstance(error, BadFile):
                self._forget(entry)
            self._damaged(entry.name, error)
            return None
        self.touch(entry)
        return stored

    def remove(self, entry: Entry) -> None:
        """Delete it."""
        with self._lock:
            self._remove(entry)

    def touch(self, entry: Entry, used: int | None = None) -> None:
        """Mark it as used now, or then (ns since the epoch)."""
        entry.used = time.time_ns() if used is None else max(used, entry.used)
        with suppress(OSError):
            os.utime(self._directory / entry.name, ns=(entry.used, entry.used), follow_symlinks=False)

    def covers(self, tokens: Tokens, cuttable: bool) -> Entry | None:
        """An entry that makes storing ``tokens`` needless."""
        for entry in self.entries:
            if entry.cuttable == cuttable and entry.tokens.size >= tokens.size:
                exact = entry.tokens.size == tokens.size
                if (exact or cuttable) and common_length(entry.tokens, tokens) == tokens.size:
                    return entry
        return None

    # ---------------------------------------------------------------------------------------------------- writing

    def write(
        self,
        tokens: Tokens,
        packed: Packed,
        cuttable: bool,
        used: int | None = None,
        stop: Stop = lambda: False,
        until: float = math.inf,
    ) -> bool:
        """Store an entry last ``used`` then (ns since the epoch; None: now), and drop those that it makes needless.

        To make room, those used before it are dropped, least recently used first. False when it does not fit, the disk
        refuses, ``stop`` says so or it is later than ``until`` (monotonic seconds); nothing of it is left then. Nothing
        is dropped for what would hardly be written in time.
        """
        tokens = np.ascontiguousarray(tokens, np.int32)
        with self._writing:
            if not tokens.size or not self._quota:
                return False
            present = self.covers(tokens, cuttable)
            if present is not None:
                self.touch(present)
                return True
            if packed.nbytes > self._quota:
                return False
            began = time.monotonic()

            def over() -> bool:
                return stop() or time.monotonic() > until

            try:
                head, size = encode(self._fingerprint, tokens.tobytes(), cuttable, packed, over)
            except OutOfTime:
                return False
            now = time.monotonic()
            late = now + _WRITING_TO_READING * (now - began) > until
            entry = Entry(self._name(tokens, cuttable), tokens, cuttable, size, used or time.time_ns())
            return self._write(entry, head, packed, over, late=late)

    def _write(self, entry: Entry, head: bytes, packed: Packed, stop: Stop, *, late: bool) -> bool:
        tokens, cuttable, name, size = entry.tokens, entry.cuttable, entry.name, entry.nbytes
        with self._lock:
            if size > self._quota - self._foreign or (late and self._used() + size > self._quota):
                return False
            if not self._make_room(size, self._superseded(tokens, cuttable), entry.used):
                return False
            self._reserved = size
        partial = self._directory / (name + _PARTIAL)
        try:
            write_file(partial, head, packed.arrays, stop)
            os.utime(partial, ns=(entry.used, entry.used))
            os.rename(partial, self._directory / name)
            with self._lock:
                self._entries[name] = entry
        except OutOfTime:
            return False
        except OSError as error:
            self._complain("written", error)
            return False
        finally:
            with self._lock:
                self._reserved = 0
            with suppress(OSError):
                partial.unlink(missing_ok=True)
        for needless in self._superseded(tokens, cuttable):
            self._remove(needless)
        return True

    def _superseded(self, tokens: Tokens, cuttable: bool) -> list[Entry]:
        """Entries that are a shorter beginning of ``tokens``: needless if the longer one can be cut."""
        if not cuttable:
            return []
        return [
            entry
            for entry in self.entries
            if entry.cuttable
            and entry.tokens.size < tokens.size
            and common_length(entry.tokens, tokens) == entry.tokens.size
        ]

    def _make_room(self, size: int, first: Sequence[Entry] = (), before: float = math.inf) -> bool:
        """Remove entries, ``first`` these, then those used ``before``, until ``size`` more bytes fit."""
        old = (one for one in self._entries.values() if one not in first and one.used < before)
        rest = sorted(old, key=lambda one: one.used)
        for entry in (*first, *rest):
            if self._used() + size <= self._quota:
                break
            self._remove(entry)
        return self._used() + size <= self._quota

    def _used(self) -> int:
        return self.nbytes + self._foreign + self._reserved

    # ---------------------------------------------------------------------------------------------------- helpers

    def _name(self, tokens: Tokens, cuttable: bool) -> str:
        head = f"{self._fingerprint}/{cuttable}/".encode()
        return blake2b(head + tokens.tobytes(), digest_size=20).hexdigest() + _SUFFIX

    def _opened(self, name: str) -> BinaryIO:
        descriptor = os.open(self._directory / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise BadFile("it is no file")
        return os.fdopen(descriptor, "rb", buffering=0)

    def _forget(self, entry: Entry) -> None:
        with self._lock:
            self._entries.pop(entry.name, None)

    def _remove(self, entry: Entry) -> None:
        """What cannot be removed goes on counting."""
        if self._unlink(entry.name):
            self._forget(entry)

    def _unlink(self, name: str) -> bool:
        try:
            (self._directory / name).unlink(missing_ok=True)
        except OSError as error:
            self._complain("tidied", error)
            return False
        return True

    def _damaged(self, name: str, error: BaseException) -> None:
        """Say so; remove the file if it is the file's fault and not the disk's."""
        self._log(f"a cached prefix on disk was not used: {error or type(error).__name__}")
        if isinstance(error, BadFile):
            self._unlink(name)

    def _complain(self, what: str, error: OSError) -> None:
        if not self._complained:
            self._complained = True
            self._log(f"the prefix cache on disk could not be {what}: {error.strerror or error}")
