"""The memory policy on numbers alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from inference.engine.contract import MemoryReading
from inference.engine.policy import (
    Limits,
    Load,
    Plan,
    Refuse,
    Resident,
    Shrink,
    Situation,
    Wait,
    limits_of,
    need_of,
    plan,
    refusal,
    relieve,
    room,
)

GIB = 1024**3
HOUR = 3600.0


def machine(*residents: Resident, used: int = 10, total: int = 100, gpu: int | None = None) -> Situation:
    """A machine in units of one byte, 90 % of which may be used."""
    reading = MemoryReading(total, total - used, used, gpu)
    return Situation(reading, limits_of(reading, 90, 0), residents)


def test_it_works() -> None:
    assert plan(50, machine(), may_evict=True) == Load()
    assert plan(81, machine(), may_evict=True) == Refuse(needed=81, free=80, limit=90)


def test_promises_and_the_gpu_limit_count() -> None:
    loading = Resident("loading", held=10, promised=30, busy=True)
    assert room(machine(loading, used=20)).free == 40
    assert room(machine(loading, used=20, gpu=60)).free == 20
    assert room(machine(loading, used=20, gpu=60)).machine == 40


def test_never_more_than_the_system_has_available() -> None:
    reading = MemoryReading(total=100, available=15, used=10)
    assert room(Situation(reading, Limits(90))).free == 15


def test_evicts_the_least_recently_used_and_as_few_as_will_do() -> None:
    small, big, fresh = (
        Resident("small", held=5, last_used=1),
        Resident("big", held=30, last_used=2),
        Resident("fresh", held=30, last_used=3),
    )
    situation = machine(small, big, fresh, used=75)
    assert plan(18, situation, may_evict=True) == Load(evict=("small",))
    assert plan(40, situation, may_evict=True) == Load(evict=("big",))
    assert plan(60, situation, may_evict=True) == Load(evict=("big", "fresh"))


def test_busy_and_pinned_models_stay() -> None:
    busy, pinned = Resident("busy", held=40, busy=True), Resident("pinned", held=30, pinned=True)
    situation = machine(busy, pinned, used=80)
    assert plan(45, situation, may_evict=True) == Wait(on=("busy",))
    assert plan(45, situation, may_evict=True, patient=False) == Refuse(45, 10, 90, suggest=("pinned",))
    assert plan(60, situation, may_evict=True) == Refuse(60, 10, 90, suggest=("pinned",))


def test_waits_for_what_is_leaving() -> None:
    situation = machine(Resident("going", held=40, leaving=True), used=60)
    assert plan(60, situation, may_evict=True) == Wait(on=("going",))


def test_refusal_names_the_numbers_and_what_to_unload() -> None:
    idle = Resident("org/Mistral-7B", held=4 * GIB, last_used=0.0)
    reading = MemoryReading(total=16 * GIB, available=6 * GIB, used=int(9.6 * GIB))
    situation = Situation(reading, limits_of(reading, 90, 0), [idle])
    decision = plan(int(6.1 * GIB), situation, may_evict=False)
    assert isinstance(decision, Refuse)
    error = refusal("org/Qwen3-8B", decision, situation, now=2 * HOUR)
    assert error.message == "Qwen3-8B needs 6.1 GB; 4.8 GB is free. Unload Mistral-7B (idle 2 h)?"
    assert error.status == 507
    assert error.details["unload"] == ["org/Mistral-7B"]
    assert (error.details["needed_bytes"], error.details["limit_bytes"]) == (int(6.1 * GIB), int(14.4 * GIB))


def test_refusal_of_what_can_never_fit_suggests_nothing() -> None:
    situation = machine(Resident("idle", held=30), used=40)
    decision = plan(95, situation, may_evict=True)
    assert decision == Refuse(95, 50, 90)
    assert "models may use" in refusal("huge", Refuse(95 * GIB, 0, 90 * GIB), situation, 0.0).message


def test_need_counts_one_sequence_of_kv_and_what_was_observed() -> None:
    assert need_of(1000, 2, 100, 50) == 1000 + 200 + 50
    assert need_of(1000, 1, 1_000_000, 0) == 1000 + 32 * 1024
    assert need_of(1000, 0, 0, 0, observed=1500) == 1500


def test_relief_comes_from_the_longest_idle() -> None:
    old, new = Resident("old", held=5, last_used=1), Resident("new", held=5, last_used=2)
    assert relieve(machine(new, old, used=96), 95, may_evict=True) == Load(evict=("old",))
    assert relieve(machine(new, old, used=96), 95, may_evict=False) is None
    assert relieve(machine(new, old, used=94), 95, may_evict=True) is None
    assert relieve(machine(Resident("busy", held=5, busy=True), used=96), 95, may_evict=True) is None


def cache(name: str, held: int, cached: int, more: int = 0, **fields: Any) -> Resident:
    return Resident(name, held=held, promised=more, cached=cached, cache_room=more, **fields)


def test_caches_give_way_before_models_do() -> None:
    old, new = cache("old", 30, 10, 5, last_used=1), cache("new", 30, 10, 5, last_used=2)
    situation = machine(old, new, used=70)
    assert room(situation).free == 10
    assert plan(10, situation, may_evict=True) == Load()
    assert plan(18, situation, may_evict=True) == Shrink({"old": 10, "new": 12})
    assert plan(25, situation, may_evict=True) == Shrink({"old": 5, "new": 10})
    assert plan(40, situation, may_evict=False) == Shrink({"old": 0, "new": 0})
    assert plan(41, situation, may_evict=True) == Load(evict=("old",))
    assert plan(41, situation, may_evict=False) == Refuse(41, 40, 90, ("old",))


def test_a_busy_models_cache_gives_way_last() -> None:
    busy, idle = cache("busy", 30, 10, busy=True, last_used=1), cache("idle", 30, 10, last_used=2)
    assert plan(35, machine(busy, idle, used=70), may_evict=True) == Shrink({"idle": 0, "busy": 5})


def test_caches_and_a_model_together_where_neither_is_enough() -> None:
    pinned, idle = cache("pinned", 40, 20, pinned=True), cache("idle", 20, 0)
    situation = machine(pinned, idle, used=85)
    decision = plan(40, situation, may_evict=True)
    assert decision == Shrink({"pinned": 5})
    assert plan(40, shrunk(situation, decision), may_evict=True) == Load(evict=("idle",))


def test_what_a_cache_may_still_take_costs_no_model_its_place() -> None:
    old, new = cache("old", 20, 0, 20, last_used=1), cache("new", 20, 0, 20, last_used=2)
    situation = machine(old, new, used=60)
    decision = plan(45, situation, may_evict=True)
    assert decision == Shrink({"new": 5})
    assert plan(45, shrunk(situation, decision), may_evict=True) == Load(evict=("old",))


def test_memory_that_a_cache_gives_back_is_waited_for() -> None:
    shrinking = Resident("a", held=30, returning=10)
    assert plan(15, machine(shrinking, used=80), may_evict=True) == Wait(("a",))
    assert plan(25, machine(shrinking, used=80), may_evict=True) == Load(evict=("a",))


def test_relief_comes_from_caches_first() -> None:
    old, new = cache("old", 10, 4, 3, last_used=1), cache("new", 10, 4, 3, last_used=2)
    assert relieve(machine(new, old, used=98), 95, may_evict=False) == Shrink({"old": 1, "new": 4})
    assert relieve(machine(Resident("a", held=10, returning=5), used=98), 95, may_evict=True) is None


def resident(cached: int, cache_room: int, returning: int, held: int, promised: int, **fields: Any) -> Resident:
    """A cache is part of what is held and promised; a model that leaves has none that could be asked for."""
    if fields["leaving"]:
        return Resident(held=held, promised=promised, **fields)
    held, promised = held + cached + returning, promised + cache_room
    return Resident(held=held, promised=promised, cached=cached, cache_room=cache_room, returning=returning, **fields)


residents_strategy = st.lists(
    st.builds(
        resident,
        cached=st.integers(0, 20),
        cache_room=st.integers(0, 20),
        returning=st.integers(0, 10),
        id=st.uuids().map(str),
        held=st.integers(0, 60),
        promised=st.integers(0, 20),
        busy=st.booleans(),
        pinned=st.booleans(),
        leaving=st.booleans(),
        last_used=st.floats(0, 100),
    ),
    max_size=8,
)


def size(model: Resident) -> int:
    return model.held + model.promised - (0 if model.leaving else model.returning)


def coming_back(residents: list[Resident]) -> int:
    return sum(model.returning for model in residents if not model.leaving)


def shrunk(situation: Situation, decision: Shrink) -> Situation:
    """The situation right after the caches were told: what they had not taken is free, what they hold comes back."""
    after = []
    for model in situation.residents:
        bound = decision.caches.get(model.id, model.cached + model.cache_room)
        kept = min(model.cached, bound)
        room_left = bound - kept
        after.append(
            replace(
                model,
                promised=model.promised - model.cache_room + room_left,
                cached=kept,
                cache_room=room_left,
                returning=model.returning + model.cached - kept,
            )
        )
    return Situation(situation.reading, situation.limits, after)


@given(
    need=st.integers(0, 150),
    residents=residents_strategy,
    others=st.integers(0, 60),
    available=st.integers(0, 150),
    gpu=st.none() | st.integers(0, 120),
    may_evict=st.booleans(),
    patient=st.booleans(),
)
def test_never_over_a_limit_and_never_evicts_the_wrong_one(
    need: int, residents: list[Resident], others: int, available: int, gpu: int | None, may_evict: bool, patient: bool
) -> None:
    used = others + sum(model.held for model in residents)
    reading = MemoryReading(200, available, used, gpu)
    situation = Situation(reading, limits_of(reading, 90, 0), residents)
    decision = plan(need, situation, may_evict=may_evict, patient=patient)
    by_id = {model.id: model for model in residents}
    if isinstance(decision, Load):
        victims = [by_id[name] for name in decision.evict]
        assert may_evict or not victims
        assert not any(model.busy or model.pinned or model.leaving for model in victims)
        staying = [model for model in residents if model not in victims and (not model.leaving or not victims)]
        after_used = others + sum(model.held + model.promised for model in staying) + need
        assert after_used - coming_back(staying) <= situation.limits.machine
        if gpu is not None:
            assert sum(model.held + model.promised for model in staying) + need - coming_back(staying) <= gpu
        for spared in victims:
            rest = sum(size(model) for model in victims if model is not spared)
            leaving = sum(size(model) if model.leaving else model.returning for model in residents)
            assert room(situation).free + leaving + rest < need, "one victim more than needed"
    elif isinstance(decision, Shrink):
        again: Plan = decision
        for _ in residents:
            if isinstance(again, Shrink):
                assert again.caches
                situation = shrunk(situation, again)
                again = plan(need, situation, may_evict=may_evict, patient=patient)
        assert not isinstance(again, Shrink | Refuse)
    elif isinstance(decision, Wait):
        assert decision.on
        gone = [name for name in decision.on if by_id[name].pinned and not by_id[name].leaving]
        assert all(by_id[name].returning for name in gone)
        assert need > room(situation).free
    else:
        assert need > room(situation).free
        assert not any(by_id[name].busy for name in decision.suggest)
