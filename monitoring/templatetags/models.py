"""States of models in words, and what the pages Models and Disk count."""

from __future__ import annotations

from django import template

from monitoring.templatetags.lmx import size

register = template.Library()

_RUN = {
    "ready": "in memory",
    "draining": "unloading",
    "unloaded": "not loaded",
    "stopped-after-crashes": "stopped after crashes",
    "broken": "cannot be loaded",
}
_DISK = {
    "verified": "every file is what was published",
    "adopted": "found here, and nothing contradicts it; its files were not read",
    "corrupt": "a file is not what it should be; it is not loaded",
    "partial": "weights are missing: a download that did not finish",
    "offline": "its volume is not mounted, or cannot be read",
    "absent": "its directory is gone; listed for a week",
}
_PAST = {"load": "loaded", "unload": "unloaded", "pin": "pinned", "verify": "verified", "restore": "brought back"}
_PAST |= {"check": "compared with the Hub", "update": "updated", "rollback": "rolled back", "convert": "converted"}


@register.filter
def run_words(state: str) -> str:
    """How a model runs, for people."""
    return _RUN.get(state, state)


@register.filter
def disk_meaning(state: str) -> str:
    """What a disk state says."""
    return _DISK.get(state, "")


@register.filter
def past(action: str) -> str:
    """``load`` as ``loaded``."""
    return _PAST.get(action, action)


@register.filter
def size_or_dash(value: int) -> str:
    """Bytes in words; nothing is a dash."""
    return size(value) if value else "–"


@register.filter
def commas(value: int) -> str:
    """``12,345``."""
    return f"{value:,}"


@register.filter
def plural(count: int, word: str) -> str:
    """The word for so many."""
    return word if count == 1 else f"{word}s"


@register.filter
def count(value: int) -> str:
    """Parameters as ``8.2 B``, ``494 M``; a dash where nobody knows."""
    for unit, length in (("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if value >= length:
            figure = value / length
            return f"{figure:.1f} {unit}" if figure < 100 else f"{figure:.0f} {unit}"
    return str(value) if value else "–"


@register.filter
def kilobytes(value: int) -> str:
    """``112 KB``: what one token costs."""
    return f"{value / 1024:.0f} KB" if value >= 10 * 1024 else f"{value / 1024:.1f} KB"


@register.filter
def figure(value: float) -> str:
    """A number for a drawing."""
    return f"{value:.3f}"


@register.filter
def brief_hash(value: str) -> str:
    """The beginning of a hash."""
    return value[:12] if value else "–"
