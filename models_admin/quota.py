"""How much our own directory of models may hold: what is there, and what more is refused."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from inference.catalog import ModelRef
from inference.errors import InsufficientStorage

_AWAY = ("absent", "offline")
_GB = 1024**3
_PARTIAL = ".partial"
_NOTHING: Mapping[str, int] = MappingProxyType({})


class QuotaExceeded(InsufficientStorage):
    """What was asked for would not fit into ``disk.models_gb``."""

    code = "quota_exceeded"


class ModelsQuota:
    """``limit`` in bytes; ``own`` are the directories that count, ``models`` what is known to be on the disk."""

    def __init__(self, limit: int, own: Sequence[Path], models: Callable[[], Sequence[ModelRef]]) -> None:
        self.limit, self._own, self._models = limit, own, models
        self._unfinished: dict[str, int] = {}

    def used(self, but: Collection[str] = ()) -> int:
        """Bytes of the files of our own models, without those in the places ``but``."""
        return sum(
            ref.total_bytes
            for ref in self._models()
            if ref.disk_state not in _AWAY
            and any(ref.path.is_relative_to(own) and _place_in(own, ref.path) not in but for own in self._own)
        )

    async def look(self) -> None:
        """Learn what unfinished downloads have on the disk: before a ``check``, and when one has ended."""
        self._unfinished = await asyncio.to_thread(self._measured)

    def check(self, name: str, more: int, place: str = "", held: Mapping[str, int] = _NOTHING) -> None:
        """Raise ``QuotaExceeded`` where a model of ``more`` bytes would be too much.

        What is in its ``place`` is replaced by it, and what was fetched of it is a part of it. ``held`` are the bytes
        that others will have when they are done, by place; what is there of them is a part of that.
        """
        counted = {place, *held}
        unfinished = sum(size for other, size in self._unfinished.items() if other not in counted)
        used = self.used(counted) + unfinished + sum(held.values())
        if used + more > self.limit:
            raise QuotaExceeded(
                f"{name} has {more / _GB:.1f} GB, and {used / _GB:.1f} of the {self.limit / _GB:.1f} GB of "
                "disk.models_gb are taken or promised. Delete a model, or raise disk.models_gb.",
                details={"needed_bytes": more, "used_bytes": used, "limit_bytes": self.limit},
            )

    def _measured(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for own in self._own:
            for partial in own.glob(f"*/*/.*{_PARTIAL}"):
                target = partial.with_name(partial.name.removeprefix(".").removesuffix(_PARTIAL))
                found[_place_in(own, target)] = sum(_sizes(partial))
        return found


def place_of(repo: str, commit: str) -> str:
    """The place of a model below a directory of models, the same for two ways to write its name."""
    return f"{repo}/{commit}".lower()


def _place_in(own: Path, path: Path) -> str:
    return path.relative_to(own).as_posix().lower()


def _sizes(partial: Path) -> Iterator[int]:
    """Of its files, without those that the model which is repaired has too, under another name."""
    for base, _, names in os.walk(partial):
        for name in names:
            try:
                status = os.lstat(os.path.join(base, name))
            except OSError:  # it has got its final name meanwhile
                continue
            if status.st_nlink == 1:
                yield status.st_size
