"""The page Models: the list of what is on the disk, searched, filtered and in pages, with what runs of it.

Everything shown is in the address, so that it can be shared and reloaded. The list is a fragment of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args
from urllib.parse import quote, urlencode

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_GET, require_safe

from inference.api.deps import catalog, keeper
from inference.api.describe import capability_names
from inference.catalog import ModelKind
from inference.engine import get_engine
from inference.engine.contract import RunState
from inference.listing import DISK_STATES, SORTS, Listed, Order, Page, Sort, Wanted, select
from monitoring.actions import get_actions
from monitoring.hub import get_hub
from monitoring.payloads import JOBS
from monitoring.views import frame_context, page

SHOWN = 50
_LONGEST = 512
_STATES: dict[str, tuple[str, tuple[RunState, ...]]] = {
    "": ("any state", ()),
    "memory": ("in memory", ("ready", "loading", "draining")),
    "unloaded": ("not in memory", ("unloaded",)),
    "failed": ("failed or stopped", ("failed", "stopped-after-crashes")),
    "hidden": ("off the list", ()),
}
_KINDS = {"": "any kind", "llm": "text", "embeddings": "embeddings"}
_COLUMNS: list[tuple[Sort, str]] = [
    ("name", "Model"),
    ("size", "Size"),
    ("quantization", "Quantization"),
    ("context", "Context"),
    ("state", "State"),
    ("disk_state", "On disk"),
    ("last_used", "Last used"),
]
_FALLING: frozenset[Sort] = frozenset({"size", "context", "last_used", "parameters", "created"})
"""What is looked at with the most first."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the address asks for, each value a known one or empty. ``page`` is 1 or more."""

    search: str
    state: str
    disk: str
    kind: str
    pinned: bool
    sort: Sort
    order: Order
    page: int

    @property
    def filtered(self) -> bool:
        return bool(self.search or self.state or self.disk or self.kind or self.pinned)

    def query(self, **changes: Any) -> str:
        """The address's query for this with ``changes``; what is as usual is left out."""
        usual = {"sort": "name", "order": usual_order(changes.get("sort", self.sort)), "page": 1}
        values = {name: getattr(self, name) for name in self.__slots__} | changes
        values["pinned"] = "1" if values["pinned"] else ""
        return urlencode({name: value for name, value in values.items() if value and value != usual.get(name)})


def usual_order(sort: str) -> Order:
    """Which way a column goes before it is turned round."""
    return "desc" if sort in _FALLING else "asc"


def asked_of(request: HttpRequest) -> Asked:
    """What the address asks for; what it gets wrong is as if it were not there."""
    given = request.GET

    def known(name: str, among: Any) -> str:
        value = given.get(name, "")
        return value if value in among else ""

    sorts: dict[str, Sort] = {one: one for one in SORTS}
    sort = sorts.get(given.get("sort", ""), "name")
    orders: dict[str, Order] = {"asc": "asc", "desc": "desc"}
    number = given.get("page", "")
    return Asked(
        search=given.get("search", "")[:_LONGEST].strip(),
        state=known("state", _STATES),
        disk=known("disk", DISK_STATES),
        kind=known("kind", _KINDS),
        pinned=given.get("pinned") == "1",
        sort=sort,
        order=orders.get(given.get("order", ""), usual_order(sort)),
        page=max(1, int(number)) if number.isascii() and number.isdecimal() and len(number) < 8 else 1,
    )


@require_safe
@ensure_csrf_cookie
@page
async def models(request: HttpRequest) -> HttpResponse:
    """The whole page."""
    asked = asked_of(request)
    filters = {
        "states": [(name, words) for name, (words, _) in _STATES.items()],
        "disks": [("", "any disk state"), *((name, name) for name in DISK_STATES)],
        "kinds": list(_KINDS.items()),
    }
    context = {**frame_context("models"), **filters, **list_context(asked)}
    return render(request, "monitoring/models.html", context)


@require_GET
@page
async def models_list(request: HttpRequest) -> HttpResponse:
    """The list alone; the browser's address becomes that of the page which shows the same."""
    asked = asked_of(request)
    response = render(request, "monitoring/_model_list.html", list_context(asked))
    if request.headers.get("HX-Trigger") == "model-filters":
        query = asked.query()
        response.headers["HX-Replace-Url"] = f"/models?{query}" if query else "/models"
    return response


def list_context(asked: Asked) -> dict[str, Any]:
    """The rows of a page of the list and how to go on from there."""
    hidden = keeper().hidden()
    found = _found(asked)
    number = found.offset // SHOWN + 1
    notices = get_actions().notices()
    return {
        "asked": asked,
        "query": asked.query(page=number),
        "rows": [row(one) for one in found.models],
        "hidden": hidden if asked.state == "hidden" else [],
        "hidden_count": len(hidden),
        "total": found.total,
        "known": found.known,
        "first": found.offset + 1,
        "last": found.offset + len(found.models),
        "newer": asked.query(page=number - 1) if number > 1 else None,
        "older": asked.query(page=number + 1) if found.next_offset is not None else None,
        "columns": [_column(asked, name, words) for name, words in _COLUMNS],
        "notices": notices,
        "jobs": running_jobs(),
    }


def running_jobs() -> list[dict[str, Any]]:
    """What works on models now; the page Transfers also has what waits and what is over."""
    return [job for job in get_hub().cells(JOBS) if job["state"] == "running"]


def _found(asked: Asked) -> Page:
    if asked.state == "hidden":
        return Page((), 0, len(catalog().all()), 0, None)
    kinds: dict[str, ModelKind] = {name: name for name in get_args(ModelKind)}
    wanted = Wanted(
        search=asked.search,
        states=_STATES[asked.state][1],
        disk_states=tuple(one for one in DISK_STATES if one == asked.disk),
        kind=kinds.get(asked.kind),
        pinned=asked.pinned,
        sort=asked.sort,
        order=asked.order,
        offset=(asked.page - 1) * SHOWN,
        limit=SHOWN,
    )
    return select(catalog().all(), {status.id: status for status in get_engine().models()}, wanted)


def row(model: Listed) -> dict[str, Any]:
    """A model as list and page show it. ``broken``: its files keep it from being loaded, so it is no failed load."""
    ref, status = model.ref, model.status
    broken = ref.problem is not None and model.state == "failed" and status.reason in (None, ref.problem)
    return {
        "id": ref.id,
        "quoted": quote(ref.id, safe=""),
        "capabilities": capability_names(status.capabilities, ref) or [],
        "ref": ref,
        "status": status,
        "state": "broken" if broken else model.state,
        "reason": status.reason or ref.problem,
        "live": model.state in ("loading", "ready"),
        "pinned": status.pinned and model.state in ("loading", "ready", "draining"),
        "loadable": ref.problem is None and model.state in ("unloaded", "failed", "stopped-after-crashes"),
        "chat": ref.kind == "llm",
    }


def _column(asked: Asked, name: Sort, words: str) -> dict[str, Any]:
    chosen = asked.sort == name
    turned: Order = "asc" if asked.order == "desc" else "desc"
    order = turned if chosen else usual_order(name)
    return {
        "name": name,
        "words": words,
        "query": asked.query(sort=name, order=order, page=1),
        "direction": {"asc": "ascending", "desc": "descending"}[asked.order] if chosen else "",
    }
