"""Finding models in a list of thousands: search, filters, order, a page of them. Pure; for API and pages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from inference.catalog import DiskState, ModelKind, ModelRef
from inference.engine.contract import ModelStatus, RunState

Sort = Literal["name", "size", "quantization", "context", "state", "disk_state", "last_used", "parameters", "created"]
Order = Literal["asc", "desc"]
SORTS: tuple[Sort, ...] = get_args(Sort)
RUN_STATES: tuple[RunState, ...] = get_args(RunState)
DISK_STATES: tuple[DiskState, ...] = get_args(DiskState)
_LIVELY: tuple[RunState, ...] = ("ready", "loading", "draining", "stopped-after-crashes", "failed", "unloaded")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which models, and which of them. Every word of ``search`` must occur in a model's names, architecture,
    quantization or licence; empty filters take all. ``limit`` None gives all from ``offset`` on."""

    search: str = ""
    states: tuple[RunState, ...] = ()
    disk_states: tuple[DiskState, ...] = ()
    kind: ModelKind | None = None
    pinned: bool = False
    sort: Sort = "name"
    order: Order = "asc"
    offset: int = 0
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """A model with how it runs; ``state`` is ``failed`` for one that cannot be loaded."""

    ref: ModelRef
    status: ModelStatus

    @property
    def state(self) -> RunState:
        unusable = self.ref.problem is not None and self.status.state == "unloaded"
        return "failed" if unusable else self.status.state


@dataclass(frozen=True, slots=True)
class Page:
    """``models`` are those from ``offset`` on; ``total`` fit the search and the filters; ``known`` are there at all."""

    models: tuple[Listed, ...]
    total: int
    known: int
    offset: int
    next_offset: int | None


def listed(refs: Sequence[ModelRef], statuses: Mapping[str, ModelStatus]) -> list[Listed]:
    """The models with their statuses, in the order given."""
    return [Listed(ref, statuses.get(ref.id) or ModelStatus(id=ref.id, state="unloaded")) for ref in refs]


def select(refs: Sequence[ModelRef], statuses: Mapping[str, ModelStatus], wanted: Wanted) -> Page:
    """The page of ``refs`` (sorted by id) that is wanted. An offset past the end gives the last page instead."""
    fitting = [model for model in listed(refs, statuses) if _fits(model, wanted)]
    if wanted.search.strip():
        words = wanted.search.lower().split()
        fitting = [model for model in fitting if _says(model.ref, words)]
    if wanted.sort != "name":
        # Of equals the names stay in their order, whichever way the rest goes.
        fitting.sort(key=_KEYS[wanted.sort], reverse=wanted.order == "desc")
    elif wanted.order == "desc":
        fitting.reverse()
    offset, end = wanted.offset, len(fitting)
    if wanted.limit is not None:
        if offset >= len(fitting):
            offset = (len(fitting) - 1) // wanted.limit * wanted.limit if fitting else 0
        end = offset + wanted.limit
    shown = tuple(fitting[offset:end])
    return Page(shown, len(fitting), len(refs), offset, end if end < len(fitting) else None)


def first_page(wanted: Wanted) -> Wanted:
    """The same search from its beginning."""
    return replace(wanted, offset=0)


def _fits(model: Listed, wanted: Wanted) -> bool:
    return (
        (not wanted.states or model.state in wanted.states)
        and (not wanted.disk_states or model.ref.disk_state in wanted.disk_states)
        and (wanted.kind is None or model.ref.kind == wanted.kind)
        and (not wanted.pinned or model.status.pinned)
    )


def _says(ref: ModelRef, words: Sequence[str]) -> bool:
    text = f"{ref.id} {' '.join(ref.aliases)} {ref.architecture} {ref.quantization or ''} {ref.licence}".lower()
    return all(word in text for word in words)


_KEYS: dict[Sort, Callable[[Listed], Any]] = {
    "size": lambda model: model.ref.weight_bytes,
    "quantization": lambda model: model.ref.quantization or "",
    "context": lambda model: model.ref.context_length,
    "state": lambda model: _LIVELY.index(model.state),
    "disk_state": lambda model: model.ref.disk_state,
    "last_used": lambda model: model.status.last_used or 0.0,
    "parameters": lambda model: model.ref.parameters,
    "created": lambda model: model.ref.created,
}
