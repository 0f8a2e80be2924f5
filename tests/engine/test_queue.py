"""The queue for a model's slots: who goes first, fair turns, growing older, leaving; and whatever else may happen."""

from __future__ import annotations

import asyncio
from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from inference.engine.admission import PROMOTE_AFTER_S, SlotQueue
from inference.errors import InsufficientMemory, LmxError, ModelUnavailable, TooManyRequests
from inference.principal import Principal
from inference.records import RequestRecord

LOW, NORMAL, HIGH = -1, 0, 1


def record(client: str, priority: int = NORMAL, name: str = "") -> RequestRecord:
    asker = Principal("anonymous", client, frozenset({"inference"}), priority=priority)
    return RequestRecord(name or client, "openai", "/v1/x", asker, "m")


class Line:
    """A queue, those who stand in it, and the order in which they were served."""

    def __init__(self, slots: int = 1, limit: int = 100) -> None:
        self.now = 0.0
        self.verdict: bool | LmxError = True
        self.queue = SlotQueue("m", slots, limit, lambda _: self.verdict, clock=lambda: self.now)
        self.served: list[str] = []

    async def join(self, *names: str, weight: int = 1, kv_bytes: int = 0) -> list[asyncio.Task[None]]:
        """``client`` or ``client/priority``, each in a task of its own, in this order."""
        tasks = []
        for name in names:
            client, _, priority = name.partition("/")
            entry = record(client, {"low": LOW, "": NORMAL, "high": HIGH}[priority], name)
            tasks.append(asyncio.create_task(self._stand(entry, weight, kv_bytes)))
            await asyncio.sleep(0)
        return tasks

    async def _stand(self, entry: RequestRecord, weight: int, kv_bytes: int) -> None:
        await self.queue.acquire(entry, weight, kv_bytes)
        self.served.append(entry.id)

    async def serve(self, times: int = 1) -> list[str]:
        """Let the running one end ``times`` times; who came next."""
        self.served.clear()
        for _ in range(times):
            self.queue.release(1, None)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        return list(self.served)


async def test_it_works() -> None:
    line = Line()
    await line.join("a", "b")
    assert line.served == ["a"]
    assert (line.queue.running, line.queue.queued) == (1, 1)
    assert await line.serve() == ["b"]


async def test_clients_take_turns_whatever_they_have_waiting() -> None:
    line = Line()
    await line.join("running", *["many"] * 4, "one", "two", "two")
    assert await line.serve(7) == ["many", "one", "two", "many", "two", "many", "many"]


async def test_the_higher_priority_first_and_turns_within_it() -> None:
    line = Line()
    await line.join("running", "batch/low", "batch/low", "bot", "me/high", "me/high", "you/high", "bot")
    expected = ["me/high", "you/high", "me/high", "bot", "bot", "batch/low", "batch/low"]
    assert await line.serve(7) == expected


async def test_one_client_with_two_priorities() -> None:
    line = Line()
    await line.join("running", "me/low", "me/high", "me", "you")
    assert await line.serve(4) == ["me/high", "me", "you", "me/low"]


async def test_who_waits_grows_in_importance() -> None:
    line = Line()
    await line.join("running", "batch/low")
    line.now = PROMOTE_AFTER_S
    await line.join("bot", "me/high")
    assert await line.serve(2) == ["me/high", "batch/low"]
    await line.join("batch/low")
    line.now += PROMOTE_AFTER_S
    line.queue.number()
    line.now += PROMOTE_AFTER_S
    await line.join("me/high")
    assert await line.serve(3) == ["bot", "batch/low", "me/high"]


async def test_a_stream_of_high_ones_starves_nobody() -> None:
    line = Line()
    await line.join("running", "batch/low")
    for turn in range(1, 400):
        await line.join("me/high", "you/high")
        line.now = turn
        if "batch/low" in await line.serve():
            break
    assert 2 * PROMOTE_AFTER_S <= line.now <= 2 * PROMOTE_AFTER_S + 3


async def test_positions_are_the_order_of_service() -> None:
    line = Line()
    queue = line.queue
    names = ["running", "batch/low", "many", "many", "me/high", "one"]
    entries = [
        record(name.partition("/")[0], {"low": LOW, "high": HIGH}.get(name[-4:].strip("/"), 0)) for name in names
    ]
    tasks = []
    for entry in entries:
        tasks.append(asyncio.create_task(queue.acquire(entry, 1, 0)))
        await asyncio.sleep(0)
    queue.number()
    assert [entry.queue_position for entry in entries] == [None, 5, 2, 4, 1, 3]
    tasks[2].cancel()
    await asyncio.sleep(0)
    queue.number()
    assert [entry.queue_position for entry in entries] == [None, 4, None, 2, 1, 3]
    queue.release(1, None)
    assert entries[4].queue_position is None
    queue.close(ModelUnavailable("over"))
    assert all(entry.queue_position is None for entry in entries)
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_large_one_is_not_overtaken_for_ever() -> None:
    line = Line(slots=4)
    await line.join("a", "a", "a")
    await line.join("big", weight=4)
    await line.join("small")
    assert line.queue.queued == 2
    assert await line.serve(3) == ["big"]
    line.queue.release(4, None)
    await asyncio.sleep(0)
    assert line.served == ["big", "small"]


async def test_more_choices_than_slots_take_all_of_them() -> None:
    line = Line(slots=4)
    assert await line.queue.acquire(record("a"), 100, 0) == 4


async def test_a_full_queue_says_when_to_come_back() -> None:
    line = Line(limit=1)
    await line.join("a", "b")
    with pytest.raises(TooManyRequests) as refused:
        await line.queue.acquire(record("c", HIGH), 1, 0)
    assert refused.value.retry_after is not None
    assert 1 <= refused.value.retry_after <= 60


async def test_memory_holds_the_queue_and_refuses_only_an_idle_model() -> None:
    line = Line(slots=4)
    await line.join("running")
    line.verdict = InsufficientMemory("never")
    (task,) = await line.join("large", kv_bytes=1)
    assert line.queue.queued == 1
    line.queue.release(1, None)
    with pytest.raises(InsufficientMemory):
        await task
    line.verdict = False
    (task,) = await line.join("large", kv_bytes=1)
    assert line.queue.queued == 1
    line.verdict = True
    line.queue.serve()
    await task


async def test_a_closed_queue_sends_everybody_away() -> None:
    line = Line()
    tasks = await line.join("a", "b", "c/high")
    line.queue.close(ModelUnavailable("gone"))
    for task in tasks[1:]:
        with pytest.raises(ModelUnavailable):
            await task
    with pytest.raises(ModelUnavailable):
        await line.queue.acquire(record("d"), 1, 0)
    assert line.queue.queued == 0


class Waiting:
    """One request of the model below."""

    def __init__(self, entry: RequestRecord, weight: int, task: asyncio.Task[int]) -> None:
        self.entry = entry
        self.weight = weight
        self.task = task


class QueueMachine(RuleBasedStateMachine):
    """Any order of arrivals, ends, departures and waits of memory, against what must always hold."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.loop.set_debug(False)
        self.now = 0.0
        self.fits = True
        self.slots = 3
        self.queue = SlotQueue("m", self.slots, 20, lambda _: self.fits, clock=lambda: self.now)
        self.waiting: list[Waiting] = []
        self.running: deque[Waiting] = deque()

    def teardown(self) -> None:
        self.queue.close(ModelUnavailable("over"))
        self.turn()
        self.loop.close()

    def turn(self) -> None:
        async def turns() -> None:
            for _ in range(4):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turns())
        for waiting in list(self.waiting):
            if waiting.task.done():
                self.waiting.remove(waiting)
                if not waiting.task.cancelled() and waiting.task.exception() is None:
                    self.running.append(waiting)

    @rule(
        client=st.sampled_from("abc"),
        priority=st.sampled_from([LOW, NORMAL, HIGH]),
        choices=st.integers(1, 5),
        kv_bytes=st.integers(0, 1),
    )
    def arrive(self, client: str, priority: int, choices: int, kv_bytes: int) -> None:
        entry = record(client, priority)
        full = self.queue.queued >= 20
        task = self.loop.create_task(self.queue.acquire(entry, choices, kv_bytes))
        waiting = Waiting(entry, min(choices, self.slots), task)
        self.waiting.append(waiting)
        self.turn()
        assert full == (task.done() and not task.cancelled() and isinstance(task.exception(), TooManyRequests))

    @rule(at=st.integers(0, 100))
    def end(self, at: int) -> None:
        if self.running:
            self.running.rotate(at)
            self.queue.release(self.running.popleft().weight, 0.1)
            self.turn()

    @rule(at=st.integers(0, 100), also_end=st.booleans())
    def leave(self, at: int, also_end: bool) -> None:
        """A client goes, perhaps in the very moment in which a slot is granted to it."""
        if self.waiting:
            waiting = self.waiting[at % len(self.waiting)]
            if also_end and self.running:
                self.queue.release(self.running.popleft().weight, None)
            waiting.task.cancel()
            self.turn()
            assert waiting.task.cancelled()
            assert waiting.entry.queue_position is None

    @rule(fits=st.booleans())
    def memory(self, fits: bool) -> None:
        self.fits = fits
        self.queue.serve()
        self.turn()

    @rule(seconds=st.sampled_from([1.0, PROMOTE_AFTER_S]))
    def time(self, seconds: float) -> None:
        self.now += seconds
        self.queue.serve()
        self.turn()

    @invariant()
    def never_above_its_slots(self) -> None:
        assert self.queue.used == sum(waiting.weight for waiting in self.running) <= self.slots
        assert self.queue.running == len(self.running)

    @invariant()
    def nobody_is_lost(self) -> None:
        assert self.queue.queued == len(self.waiting)
        self.queue.number()
        positions = sorted(waiting.entry.queue_position or 0 for waiting in self.waiting)
        assert positions == list(range(1, len(self.waiting) + 1))
        assert all(waiting.entry.queue_position is None for waiting in self.running)

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        self.queue.number()
        if self.waiting and self.fits:
            first = min(self.waiting, key=lambda waiting: waiting.entry.queue_position or 0)
            assert self.queue.used
            assert self.queue.used + first.weight > self.slots

    @invariant()
    def a_clients_requests_of_one_priority_keep_their_order(self) -> None:
        self.queue.number()
        for client in "abc":
            for priority in (LOW, NORMAL, HIGH):
                mine = [
                    waiting.entry.queue_position or 0
                    for waiting in self.waiting
                    if (waiting.entry.principal.id, waiting.entry.priority) == (client, priority)
                ]
                assert mine == sorted(mine)


QueueMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestQueueMachine = QueueMachine.TestCase
