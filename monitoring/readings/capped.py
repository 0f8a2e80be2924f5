"""A small machine for tests: only the memory of this process's children counts, against a total of our choosing."""

from __future__ import annotations

import psutil

from inference.engine.contract import MemoryReader, MemoryReading


class CappedReader:
    """Reads as a machine with ``cap_bytes`` of memory, in which nothing runs but this process's children.

    ``used`` is never clipped: if the children pass the cap, the reading says so.
    """

    def __init__(self, inner: MemoryReader, cap_bytes: int) -> None:
        self._inner = inner
        self._cap = cap_bytes
        self._me = psutil.Process()

    def read(self) -> MemoryReading:
        machine = self._inner.read()
        used = sum(self.footprint(child.pid) for child in self._me.children(recursive=True))
        available = min(machine.available, max(0, self._cap - used))
        return MemoryReading(total=self._cap, available=available, used=used, gpu_limit=machine.gpu_limit)

    def footprint(self, pid: int) -> int:
        return self._inner.footprint(pid)
