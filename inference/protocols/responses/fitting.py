"""``truncation: auto``: the oldest items are left out until the rest fits into the model's context."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from inference.engine import get_engine
from inference.ipc import GenerateRequest
from inference.protocols.responses.items import Item
from inference.records import RequestRecord

_MOST_COUNTS = 8
_SHARE = 4  # of the context is left for the answer, once something must go: a quarter

Remake = Callable[[int], GenerateRequest]
NewRecord = Callable[[], RequestRecord]


async def fitted(model: str, items: list[Item], remake: Remake, new_record: NewRecord) -> GenerateRequest:
    """The request without as few of its oldest ``items`` as will do; ``remake`` makes it, given how many.

    The last item is never left out: where that alone is too long, the engine refuses it.
    """
    engine, dropped = get_engine(), 0
    request = remake(0)
    for _ in range(_MOST_COUNTS):
        record = new_record()
        tokens = await engine.count(model, request, record)
        context = next((status.context for status in engine.models() if status.id == record.model), 0)
        if tokens < context or dropped >= len(items) - 1:
            return request
        dropped = _next(items, dropped, tokens - (context - context // _SHARE), tokens)
        request = remake(dropped)
    return request


def _next(items: list[Item], dropped: int, excess: int, tokens: int) -> int:
    """How many to leave out to be rid of ``excess`` of ``tokens``, judged by the length of their texts."""
    sizes = [_size(item) for item in items[dropped:]]
    goal = sum(sizes) * excess / tokens
    cut, gone = dropped, 0
    while cut < len(items) - 1 and (gone < goal or cut == dropped):
        gone += sizes[cut - dropped]
        cut += 1
    while cut < len(items) - 1 and _has_orphan(items[cut:]):
        cut += 1
    return cut


def _has_orphan(items: list[Item]) -> bool:
    """Whether a tool's output is left without its call."""
    calls = {item["call_id"] for item in items if item["type"] == "function_call"}
    return any(item["type"] == "function_call_output" and item["call_id"] not in calls for item in items)


def _size(value: Any) -> int:
    """Characters of all texts in it."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_size, value.values()))
    return sum(map(_size, value)) if isinstance(value, list) else 0
