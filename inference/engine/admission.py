"""Who may run now: bounds on an answer's length, and a fair, bounded queue for a model's slots.

Of those who wait for one model, the higher priority goes first, and within a priority clients take turns by name, so
that one who sends a hundred requests waits behind another's first. Priority alone would let a busy evening of high
requests starve a low one until it is refused for having waited too long, and a nightly batch would fail instead of
being slow. So waiting counts: after ``PROMOTE_AFTER_S`` a request moves up one priority, at the end of its client's
requests there that came before it. A low one thus takes its turns among the high after two such spans, well inside the
five minutes after which a wait is given up, while a person at a prompt still passes a batch that has just been sent.
"""

from __future__ import annotations

import asyncio
import bisect
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from inference.errors import LmxError, TooManyRequests
from inference.records import RequestRecord

KV_LOOKAHEAD_TOKENS = 2048
PROMOTE_AFTER_S = 60.0
LOW, HIGH = -1, 1
_FIRST_GUESS_S = 5.0
_LONGEST_RETRY_S = 60.0


def bound_answer(prompt_tokens: int, max_tokens: int | None, context: int) -> int:
    """How many tokens the answer may have; a prompt that leaves room for none was refused by ``prepare``."""
    room = context - prompt_tokens
    return max(1, room if max_tokens is None else min(max_tokens, room))


def kv_estimate(prompt_tokens: int, max_tokens: int, choices: int, bytes_per_token: int) -> int:
    """Bytes of KV cache an answer takes soon: the prompt once, and the next ``KV_LOOKAHEAD_TOKENS`` of each choice."""
    return (prompt_tokens + choices * min(max_tokens, KV_LOOKAHEAD_TOKENS)) * bytes_per_token


@dataclass(eq=False, slots=True)
class _Ticket:
    """``level`` is the priority it has come up to, ``since`` when it did, ``number`` its place in order of arrival."""

    record: RequestRecord
    weight: int
    kv_bytes: int
    level: int
    since: float
    number: int
    granted: asyncio.Future[None] = field(repr=False)

    @property
    def client(self) -> str:
        return self.record.principal.id


class _Level:
    """Those who wait with one priority: clients in the order of their turns, each with its requests as they came."""

    def __init__(self) -> None:
        self.turns: OrderedDict[str, list[_Ticket]] = OrderedDict()

    def add(self, ticket: _Ticket) -> None:
        bisect.insort(self.turns.setdefault(ticket.client, []), ticket, key=lambda other: other.number)

    def remove(self, ticket: _Ticket) -> bool:
        tickets = self.turns.get(ticket.client, [])
        if ticket not in tickets:
            return False
        tickets.remove(ticket)
        if not tickets:
            del self.turns[ticket.client]
        return True

    def first(self) -> _Ticket | None:
        return next(iter(self.turns.values()))[0] if self.turns else None

    def turn_over(self, client: str) -> None:
        if client in self.turns:
            self.turns.move_to_end(client)

    def in_order(self) -> Iterator[_Ticket]:
        """As they will be served if nobody comes or leaves."""
        longest = max(map(len, self.turns.values()), default=0)
        for turn in range(longest):
            yield from (tickets[turn] for tickets in self.turns.values() if turn < len(tickets))


class SlotQueue:
    """The slots of one loaded model and who waits for them; the module says in which order.

    ``kv_gate(bytes)`` says whether the memory for one more answer is there: True; False when it is being made and
    ``serve`` will be called; or a refusal, which counts only when no running answer could make room by ending.
    A waiter whose task is cancelled is forgotten at once. ``clock`` in seconds, never going back.
    """

    def __init__(
        self,
        model_id: str,
        slots: int,
        limit: int,
        kv_gate: Callable[[int], bool | LmxError],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.model_id = model_id
        self.slots = slots
        self.running = 0
        self.used = 0
        self.queued = 0
        self._limit = limit
        self._kv_gate = kv_gate
        self._clock = clock
        self._levels = {level: _Level() for level in range(HIGH, LOW - 1, -1)}
        self._arrived = 0
        self._closed: LmxError | None = None
        self._typical_s = _FIRST_GUESS_S

    async def acquire(self, record: RequestRecord, choices: int, kv_bytes: int) -> int:
        """Wait for room; returns the number of slots taken, which ``release`` gives back.

        Raises ``TooManyRequests`` when the queue is full, ``InsufficientMemory`` when it can never fit.
        """
        if self._closed is not None:
            raise self._closed
        if self.queued >= self._limit:
            raise TooManyRequests(
                f"{self.queued} requests wait for {self.model_id} already", retry_after=self.retry_after()
            )
        self._promote()
        ticket = self._enter(record, min(choices, self.slots), kv_bytes)
        self.serve()
        try:
            await ticket.granted
        except asyncio.CancelledError:
            self._leave(ticket)
            raise
        return ticket.weight

    def _enter(self, record: RequestRecord, weight: int, kv_bytes: int) -> _Ticket:
        level = max(LOW, min(HIGH, record.priority))
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._arrived += 1
        ticket = _Ticket(record, weight, kv_bytes, level, self._clock(), self._arrived, granted)
        self._levels[level].add(ticket)
        self.queued += 1
        return ticket

    def _leave(self, ticket: _Ticket) -> None:
        """A waiter is gone: out of the queue, or its slot, granted in this very moment, goes back."""
        if ticket.granted.done() and not ticket.granted.cancelled() and ticket.granted.exception() is None:
            self.release(ticket.weight, None)
        else:
            self._remove(ticket)
            self.serve()

    def _remove(self, ticket: _Ticket) -> None:
        ticket.record.queue_position = None
        if self._levels[ticket.level].remove(ticket):
            self.queued -= 1

    def release(self, weight: int, took_s: float | None) -> None:
        """Give slots back; ``took_s`` is how long the answer ran, for the estimate in ``Retry-After``."""
        self.used -= weight
        self.running -= 1
        if took_s is not None:
            self._typical_s += (took_s - self._typical_s) / 8
        self.serve()

    def serve(self) -> None:
        """Grant what can be granted. Called when a slot or memory came free."""
        self._promote()
        while self._closed is None and (ticket := self._next()) is not None:
            if ticket.granted.done():
                self._remove(ticket)
                continue
            if self.used and self.used + ticket.weight > self.slots:
                return
            verdict = self._kv_gate(ticket.kv_bytes) if ticket.kv_bytes else True
            if verdict is False or (verdict is not True and self.running):
                return
            self._remove(ticket)
            self._levels[ticket.level].turn_over(ticket.client)
            if verdict is not True:
                ticket.granted.set_exception(verdict)
                continue
            self.used += ticket.weight
            self.running += 1
            ticket.granted.set_result(None)

    def _next(self) -> _Ticket | None:
        return next((ticket for level in self._levels.values() if (ticket := level.first()) is not None), None)

    def _promote(self) -> None:
        """Move up who has waited long enough. No timer: it matters only when somebody is served, or comes behind."""
        now = self._clock()
        for name in range(HIGH - 1, LOW - 1, -1):
            level = self._levels[name]
            for ticket in [ticket for ticket in level.in_order() if now - ticket.since >= PROMOTE_AFTER_S]:
                level.remove(ticket)
                ticket.level, ticket.since = name + 1, now
                self._levels[ticket.level].add(ticket)

    def number(self) -> None:
        """Write down in each waiting record how many turns it is from its slot (1: the next)."""
        self._promote()
        position = 0
        for level in self._levels.values():
            for ticket in level.in_order():
                position += 1
                ticket.record.queue_position = position

    def close(self, error: LmxError) -> None:
        """Send everyone who waits away with ``error``, and whoever comes later."""
        self._closed = error
        for level in self._levels.values():
            for ticket in list(level.in_order()):
                self._remove(ticket)
                if not ticket.granted.done():
                    ticket.granted.set_exception(error)

    def retry_after(self) -> float:
        turns = (self.queued + 1) / max(1, self.slots)
        return float(round(min(_LONGEST_RETRY_S, max(1.0, turns * self._typical_s))))
