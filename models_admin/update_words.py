"""What a check of updates reports, as it is kept and as it is told."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from inference.keeping import ChangedFile, Update

_DOCUMENT = re.compile(r"README\.md|LICENSE(\.(txt|md))?")


def update_of(report: Mapping[str, Any]) -> Update | None:
    """The update that a report tells of; None where the Hub has nothing else."""
    files = tuple(ChangedFile(**file) for file in report.get("files", ()))
    removed = tuple(report.get("removed", ()))
    if not files and not removed:
        return None
    documents = all(_DOCUMENT.fullmatch(name) for name in (*(file.name for file in files), *removed))
    return Update(str(report["commit"]), sum(file.bytes for file in files), files, removed, documents)
