"""Pages of a search: what the Hub filters itself is asked of it, the rest is left out here, and more is asked for
then.

The Hub knows neither the size of a model in bytes nor that a quantized one has more parameters than numbers. A cursor
of ours says which page of the Hub's, and how many of its results are used up.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

from inference.errors import InvalidRequest
from inference.finding import Found, HubModel, ModelFormat, Query
from models_admin.hub_variants import with_quantization

_SORTS = {"downloads": "downloads", "likes": "likes", "updated": "lastModified", "trending": "trendingScore"}
_TAGS: dict[ModelFormat, list[str]] = {"mlx": ["mlx"], "safetensors": ["safetensors"], "gguf": ["gguf"]}
_BITS = re.compile(r"([2-9])bit")
_MOST_PAGES = 4
_FULL_PAGE = 100
_CURSOR = re.compile(r"([0-9]{1,3})~([\x21-\x7e]{0,2000})")

Ask = Callable[[dict[str, Any]], Awaitable[tuple[list[HubModel], str]]]
"""A page of the Hub's own list with the cursor behind it."""


class Pages:
    """``ask`` is kept a short while, so that a page that is used in two parts is asked for once."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    async def page(self, query: Query) -> Found:
        """One page; at most ``_MOST_PAGES`` of the Hub's are looked at, so it may be short and have a next one."""
        skip, cursor = _position(query.cursor)
        picky = _is_picky(query)
        params = {
            "text": query.text,
            "author": query.author,
            "filters": _TAGS.get(query.format, []) if query.format else [],
            "sort": _SORTS[query.sort],
            "limit": _FULL_PAGE if picky else query.limit,
        }
        found: list[HubModel] = []
        looked_at = 0
        for _ in range(_MOST_PAGES if picky else 1):
            models, following = await self._ask(params | {"cursor": cursor})
            for position, model in enumerate(models):
                if position < skip:
                    continue
                looked_at += 1
                if _is_wanted(model, query):
                    found.append(model)
                if len(found) == query.limit and position + 1 < len(models):
                    return Found(_ordered(found, query), f"{position + 1}~{cursor}", looked_at)
            skip, cursor = 0, following
            if not cursor or len(found) == query.limit:
                break
        return Found(_ordered(found, query), f"0~{cursor}" if cursor else "", looked_at)


def _position(cursor: str) -> tuple[int, str]:
    if not cursor:
        return 0, ""
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise InvalidRequest("cursor is not one that a search has answered", param="cursor")
    return int(match.group(1)), match.group(2)


def _is_picky(query: Query) -> bool:
    bounds = (query.min_bytes, query.max_bytes, query.min_parameters, query.max_parameters)
    return bool(query.quantization or any(bounds) or (query.format and query.format not in _TAGS))


def _is_wanted(model: HubModel, query: Query) -> bool:
    if query.format in ("pickle", "other", "safetensors") and model.format != query.format:
        return False
    if query.quantization and not with_quantization({model.model_id: model.quantization}, query.quantization):
        return False
    return _within(model.weight_bytes, query.min_bytes, query.max_bytes) and _within(
        model.parameters, query.min_parameters, query.max_parameters
    )


def _within(value: int, least: int, most: int) -> bool:
    """What is not known is left out as soon as a bound is asked for."""
    if not (least or most):
        return True
    return value > 0 and value >= least and (not most or value <= most)


def _ordered(models: list[HubModel], query: Query) -> tuple[HubModel, ...]:
    """As the Hub sorted them; of any format MLX comes first, as it can be used as it is."""
    return tuple(models if query.format else sorted(models, key=lambda model: model.format != "mlx"))
