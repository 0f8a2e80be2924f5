"""Whether a model of some size fits, said by the arithmetic that admits loads. Pure; sizes in bytes."""

from __future__ import annotations

from dataclasses import replace

from inference.engine.contract import MemoryFit, Place, Size
from inference.engine.policy import (
    KV_CONTEXT_TOKENS,
    Load,
    Plan,
    Situation,
    Wait,
    need_of,
    plan,
    room,
    without_caches,
)


def judge(
    size: Size,
    situation: Situation,
    reserve: int,
    *,
    context: int | None = None,
    observed: int = 0,
    own: str | None = None,
) -> MemoryFit:
    """``observed`` and ``reserve`` are as in ``need_of``; ``own`` is the model itself, whose memory counts as free."""
    wanted = context or KV_CONTEXT_TOKENS
    wanted = min(wanted, size.context or wanted)
    base = max(size.weight_bytes, observed) + reserve
    needed = _need(size, wanted, reserve, observed)
    around = _without(situation, {own} if own else set())
    alone = _without(around, {model.id for model in around.residents})
    limits = situation.limits
    limit = limits.machine if limits.gpu is None else min(limits.machine, limits.gpu)
    free_now, free_alone = room(without_caches(around)).free, room(alone).free
    return MemoryFit(
        context=wanted,
        needed_bytes=needed,
        reserve_bytes=reserve,
        limit_bytes=limit,
        others_bytes=max(0, limit - free_alone),
        now=_place(size, base, needed, free_now),
        alone=_place(size, base, needed, free_alone),
        unload=_in_the_way(plan(needed, around, may_evict=True)) if needed > free_now else (),
        loaded=own is not None,
    )


def _need(size: Size, context: int, reserve: int, observed: int) -> int:
    """A load reserves the KV of ``KV_CONTEXT_TOKENS``; an answer that goes on asks for the rest."""
    rest = max(0, context - KV_CONTEXT_TOKENS) * size.kv_bytes_per_token
    return need_of(size.weight_bytes, size.kv_bytes_per_token, context, reserve, observed) + rest


def _place(size: Size, base: int, needed: int, free: int) -> Place:
    return Place(max(0, free), needed <= free, _longest(size, base, free))


def _longest(size: Size, base: int, free: int) -> int | None:
    if free < base:
        return 0
    if not size.kv_bytes_per_token:
        return size.context or None
    tokens = (free - base) // size.kv_bytes_per_token
    return min(tokens, size.context) if size.context else tokens


def _without(situation: Situation, leaving: set[str]) -> Situation:
    """The situation as it would be without these models."""
    going = [model for model in situation.residents if model.id in leaving]
    staying = [model for model in situation.residents if model.id not in leaving]
    back = sum(model.held for model in going)
    reading = situation.reading
    reading = replace(reading, used=max(0, reading.used - back), available=min(reading.total, reading.available + back))
    return Situation(reading, situation.limits, staying)


def _in_the_way(decision: Plan) -> tuple[str, ...]:
    match decision:
        case Load(evict):
            return evict
        case Wait(on):
            return on
        case _:
            return ()
