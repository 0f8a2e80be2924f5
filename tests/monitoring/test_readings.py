"""Readings: this Linux for real, cgroup limits and macOS from recorded values."""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from inference.engine.contract import MemoryReading
from monitoring.readings import open_reader
from monitoring.readings.linux import LinuxReader
from monitoring.readings.macos import MacReader, RusageInfoV0, VmPages, VmStatistics64, gpu_limit, used_bytes

GIB = 1024**3
MIB = 1024**2
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@linux_only
def test_it_works_here() -> None:
    reading = open_reader().read()
    assert 0 < reading.used < reading.total <= psutil.virtual_memory().total
    assert reading.used + reading.available == reading.total
    assert reading.gpu_limit is None


@linux_only
def test_a_footprint_grows_with_what_a_process_touches() -> None:
    reader = open_reader()
    before = reader.footprint(os.getpid())
    block = mmap.mmap(-1, 64 * MIB)
    block.write(b"x" * (64 * MIB))
    grown = reader.footprint(os.getpid()) - before
    block.close()
    assert before > 0
    assert 60 * MIB < grown < 80 * MIB


@linux_only
def test_a_process_that_is_gone_has_no_footprint() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert open_reader().footprint(child.pid) == 0


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@linux_only
@pytest.mark.parametrize("limited", ["user/job", "user"])
def test_a_cgroup_limit_below_the_machine_counts(tmp_path: Path, limited: str) -> None:
    proc = tree(tmp_path / "proc", {"self/cgroup": "0::/user/job\n"})
    files = {f"{name}/memory.max": "max\n" for name in ("user", "user/job")}
    files |= {f"{name}/memory.current": "1000000\n" for name in ("user", "user/job")}
    files |= {
        f"{limited}/memory.max": str(512 * MIB),
        f"{limited}/memory.current": str(400 * MIB),
        f"{limited}/memory.stat": f"anon 1\nactive_file {50 * MIB}\ninactive_file {150 * MIB}\n",
    }
    reading = LinuxReader(proc, tree(tmp_path / "cgroup", files)).read()
    assert reading.total == 512 * MIB
    assert reading.used == 200 * MIB  # cached files are given back before memory is refused


@linux_only
def test_footprint_falls_back_to_the_resident_size(tmp_path: Path) -> None:
    proc = tree(tmp_path, {"7/status": "Name:\tx\nVmRSS:\t  2048 kB\n", "7/smaps_rollup/denied": ""})
    assert LinuxReader(proc, tmp_path).footprint(7) == 2 * MIB


# A 96 GB machine under load: `vm_stat` in pages of 16 KiB.
RECORDED = VmPages(page_size=16384, wired=1_245_184, internal=3_407_872, purgeable=65_536, compressor=196_608)


class RecordedMac:
    def __init__(self, wired_limit_mb: int | None) -> None:
        self._values = {"hw.memsize": 96 * GIB, "iogpu.wired_limit_mb": wired_limit_mb}

    def vm_pages(self) -> VmPages:
        return RECORDED

    def footprint(self, pid: int) -> int:
        return {4242: 18_253_611_008}.get(pid, 0)

    def sysctl(self, name: str) -> int | None:
        return self._values[name]


def test_a_mac_counts_as_activity_monitor_does() -> None:
    assert used_bytes(RECORDED) == 73 * GIB
    reader = MacReader(RecordedMac(wired_limit_mb=0))
    assert reader.read() == MemoryReading(total=96 * GIB, available=23 * GIB, used=73 * GIB, gpu_limit=72 * GIB)
    assert reader.footprint(4242) == 18_253_611_008
    assert reader.footprint(1) == 0


@pytest.mark.parametrize(
    ("total", "wired_mb", "expected"),
    [
        (96, 0, 72 * GIB),
        (96, None, 72 * GIB),
        (96, 88_000, 88_000 * MIB),
        (16, 0, 16 * GIB * 2 // 3),
        (32, 0, 32 * GIB * 2 // 3),
        (36, 0, 27 * GIB),
        (64, 999_999, 64 * GIB),
    ],
)
def test_the_gpu_limit_is_the_owners_or_the_systems_rule(total: int, wired_mb: int | None, expected: int) -> None:
    assert gpu_limit(total * GIB, wired_mb) == expected


def test_the_structs_have_apples_layout() -> None:
    """Offsets and sizes from Apple's published headers (HOST_VM_INFO64_COUNT is 38 words)."""
    assert ctypes.sizeof(VmStatistics64) == 38 * 4
    assert VmStatistics64.internal_page_count.offset == 140
    assert VmStatistics64.purgeable_count.offset == 88
    assert RusageInfoV0.phys_footprint.offset == 72
    assert ctypes.sizeof(RusageInfoV0) == 96
