"""The search of the Hub on this machine: ``/api/models`` with filters, orders, cursors and what is shown of each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlencode

_ALWAYS = ("id", "private")


def listed(repos: Mapping[str, dict[str, Any]], query: str, url: str) -> tuple[bytes, dict[str, str]]:
    """The body and headers of a search among the descriptions of repositories, as the Hub answers it."""
    asked = parse_qs(query)
    first = {name: values[0] for name, values in asked.items()}
    found = [about for name, about in repos.items() if _fits(name, about, first, asked.get("filter", []))]
    sort, limit = first.get("sort", "trendingScore"), int(first.get("limit", "1000"))
    found.sort(key=lambda about: about.get(sort) or 0, reverse=True)
    start = int(first["cursor"].removeprefix("after:")) if "cursor" in first else 0
    page = found[start : start + limit]
    headers = {"Content-Type": "application/json"}
    if start + limit < len(found):
        following = {**asked, "cursor": [f"after:{start + limit}"]}
        headers["Link"] = f'<{url}/api/models?{urlencode(following, doseq=True)}>; rel="next"'
    shown = asked.get("expand")
    return json.dumps([_shown(about, shown) for about in page]).encode(), headers


def _fits(name: str, about: Mapping[str, Any], first: Mapping[str, str], tags: list[str]) -> bool:
    author, text = first.get("author", ""), first.get("search", "")
    if author and name.partition("/")[0].lower() != author.lower():
        return False
    return text.lower() in name.lower() and set(tags) <= set(about.get("tags", []))


def _shown(about: Mapping[str, Any], wanted: list[str] | None) -> dict[str, Any]:
    if wanted is None:
        return {name: value for name, value in about.items() if name not in ("siblings", "config", "safetensors")}
    return {name: value for name, value in about.items() if name in (*_ALWAYS, *wanted)}
