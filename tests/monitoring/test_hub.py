"""The hub: latest wins, entries replay, gaps are told, and a slow watcher costs nothing."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from monitoring.hub import Frame, Hub, Subscription


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def turn(subscription: Subscription) -> list[Frame]:
    async with asyncio.timeout(5):
        return await anext(subscription)


async def idle(subscription: Subscription) -> bool:
    """Whether nothing is waiting once the loop has run everything that is ready."""
    task = asyncio.ensure_future(anext(subscription))
    for _ in range(5):
        await asyncio.sleep(0)
    if task.done():
        return False
    task.cancel()
    await asyncio.wait({task})
    return True


async def test_it_works() -> None:
    hub = Hub()
    hub.publish("memory", {"used": 1})
    subscription = hub.subscribe(["memory", "events"])
    (frame,) = await turn(subscription)
    assert (frame.kind, frame.topic, frame.payload) == ("state", "memory", {"used": 1})
    assert json.loads(frame.data) == {"type": "state", "topic": "memory", "data": {"used": 1}}
    hub.emit("model.loaded", model="one", path=Path("/models/one"))
    (frame,) = await turn(subscription)
    assert frame.kind == "log"
    assert json.loads(frame.data)["data"]["path"] == "/models/one"
    assert frame.payload["kind"] == "model.loaded"


async def test_state_is_coalesced_and_the_latest_wins() -> None:
    clock = Clock()
    hub = Hub(interval_s=0.5, clock=clock)
    subscription = hub.subscribe(["memory"])
    hub.publish("memory", 1)
    assert [frame.payload for frame in await turn(subscription)] == [1]
    for value in range(2, 50):
        hub.publish("memory", value)
    assert await idle(subscription)
    clock.now += 0.5
    hub.publish("memory", 50)  # due by the clock, but the timer that is set already lets it out
    assert [frame.payload for frame in await turn(subscription)] == [50]


async def test_a_value_is_turned_into_json_once_for_all_watchers() -> None:
    hub = Hub()
    first, second = hub.subscribe(["memory"]), hub.subscribe(["memory"])
    hub.publish("memory", {"used": 1})
    (one,), (other,) = await turn(first), await turn(second)
    assert one is other


async def test_keys_are_cells_of_their_own_and_none_removes() -> None:
    hub = Hub()
    hub.publish("jobs", {"id": 1}, key="1")
    hub.publish("jobs", {"id": 2}, key="2")
    subscription = hub.subscribe(["jobs"])
    assert [frame.key for frame in await turn(subscription)] == ["1", "2"]
    hub.publish("jobs", None, key="1")
    (frame,) = await turn(subscription)
    assert (frame.key, frame.payload) == ("1", None)
    assert hub.cells("jobs") == [{"id": 2}]
    late = hub.subscribe(["jobs"])
    assert [frame.key for frame in await turn(late)] == ["2"]


async def test_removed_keys_do_not_pile_up() -> None:
    hub = Hub()
    for number in range(1000):
        hub.publish("jobs", {"id": number}, key=str(number))
        hub.publish("jobs", None, key=str(number))
    assert len(hub._states["jobs"].cells) <= 64


async def test_a_log_is_replayed_from_where_the_watcher_was() -> None:
    hub = Hub()
    numbers = [hub.append("events", {"n": n}) for n in range(5)]
    subscription = hub.subscribe(["events"], {"events": numbers[1]})
    assert [frame.payload["n"] for frame in await turn(subscription)] == [2, 3, 4]


async def test_without_since_only_new_entries_come_and_zero_gives_all() -> None:
    hub = Hub()
    hub.append("events", {"n": 0})
    new, everything = hub.subscribe(["events"]), hub.subscribe(["events"], 0)
    assert [frame.payload["n"] for frame in await turn(everything)] == [0]
    assert await idle(new)
    hub.append("events", {"n": 1})
    assert [frame.payload["n"] for frame in await turn(new)] == [1]


@pytest.mark.parametrize("since", [1, 10**15])
async def test_entries_that_are_gone_are_told_as_a_gap(since: int) -> None:
    hub = Hub(log_entries=3, first_seq=1000)
    for n in range(10):
        hub.append("events", {"n": n})
    frames = await turn(hub.subscribe(["events"], {"events": since}))
    assert [frame.kind for frame in frames] == ["gap", "log", "log", "log"]
    assert frames[0].seq == 1007
    assert [frame.payload["n"] for frame in frames[1:]] == [7, 8, 9]


async def test_a_slow_watcher_gets_a_gap_and_the_present_state() -> None:
    hub = Hub(log_entries=3)
    subscription = hub.subscribe(["events", "memory"])
    hub.append("events", {"n": 0})
    await turn(subscription)
    for n in range(1, 100):
        hub.append("events", {"n": n})
        hub.publish("memory", n)
    kinds = [(frame.kind, frame.payload) for frame in await turn(subscription) if frame.kind != "log"]
    assert ("gap", None) in kinds
    assert len(hub._logs["events"].entries) == 3


async def test_a_paused_watcher_waits_and_catches_up() -> None:
    hub = Hub()
    subscription = hub.subscribe(["memory"])
    subscription.pause()
    hub.publish("memory", 1)
    assert await idle(subscription)
    subscription.resume()
    assert [frame.payload for frame in await turn(subscription)] == [1]


async def test_closing_ends_the_iteration_wherever_it_waits() -> None:
    hub = Hub()
    subscription = hub.subscribe(["memory"])
    waiting = asyncio.ensure_future(anext(subscription))
    await asyncio.sleep(0)
    subscription.close()
    subscription.close()
    with pytest.raises(StopAsyncIteration):
        await waiting
    assert not hub._subscriptions


async def test_other_threads_may_publish() -> None:
    hub = Hub()
    subscription = hub.subscribe(["events"])

    def emit_many() -> None:
        for _ in range(50):
            hub.emit("x")

    threads = [threading.Thread(target=emit_many) for _ in range(4)]
    for thread in threads:
        thread.start()
    numbers: list[int | None] = []
    while len(numbers) < 200:
        numbers += [frame.seq for frame in await turn(subscription)]
    assert numbers == sorted(set(numbers), key=lambda seq: seq or 0)
    for thread in threads:
        thread.join()


def test_publishing_needs_no_loop_and_survives_a_closed_one() -> None:
    hub = Hub()
    hub.publish("memory", 1)

    async def watch() -> None:
        hub.subscribe(["memory"])

    asyncio.run(watch())
    hub.publish("memory", 2)
    hub.emit("model.loaded")
    assert hub.latest("memory") == 2


def test_emit_never_raises(caplog: pytest.LogCaptureFixture) -> None:
    hub = Hub()
    endless: list[Any] = []
    endless.append(endless)
    hub.emit("odd", value=endless)
    assert "could not be written" in caplog.text
    hub.emit("fine")
    assert [entry["kind"] for entry in hub.recent()] == ["fine"]


def test_a_failing_tap_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    hub = Hub()
    seen: list[tuple[str, Any]] = []

    def broken(topic: str, payload: Any) -> None:
        raise RuntimeError("no")

    hub.tap(broken)
    untap = hub.tap(lambda topic, payload: seen.append((topic, payload)))
    hub.publish("memory", 1)
    untap()
    hub.publish("memory", 2)
    assert seen == [("memory", 1)]
    assert "a tap of the hub failed" in caplog.text


async def test_too_many_topics_are_refused() -> None:
    with pytest.raises(ValueError):
        Hub().subscribe([str(n) for n in range(33)])


class LateReturn(Hub):
    """A publisher's thread that is held up after it has asked for a wake-up, until the loop has served it."""

    def _call(self, callback: Callable[[], None]) -> bool:
        if threading.current_thread() is threading.main_thread():
            return super()._call(callback)
        served = threading.Event()

        def serve() -> None:
            callback()
            served.set()

        asked = super()._call(serve)
        assert served.wait(10)
        return asked


async def test_a_thread_that_is_held_up_while_it_publishes_silences_nobody() -> None:
    hub = LateReturn(interval_s=0)
    subscription = hub.subscribe(["latency"])
    for value in (1, 2, 3):
        watching = asyncio.create_task(turn(subscription))
        await asyncio.sleep(0)  # it waits now, and does not ask for the lock that the publisher holds
        await asyncio.to_thread(hub.publish, "latency", value)
        assert [frame.payload for frame in await watching] == [value]
