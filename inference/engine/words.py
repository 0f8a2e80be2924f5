"""Numbers in sentences for people."""

from __future__ import annotations

_GB = 1024**3
_MB = 1024**2


def gigabytes(size: float) -> str:
    """``6.1 GB``, below 1000 MB ``312 MB``. A GB is 2**30 bytes, as macOS counts: 96.0 GB on a 96 GB Mac."""
    size = max(0.0, size)
    return f"{size / _GB:.1f} GB" if size >= 1000 * _MB else f"{size / _MB:.0f} MB"


def duration(seconds: float) -> str:
    """``40 s``, ``12 m``, ``2 h`` or ``3 d``."""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def short_name(model_id: str) -> str:
    """A model's name without its organisation."""
    return model_id.rsplit("/", 1)[-1]
