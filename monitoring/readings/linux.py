"""Linux: the machine from ``/proc/meminfo``, a lower cgroup v2 limit where there is one, a process by its PSS.

PSS (proportional set size) counts a page that several processes share once in all, so that the processes' numbers add
up to what they really hold; RSS would count the mapped libraries of every worker again.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil

from inference.engine.contract import MemoryReading

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")


class LinuxReader:
    """``proc`` and ``cgroups`` are the mount points, replaceable by recorded trees."""

    def __init__(self, proc: Path = PROC, cgroups: Path = CGROUPS) -> None:
        self._proc = proc
        self._groups = tuple(_own_groups(proc, cgroups))

    def read(self) -> MemoryReading:
        machine = psutil.virtual_memory()
        total, available = int(machine.total), int(machine.available)
        for group in self._groups:
            limit = _number(group / "memory.max")
            current = _number(group / "memory.current")
            if limit is None or current is None or limit >= machine.total:
                continue
            held = max(0, current - _reclaimable(group))
            total = min(total, limit)
            available = min(available, max(0, limit - held))
        available = min(available, total)
        return MemoryReading(total=total, available=available, used=total - available)

    def footprint(self, pid: int) -> int:
        """PSS; resident size where the kernel does not show the maps of that process; 0 when it is gone."""
        try:
            text = (self._proc / str(pid) / "smaps_rollup").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            return 0
        except OSError:
            return _resident(self._proc / str(pid))
        return _field(text, b"Pss:")


def _own_groups(proc: Path, cgroups: Path) -> Iterator[Path]:
    """This process's cgroup v2 directory and its parents, each of which may carry a limit."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    path = next((line[3:] for line in lines if line.startswith("0::")), None)
    if path is None:
        return
    group = cgroups / path.lstrip("/")
    while True:
        if (group / "memory.max").is_file():
            yield group
        if group == cgroups or cgroups not in group.parents:
            return
        group = group.parent


def _number(path: Path) -> int | None:
    """The file's number; None for ``max`` (no limit) and where it cannot be read."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _reclaimable(group: Path) -> int:
    """Cached file pages the kernel gives back before it refuses memory."""
    try:
        lines = (group / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(("inactive_file ", "active_file ")))


def _field(text: bytes, name: bytes) -> int:
    """A ``Name:   123 kB`` line, in bytes."""
    for line in text.splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    return 0


def _resident(process: Path) -> int:
    try:
        return _field((process / "status").read_bytes(), b"VmRSS:")
    except OSError:
        return 0
