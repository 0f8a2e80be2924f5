"""How much of a file that grows is on the disk for good.

A program that is killed loses nothing that it wrote: the system has it. A machine that goes down loses what was not
synced, and may leave zeros in its place. So beside ``NAME.part`` lies ``NAME.part.synced``: how many bytes were synced,
since which start of the machine, and of what content. Blocking; follows no link.
"""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path

import msgspec
import psutil
from msgspec import Struct

from models_admin.second_names import plain_size

SUFFIX = ".synced"
_LARGEST = 4096


class Synced(Struct, frozen=True):
    """``offset`` in bytes; ``boot`` names a start of the machine; ``signature`` is the content that was asked for."""

    offset: int
    boot: str
    signature: str = ""


def beside(part: Path) -> Path:
    """Where it is noted."""
    return part.with_name(part.name + SUFFIX)


def note(part: Path, offset: int, signature: str) -> None:
    """Say that so much of ``part`` is synced. What stood there before stays until this is whole."""
    path = beside(part)
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(Synced(offset, boot(), signature)))
    new.replace(path)


def known(part: Path) -> Synced | None:
    """What is noted; None where nothing is that can be understood."""
    path = beside(part)
    try:
        if (plain_size(path) or _LARGEST) >= _LARGEST:
            return None
        return msgspec.json.decode(path.read_bytes(), type=Synced)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


def trusted(part: Path) -> int:
    """How many bytes of ``part`` are what was written; all of them while the machine runs, else those synced."""
    size, noted = plain_size(part) or 0, known(part)
    if noted is None or noted.boot == boot():
        return size
    return min(size, max(0, noted.offset))


@functools.cache
def boot() -> str:
    """The same until the machine is started again."""
    try:
        if os.uname().sysname == "Linux":
            return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        command = ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]
        said = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return said.stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return str(round(psutil.boot_time()))
