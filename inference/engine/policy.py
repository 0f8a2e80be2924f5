"""What memory allows, decided without touching anything: readings, sizes, states and wishes in, a plan out.

Two limits hold at once (all sizes in bytes): everything in use on the machine stays under ``Limits.machine``, and
what our models hold stays under ``Limits.gpu``. What is *promised* (a load under way, answers that still grow, what a
prefix cache may still take) counts as used already. Other programs count, because the reading has them.

Caches come last: what they hold and were promised is there for whoever needs it. A cache is made smaller before a model
is unloaded, if that is enough, and before anybody is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from inference.engine.contract import MemoryReading
from inference.engine.words import duration, gigabytes, short_name
from inference.errors import InsufficientMemory

KV_CONTEXT_TOKENS = 32 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """``gpu`` is None where the machine has no separate limit."""

    machine: int
    gpu: int | None = None


@dataclass(frozen=True, slots=True)
class Resident:
    """One model in memory or on its way in or out.

    ``held`` is its footprint now, ``promised`` what it may still take without asking again. ``leaving`` means that
    ``held`` will be back without anybody's doing. ``last_used`` in seconds of any clock, only compared.
    Of its prefix cache, ``cached`` is the part of ``held`` that can be asked for, ``cache_room`` the part of
    ``promised`` that is not taken yet, and ``returning`` what it was told to give back and still holds.
    """

    id: str
    held: int
    promised: int = 0
    busy: bool = False
    pinned: bool = False
    leaving: bool = False
    last_used: float = 0.0
    cached: int = 0
    cache_room: int = 0
    returning: int = 0


@dataclass(frozen=True, slots=True)
class Situation:
    reading: MemoryReading
    limits: Limits
    residents: Sequence[Resident] = ()


@dataclass(frozen=True, slots=True)
class Room:
    """What is free under each limit; negative when it is already exceeded. ``free`` is the least of them."""

    machine: int
    gpu: int | None
    available: int

    @property
    def free(self) -> int:
        return min(self.machine, self.available) if self.gpu is None else min(self.machine, self.gpu, self.available)


@dataclass(frozen=True, slots=True)
class Load:
    """Load now if ``evict`` is empty, else once those are gone."""

    evict: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Shrink:
    """It may fit once these prefix caches hold no more than so many bytes each; plan again then."""

    caches: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Wait:
    """It fits once ``on`` have ended what they are doing."""

    on: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Refuse:
    """It does not fit. ``suggest`` are models whose unloading by the owner would make room."""

    needed: int
    free: int
    limit: int
    suggest: tuple[str, ...] = ()


Plan = Load | Shrink | Wait | Refuse


def limits_of(reading: MemoryReading, max_percent: float, reserve: int) -> Limits:
    """The two limits for a machine; ``reserve`` is kept of the GPU limit."""
    gpu = None if reading.gpu_limit is None else max(0, reading.gpu_limit - reserve)
    return Limits(machine=int(reading.total * max_percent / 100), gpu=gpu)


def need_of(weight_bytes: int, kv_bytes_per_token: int, context: int, reserve: int, observed: int = 0) -> int:
    """What loading a model takes: weights, one sequence's KV up to 32k, and a reserve.

    ``observed`` is the largest footprint seen while it loaded; it stands in for the weights where it is larger.
    """
    tokens = min(context or KV_CONTEXT_TOKENS, KV_CONTEXT_TOKENS)
    return max(weight_bytes, observed) + kv_bytes_per_token * tokens + reserve


def room(situation: Situation) -> Room:
    """What is free now, less what is promised."""
    promised = sum(model.promised for model in situation.residents)
    held = sum(model.held for model in situation.residents)
    gpu = situation.limits.gpu
    return Room(
        machine=situation.limits.machine - situation.reading.used - promised,
        gpu=None if gpu is None else gpu - held - promised,
        available=situation.reading.available - promised,
    )


def without_caches(situation: Situation) -> Situation:
    """The situation as it would be if no prefix cache held or was promised anything."""
    freed = sum(model.cached for model in situation.residents)
    reading = situation.reading
    reading = replace(reading, used=reading.used - freed, available=reading.available + freed)
    return Situation(reading, situation.limits, [_bare(model) for model in situation.residents])


def _bare(model: Resident) -> Resident:
    held, promised = model.held - model.cached, model.promised - model.cache_room
    return replace(model, held=held, promised=promised, cached=0, cache_room=0)


def plan(need: int, situation: Situation, *, may_evict: bool, patient: bool = True, may_shrink: bool = True) -> Plan:
    """How ``need`` bytes can be had: from what is free, from caches, from models, in that order.

    Evicts the least recently used idle models, as few as will do, never a busy or pinned one. ``patient`` False refuses
    instead of waiting for a busy one.
    """
    decision = _plan_models(need, situation, may_evict, patient)
    if not may_shrink or decision == Load() or _only_waits_for_memory(decision, situation):
        return decision
    emptied = without_caches(situation)
    possible = _plan_models(need, emptied, may_evict, patient)
    if isinstance(possible, Load):
        return _spare_models(need, situation, decision, possible.evict)
    if _only_waits_for_memory(possible, emptied):
        return _spare_models(need, situation, decision, ())
    return possible if isinstance(decision, Refuse) else decision


def _spare_models(need: int, situation: Situation, decision: Load | Wait | Refuse, victims: Sequence[str]) -> Plan:
    """Make caches smaller where only ``victims`` then have to go, and ``decision`` would cost more models or time."""
    if isinstance(decision, Load) and len(decision.evict) <= len(victims):
        return decision
    staying = [model for model in situation.residents if model.id not in victims]
    freed = sum(_size(model) for model in situation.residents if model.id in victims)
    bounds = _smaller(need - room(situation).free - _coming_back(situation) - freed, staying)
    return Shrink(bounds) if bounds else decision


def _plan_models(need: int, situation: Situation, may_evict: bool, patient: bool) -> Load | Wait | Refuse:
    """The plan that leaves caches as they are."""
    free = room(situation).free
    if need <= free:
        return Load()
    free += _coming_back(situation)
    if need <= free:
        return Wait(tuple(model.id for model in situation.residents if model.leaving or model.returning))
    movable = [model for model in situation.residents if not (model.leaving or model.pinned)]
    idle = sorted((model for model in movable if not model.busy), key=lambda model: model.last_used)
    victims = _fewest(need - free, idle)
    if victims and may_evict:
        return Load(evict=tuple(model.id for model in victims))
    busy = [model for model in movable if model.busy]
    if may_evict and patient and need <= free + sum(_size(model) for model in (*idle, *busy)):
        return Wait(tuple(model.id for model in busy))
    suggest = victims or idle or [model for model in situation.residents if model.pinned and not model.busy]
    return _refuse(need, situation, tuple(model.id for model in suggest))


def _coming_back(situation: Situation) -> int:
    """Bytes that will be free without anybody's doing: of models that leave, of caches that were told to shrink."""
    return sum(model.held + model.promised if model.leaving else model.returning for model in situation.residents)


def _only_waits_for_memory(decision: Plan, situation: Situation) -> bool:
    coming = {model.id for model in situation.residents if model.leaving or model.returning}
    return isinstance(decision, Wait) and bool(coming) and set(decision.on) <= coming


def _smaller(missing: int, residents: Iterable[Resident]) -> dict[str, int]:
    """New bounds of caches that give ``missing``: first what nobody has taken yet, then of the least recently used."""
    in_order = sorted(residents, key=lambda model: (model.busy, model.last_used))
    bounds = {model.id: model.cached + model.cache_room for model in in_order}
    for sizes in ({m.id: m.cache_room for m in in_order}, {m.id: m.cached for m in in_order}):
        for name, size in sizes.items():
            given = max(0, min(missing, size))
            bounds[name] -= given
            missing -= given
    before = {model.id: model.cached + model.cache_room for model in in_order}
    return {name: bound for name, bound in bounds.items() if bound < before[name]}


def _refuse(need: int, situation: Situation, suggest: tuple[str, ...]) -> Refuse:
    limits = situation.limits
    limit = limits.machine if limits.gpu is None else min(limits.machine, limits.gpu)
    return Refuse(need, max(0, room(situation).free), limit, suggest if need <= limit else ())


def _size(model: Resident) -> int:
    return model.held + model.promised - model.returning


def _fewest(missing: int, idle: Iterable[Resident]) -> list[Resident]:
    """The first of ``idle`` that give ``missing``, less those that turn out unneeded; none if all are not enough."""
    chosen: list[Resident] = []
    for model in idle:
        if missing <= 0:
            break
        chosen.append(model)
        missing -= _size(model)
    if missing > 0:
        return []
    for model in list(chosen):
        if missing + _size(model) <= 0:
            chosen.remove(model)
            missing += _size(model)
    return chosen


def relieve(situation: Situation, threshold: int, *, may_evict: bool) -> Shrink | Load | None:
    """What to do when more than ``threshold`` bytes of the machine are in use: make caches smaller, else ``evict``."""
    over = situation.reading.used - threshold
    if over <= 0 or any(model.leaving or model.returning for model in situation.residents):
        return None
    if any(model.cached for model in situation.residents):
        rooms = sum(model.cache_room for model in situation.residents)
        return Shrink(_smaller(over + rooms, situation.residents))
    idle = [m for m in situation.residents if not (m.busy or m.pinned) and m.held > 0]
    return Load(evict=(min(idle, key=lambda model: model.last_used).id,)) if idle and may_evict else None


def refusal(model_id: str, refuse: Refuse, situation: Situation, now: float) -> InsufficientMemory:
    """The refusal with its numbers, in a person's words."""
    sentence = f"{short_name(model_id)} needs {gigabytes(refuse.needed)}; "
    if refuse.needed > refuse.limit:
        sentence += f"models may use {gigabytes(refuse.limit)} on this machine."
    else:
        sentence += f"{gigabytes(refuse.free)} is free."
    if refuse.suggest:
        by_id = {model.id: model for model in situation.residents}
        names = " and ".join(_idle_name(by_id[model_id], now) for model_id in refuse.suggest)
        sentence += f" Unload {names}?"
    return InsufficientMemory(sentence, details=_details(refuse))


def _idle_name(model: Resident, now: float) -> str:
    state = "pinned" if model.pinned else f"idle {duration(now - model.last_used)}"
    return f"{short_name(model.id)} ({state})"


def _details(refuse: Refuse) -> dict[str, Any]:
    return {
        "needed_bytes": refuse.needed,
        "free_bytes": refuse.free,
        "limit_bytes": refuse.limit,
        "unload": list(refuse.suggest),
    }
