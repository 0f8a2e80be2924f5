"""How much our own directory of models may hold: what is there, and what more is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from inference.catalog import ModelRef
from inference.errors import InsufficientStorage

_AWAY = ("absent", "offline")
_GB = 1024**3


class QuotaExceeded(InsufficientStorage):
    """What was asked for would not fit into ``disk.models_gb``."""

    code = "quota_exceeded"


class ModelsQuota:
    """``limit`` in bytes; ``own`` are the directories that count, ``models`` what is known to be on the disk."""

    def __init__(self, limit: int, own: Sequence[Path], models: Callable[[], Sequence[ModelRef]]) -> None:
        self.limit, self._own, self._models = limit, own, models

    def used(self) -> int:
        """Bytes of the files of our own models."""
        return sum(
            ref.total_bytes
            for ref in self._models()
            if ref.disk_state not in _AWAY and any(ref.path.is_relative_to(own) for own in self._own)
        )

    def check(self, name: str, more: int) -> None:
        """Raise ``QuotaExceeded`` where a model of ``more`` bytes would be too much."""
        used = self.used()
        if used + more > self.limit:
            raise QuotaExceeded(
                f"{name} has {more / _GB:.1f} GB, and {used / _GB:.1f} of the {self.limit / _GB:.1f} GB of "
                "disk.models_gb are taken. Delete a model, or raise disk.models_gb.",
                details={"needed_bytes": more, "used_bytes": used, "limit_bytes": self.limit},
            )
