"""Whether a model fits, held against the policy that admits loads."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from inference.engine.contract import MemoryReading, Size
from inference.engine.fitting import judge
from inference.engine.policy import Limits, Load, Resident, Situation, limits_of, need_of, plan, room

GIB = 1024**3
MIB = 1024**2


def machine(*residents: Resident, used: int = 20, total: int = 96, gpu: int | None = 72) -> Situation:
    """A machine in GiB, 90 % of which may be used; ``used`` has the residents in it."""
    reading = MemoryReading(total * GIB, (total - used) * GIB, used * GIB, None if gpu is None else gpu * GIB)
    return Situation(reading, limits_of(reading, 90, 0), residents)


def test_it_works() -> None:
    size = Size(10 * GIB, 128 * 1024, 131_072)
    found = judge(size, machine(), 0)
    assert (found.context, found.needed_bytes) == (32_768, 14 * GIB)
    assert (found.now.fits, found.alone.fits, found.unload, found.loaded) == (True, True, (), False)
    assert found.now.free_bytes == room(machine()).free
    assert found.now.max_context == 131_072


def test_a_longer_context_than_a_load_reserves_costs_what_its_answers_will_ask_for() -> None:
    size = Size(10 * GIB, 128 * 1024, 131_072)
    assert judge(size, machine(), 0, context=131_072).needed_bytes == 26 * GIB
    assert judge(size, machine(), 0, context=10**9).context == 131_072
    assert judge(Size(GIB, MIB, 0), machine(), 0, context=65_536).needed_bytes == 65 * GIB


def test_what_is_loaded_is_in_the_way_now_and_not_alone() -> None:
    idle = Resident("idle", held=40 * GIB, last_used=1.0)
    found = judge(Size(30 * GIB, 0, 4096), machine(idle, used=60), 0)
    assert (found.now.fits, found.alone.fits, found.unload) == (False, True, ("idle",))
    assert found.now.max_context == 0
    assert found.alone.free_bytes == found.now.free_bytes + 40 * GIB
    busy = Resident("busy", held=40 * GIB, busy=True)
    assert judge(Size(30 * GIB, 0, 4096), machine(busy, used=60), 0).unload == ("busy",)
    pinned = Resident("pinned", held=40 * GIB, pinned=True)
    found = judge(Size(30 * GIB, 0, 4096), machine(pinned, used=60), 0)
    assert (found.now.fits, found.alone.fits, found.unload) == (False, True, ())


def test_a_loaded_model_is_judged_as_if_it_were_not() -> None:
    own = Resident("own", held=40 * GIB)
    found = judge(Size(40 * GIB, 0, 4096), machine(own, used=60), 0, own="own")
    assert (found.now.fits, found.loaded) == (True, True)


def test_other_programs_take_from_what_models_may_use() -> None:
    found = judge(Size(61 * GIB, 0, 4096), machine(used=40), 0)
    assert (found.now.fits, found.limit_bytes) == (False, 72 * GIB)
    assert found.limit_bytes - found.others_bytes == found.alone.free_bytes


def test_the_longest_context_that_fits() -> None:
    situation = Situation(MemoryReading(100, 100, 0), Limits(100))
    assert judge(Size(40, 1, 1000), situation, 10).now.max_context == 50
    assert judge(Size(91, 1, 1000), situation, 10).now.max_context == 0
    assert judge(Size(40, 0, 1000), situation, 10).now.max_context == 1000
    assert judge(Size(40, 0, 0), situation, 10).now.max_context is None
    assert judge(Size(40, 1, 30), situation, 10, observed=45).now.max_context == 30


@given(
    weight=st.integers(0, 200),
    kv=st.integers(0, 3),
    longest=st.integers(0, 100),
    held=st.lists(st.integers(0, 60), max_size=3),
    used=st.integers(0, 100),
    gpu=st.none() | st.integers(0, 100),
)
def test_what_fits_is_what_would_be_loaded(
    weight: int, kv: int, longest: int, held: list[int], used: int, gpu: int | None
) -> None:
    """Of an idle machine the verdict and the plan of the load agree, and the longest context is the longest."""
    residents = [Resident(str(number), held=size, busy=True) for number, size in enumerate(held)]
    reading = MemoryReading(100, max(0, 100 - used), used, gpu)
    situation = Situation(reading, Limits(90, gpu), residents)
    found = judge(Size(weight, kv, longest), situation, 5)
    need = need_of(weight, kv, found.context, 5)
    assert found.now.fits == (plan(need, situation, may_evict=False, patient=False) == Load())
    most = found.now.max_context
    if most and kv:
        assert judge(Size(weight, kv, longest), situation, 5, context=most).now.fits
        assert most == longest or not judge(Size(weight, kv, longest), situation, 5, context=most + 1).now.fits
