"""What a model at the Hub can be called. Pure."""

from __future__ import annotations

import re

_MAX_NAME = 96
_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_-])?"
_REPO = re.compile(rf"{_PART}/{_PART}")


def is_repo(name: str) -> bool:
    """Whether it can be the name of a model at the Hub, ``org/name``."""
    sound = _REPO.fullmatch(name) is not None and len(name) <= 2 * _MAX_NAME
    return sound and ".." not in name and "--" not in name and not name.endswith((".git", ".ipynb"))
