"""``/v1/models`` as Anthropic's clients read it: the newest first, in pages.

Aliases are listed beside the models: tools that choose from this list look for names that begin with ``claude``, and an
alias is how a local model gets one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from inference.catalog import ModelRef
from inference.protocols.validation import refuse

DEFAULT_LIMIT = 20
MAX_LIMIT = 1000


def model_info(ref: ModelRef, name: str) -> dict[str, Any]:
    """One model under the name it is asked for by."""
    short = ref.id.split("/")[-1]
    return {
        "type": "model",
        "id": name,
        "display_name": short if name == ref.id else f"{name} ({short})",
        "created_at": datetime.fromtimestamp(ref.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "lifecycle": "active",
        "max_input_tokens": ref.context_length or None,
        "max_tokens": ref.context_length or None,
    }


def model_page(refs: Iterable[ModelRef], query: Mapping[str, str]) -> dict[str, Any]:
    """One page of all models that answer. ``query`` has ``limit``, ``after_id`` or ``before_id``, each or none."""
    known = sorted((ref for ref in refs if ref.problem is None and ref.kind == "llm"), key=lambda ref: -ref.created)
    infos = [model_info(ref, name) for ref in known for name in (ref.id, *ref.aliases)]
    limit = _limit(query.get("limit"))
    before, after = query.get("before_id"), query.get("after_id")
    if before is not None and after is not None:
        raise refuse("before_id", "and after_id cannot both be given")
    if before is not None:
        end = _place(infos, "before_id", before)
        start = max(0, end - limit)
        return _page(infos[start:end], has_more=start > 0)
    start = 0 if after is None else _place(infos, "after_id", after) + 1
    return _page(infos[start : start + limit], has_more=start + limit < len(infos))


def _page(infos: list[dict[str, Any]], *, has_more: bool) -> dict[str, Any]:
    ends = {"first_id": infos[0]["id"], "last_id": infos[-1]["id"]} if infos else {"first_id": None, "last_id": None}
    return {"data": infos, "has_more": has_more, **ends}


def _limit(given: str | None) -> int:
    if given is None:
        return DEFAULT_LIMIT
    if not (given.isascii() and given.isdecimal() and len(given) <= 4 and 1 <= int(given) <= MAX_LIMIT):
        raise refuse("limit", f"must be a number from 1 to {MAX_LIMIT}")
    return int(given)


def _place(infos: list[dict[str, Any]], param: str, id: str) -> int:
    for position, info in enumerate(infos):
        if info["id"] == id:
            return position
    raise refuse(param, f"is {id[:100]!r}, which is no model here")
