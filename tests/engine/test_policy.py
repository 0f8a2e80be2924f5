"""The memory policy on numbers alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from inference.engine.contract import MemoryReading
from inference.engine.policy import (
    Limits,
    Load,
    Refuse,
    Resident,
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
    assert relieve(machine(new, old, used=96), 95) == "old"
    assert relieve(machine(new, old, used=94), 95) is None
    assert relieve(machine(Resident("busy", held=5, busy=True), used=96), 95) is None


residents_strategy = st.lists(
    st.builds(
        Resident,
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
        assert after_used <= situation.limits.machine
        if gpu is not None:
            assert sum(model.held + model.promised for model in staying) + need <= gpu
        for spared in victims:
            rest = sum(model.held + model.promised for model in victims if model is not spared)
            leaving = sum(model.held + model.promised for model in residents if model.leaving)
            assert room(situation).free + leaving + rest < need, "one victim more than needed"
    elif isinstance(decision, Wait):
        assert decision.on
        assert not any(by_id[name].pinned and not by_id[name].leaving for name in decision.on)
        assert need > room(situation).free
    else:
        assert need > room(situation).free
        assert not any(by_id[name].busy for name in decision.suggest)
