"""The engine's word about itself, and what a model that crashes does to those who ask for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from inference.engine.crashes import LONGEST_BACK_OFF_S, CrashBook, CrashLimits
from inference.errors import InvalidRequest, ModelUnavailable, Overloaded, from_code
from inference.ipc import Failed, Finished
from tests.engine.conftest import World, collect, last, until


async def test_it_works(world: World) -> None:
    await world.begin()
    assert world.engine.health() == ("healthy", [])


async def test_asking_for_a_model_that_is_damaged_on_disk_says_nothing_about_the_server(world: World) -> None:
    world.add_model("torn", problem="model.safetensors is cut off")
    await world.begin()
    with pytest.raises(ModelUnavailable, match="cut off"):
        await world.ask("torn")
    assert world.engine.health() == ("healthy", [])
    assert world.status("torn").state == "failed"
    world.add_model("torn")
    assert world.status("torn").state == "unloaded", "its files were repaired"


async def test_a_load_that_fails_makes_no_error_of_a_server_without_models(world: World) -> None:
    world.add_model("broken", load_error="no such tensor")
    await world.begin()
    with pytest.raises(ModelUnavailable):
        await world.ask("broken")
    word, reasons = world.engine.health()
    assert (word, len(reasons)) == ("degraded", 1)
    assert "no such tensor" in reasons[0]


async def test_a_model_stopped_after_crashes_is_an_error_while_no_other_answers(world: World) -> None:
    world.add_model("other")
    await world.begin(max_crashes=1)
    await collect(await world.ask("a", die_after=0))
    await until(lambda: world.status("a").state == "stopped-after-crashes")
    assert world.engine.health()[0] == "error"
    await collect(await world.ask("other"))
    assert world.engine.health()[0] == "degraded"


def test_the_wait_after_a_crash_has_a_ceiling(tmp_path: Path) -> None:
    book = CrashBook(tmp_path, CrashLimits(100, 600.0), clock=lambda: 1000.0)
    waits = [book.note("m", "it died") for _ in range(99)]
    assert waits[:4] == [0.0, 1.0, 3.0, 7.0]
    assert waits[-1] == LONGEST_BACK_OFF_S
    assert book.note("m", "it died") is None


async def test_who_asks_during_a_long_wait_after_crashes_is_told_when_to_come_back(world: World) -> None:
    await world.begin(max_crashes=10)
    for _ in range(2):
        assert isinstance(last(await collect(await world.ask("a", die_after=0))), Failed)
    await until(lambda: len(world.events.of("worker.died")) == 2)
    assert isinstance(last(await collect(await world.ask("a"))), Finished), "a second is worth waiting for"
    assert isinstance(last(await collect(await world.ask("a", die_after=0))), Failed)
    await until(lambda: len(world.events.of("worker.died")) == 3)
    with pytest.raises(ModelUnavailable, match="held back") as caught:
        await world.ask("a")
    assert caught.value.retry_after in (1, 2, 3)


def test_a_reader_that_is_too_slow_may_come_again() -> None:
    error = from_code("overloaded", "the reader of this answer is too slow", details={"n": 1})
    assert (type(error), error.status, error.retryable, error.details) == (Overloaded, 503, True, {"n": 1})


async def test_a_refusal_that_quotes_the_request_is_told_to_its_client_alone(world: World) -> None:
    await world.begin()
    with pytest.raises(InvalidRequest, match="the fake model refuses this prompt"):
        await world.ask("a", prepare_error="refuse")
    assert world.events.of("request.refused")[0]["message"] == "its messages cannot be used"
