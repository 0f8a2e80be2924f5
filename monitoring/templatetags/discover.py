"""Counts as Discover writes them: parameters, downloads, dates."""

from __future__ import annotations

from datetime import UTC, datetime

from django import template

register = template.Library()


@register.filter
def parameters(value: int | None) -> str:
    """A model's parameters: ``4.0 B``, ``135 M``."""
    if not value:
        return "–"
    for unit, size in (("T", 10**12), ("B", 10**9), ("M", 10**6)):
        if value >= size:
            figure = value / size
            return f"{figure:.0f} {unit}" if figure >= 100 or unit == "M" else f"{figure:.1f} {unit}"
    return f"{value:,}"


@register.filter
def counted(value: int | None) -> str:
    """Downloads and likes: ``1.2M``, ``34k``, ``950``."""
    if not value:
        return "0"
    if value >= 999_500:
        return f"{value / 1e6:.1f}M"
    return f"{value / 1000:.0f}k" if value >= 10_000 else f"{value:,}"


@register.filter
def day(value: float | None) -> str:
    """A moment as its date, ``2026-03-01``; a dash where it is not known."""
    return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%d") if value else "–"
