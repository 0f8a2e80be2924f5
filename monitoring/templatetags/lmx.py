"""Numbers as the pages write them: units always there, the same as ``static/lmx/js/format.js``."""

from __future__ import annotations

import json
import math
import time
from datetime import UTC, datetime

from django import template

register = template.Library()

_TIB = 1024**4
_GIB = 1024**3
_MIB = 1024**2


@register.filter
def size(value: float | None) -> str:
    """Bytes as ``12.4 GB``; below 1000 MB ``312 MB``, below half a MB ``12 KB``, from 1000 GB on ``1.8 TB``.

    GB are 2**30, as the system's own tools count memory.
    """
    if value is None:
        return "–"
    if value >= 1000 * _GIB:
        return f"{value / _TIB:.1f} TB"
    if value >= 1000 * _MIB:
        return f"{value / _GIB:.1f} GB"
    if 0 < value < _MIB / 2:
        return f"{math.ceil(value / 1024)} KB"
    return f"{value / _MIB:.0f} MB"


@register.filter
def out_of(value: float | None, whole: float | None) -> str:
    """Two sizes in the unit of the larger: ``71.2 / 96.0 GB``, on a small machine ``120 / 320 MB``."""
    if whole and whole < _GIB:
        return f"{(value or 0) / _MIB:.0f} / {whole / _MIB:.0f} MB"
    return f"{(value or 0) / _GIB:.1f} / {(whole or 0) / _GIB:.1f} GB"


@register.filter
def thousands(value: int | None) -> str:
    """Tokens as ``11k`` from ten thousand on (``32k`` for 32,768), ``4,096`` below."""
    if value is None:
        return "–"
    return f"{value / (1000 if value % 1024 else 1024):.0f}k" if value >= 10_000 else f"{value:,}"


@register.filter
def milliseconds(value: float | None) -> str:
    """``180 ms``, from a second on ``9.6 s``."""
    if value is None:
        return "–"
    return f"{value / 1000:.1f} s" if value >= 1000 else f"{value:.0f} ms"


@register.filter
def ago(value: float | None) -> str:
    """A time as how long ago it was: ``12 s``, ``41 m``, ``2 h``, ``3 d``."""
    if value is None:
        return "–"
    return lasting(max(0.0, time.time() - value))


@register.filter
def lasting(seconds: float) -> str:
    """A span of time: ``12 s``, ``41 m``, ``2 h``, ``3 d``."""
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


@register.filter
def percent_of(value: float | None, whole: float | None) -> str:
    """``value`` in percent of ``whole``, for lengths in a drawing; 0 when there is no whole."""
    return f"{100 * (value or 0) / whole:.2f}" if whole else "0"


@register.filter
def short(value: str) -> str:
    """A model's name without its organisation."""
    return value.rsplit("/", 1)[-1]


@register.filter
def stylesheets(names: str) -> list[str]:
    """``"tokens base"`` as the paths of those stylesheets, one file per component."""
    return [f"lmx/css/{name}.css" for name in names.split()]


@register.filter
def iso(value: float | None) -> str:
    """Epoch seconds as ISO 8601 in the server's time zone."""
    return "" if value is None else datetime.fromtimestamp(value, UTC).astimezone().isoformat(timespec="seconds")


@register.filter
def clock(value: float | None) -> str:
    """Epoch seconds as ``09:41:07`` of today, ``30 Nov 09:41`` of another day."""
    if value is None:
        return "–"
    moment, today = datetime.fromtimestamp(value, UTC).astimezone(), datetime.now(UTC).astimezone()
    if moment.date() == today.date():
        return moment.strftime("%H:%M:%S")
    return moment.strftime("%d %b %H:%M" if moment.year == today.year else "%d %b %Y %H:%M")


@register.filter
def words(value: str) -> str:
    """``delete_model`` as ``delete model``."""
    return value.replace("_", " ")


@register.filter
def plain(value: object) -> str:
    """A value of some parameter in one line, as JSON writes it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
