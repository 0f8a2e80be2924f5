"""macOS: ``host_statistics64`` for the machine, ``proc_pid_rusage`` for a process, ``sysctl`` for the GPU limit.

``System`` holds the calls into the operating system through ctypes and nothing else; everything that computes works
on ``VmPages`` and plain numbers, and is tested against recorded values. The calls themselves have not been run on a
Mac yet.
"""

from __future__ import annotations

import ctypes
import ctypes.util
from dataclasses import dataclass
from typing import Protocol

from inference.engine.contract import MemoryReading

_HOST_VM_INFO64 = 4
_RUSAGE_INFO_V0 = 0
_MIB = 1024 * 1024
_GIB = 1024 * _MIB


class VmStatistics64(ctypes.Structure):
    """``struct vm_statistics64`` of <mach/vm_statistics.h>; page counts unless noted."""

    _fields_ = (
        ("free_count", ctypes.c_uint32),
        ("active_count", ctypes.c_uint32),
        ("inactive_count", ctypes.c_uint32),
        ("wire_count", ctypes.c_uint32),
        ("zero_fill_count", ctypes.c_uint64),
        ("reactivations", ctypes.c_uint64),
        ("pageins", ctypes.c_uint64),
        ("pageouts", ctypes.c_uint64),
        ("faults", ctypes.c_uint64),
        ("cow_faults", ctypes.c_uint64),
        ("lookups", ctypes.c_uint64),
        ("hits", ctypes.c_uint64),
        ("purges", ctypes.c_uint64),
        ("purgeable_count", ctypes.c_uint32),
        ("speculative_count", ctypes.c_uint32),
        ("decompressions", ctypes.c_uint64),
        ("compressions", ctypes.c_uint64),
        ("swapins", ctypes.c_uint64),
        ("swapouts", ctypes.c_uint64),
        ("compressor_page_count", ctypes.c_uint32),
        ("throttled_count", ctypes.c_uint32),
        ("external_page_count", ctypes.c_uint32),
        ("internal_page_count", ctypes.c_uint32),
        ("total_uncompressed_pages_in_compressor", ctypes.c_uint64),
    )


class RusageInfoV0(ctypes.Structure):
    """``struct rusage_info_v0`` of <sys/resource.h>; sizes in bytes."""

    _fields_ = (
        ("uuid", ctypes.c_uint8 * 16),
        ("user_time", ctypes.c_uint64),
        ("system_time", ctypes.c_uint64),
        ("pkg_idle_wkups", ctypes.c_uint64),
        ("interrupt_wkups", ctypes.c_uint64),
        ("pageins", ctypes.c_uint64),
        ("wired_size", ctypes.c_uint64),
        ("resident_size", ctypes.c_uint64),
        ("phys_footprint", ctypes.c_uint64),
        ("proc_start_abstime", ctypes.c_uint64),
        ("proc_exit_abstime", ctypes.c_uint64),
    )


@dataclass(frozen=True, slots=True)
class VmPages:
    """The page counts that make up "memory used", and the size of a page in bytes."""

    page_size: int
    wired: int
    internal: int
    purgeable: int
    compressor: int


class MacSystem(Protocol):
    """What ``MacReader`` asks of the operating system. A process that is gone has footprint 0."""

    def vm_pages(self) -> VmPages: ...

    def footprint(self, pid: int) -> int: ...

    def sysctl(self, name: str) -> int | None: ...


class MacReader:
    """The machine as Activity Monitor counts it: used = wired + compressed + apps (internal less purgeable)."""

    def __init__(self, system: MacSystem | None = None) -> None:
        self._system = system or System()
        self._total = self._system.sysctl("hw.memsize") or 0

    def read(self) -> MemoryReading:
        used = min(self._total, used_bytes(self._system.vm_pages()))
        limit = gpu_limit(self._total, self._system.sysctl("iogpu.wired_limit_mb"))
        return MemoryReading(total=self._total, available=self._total - used, used=used, gpu_limit=limit)

    def footprint(self, pid: int) -> int:
        return self._system.footprint(pid)


def used_bytes(pages: VmPages) -> int:
    """Memory that is not there for the taking; cached files are, so they do not count."""
    return (pages.wired + pages.compressor + max(0, pages.internal - pages.purgeable)) * pages.page_size


def gpu_limit(total: int, wired_limit_mb: int | None) -> int:
    """The Metal working-set limit: the owner's ``iogpu.wired_limit_mb``, else the system's own rule.

    Apple does not document the rule; two thirds up to 32 GB and three quarters above is what Macs report. A worker's
    own ``recommendedMaxWorkingSetSize`` is the truth where it is known.
    """
    if wired_limit_mb:
        return min(total, wired_limit_mb * _MIB)
    return total * 2 // 3 if total <= 32 * _GIB else total * 3 // 4


class System:
    """The calls. Raises ``OSError`` when the system refuses to tell."""

    def __init__(self) -> None:
        self._lib = ctypes.CDLL(ctypes.util.find_library("System"), use_errno=True)
        self._lib.mach_host_self.restype = ctypes.c_uint32
        # One send right for the life of the process: every call of mach_host_self would add another.
        self._host = ctypes.c_uint32(self._lib.mach_host_self())

    def vm_pages(self) -> VmPages:
        info = VmStatistics64()
        count = ctypes.c_uint32(ctypes.sizeof(info) // 4)
        status = self._lib.host_statistics64(self._host, _HOST_VM_INFO64, ctypes.byref(info), ctypes.byref(count))
        if status != 0:
            raise OSError(f"host_statistics64 failed with {status}")
        page = self.sysctl("hw.pagesize") or 16384
        return VmPages(
            page, info.wire_count, info.internal_page_count, info.purgeable_count, info.compressor_page_count
        )

    def footprint(self, pid: int) -> int:
        usage = RusageInfoV0()
        status = self._lib.proc_pid_rusage(ctypes.c_int(pid), _RUSAGE_INFO_V0, ctypes.byref(usage))
        return int(usage.phys_footprint) if status == 0 else 0

    def sysctl(self, name: str) -> int | None:
        value = ctypes.c_uint64(0)
        size = ctypes.c_size_t(ctypes.sizeof(value))
        status = self._lib.sysctlbyname(
            name.encode(), ctypes.byref(value), ctypes.byref(size), None, ctypes.c_size_t(0)
        )
        return int(value.value) if status == 0 else None
