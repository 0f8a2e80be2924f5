"""Who may run now: bounds on an answer's length, and a fair, bounded queue for a model's slots."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from inference.errors import LmxError, TooManyRequests

KV_LOOKAHEAD_TOKENS = 2048
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
    principal: str
    weight: int
    kv_bytes: int
    granted: asyncio.Future[None] = field(repr=False)


class SlotQueue:
    """The slots of one loaded model and who waits for them, in turns between principals.

    ``kv_gate(bytes)`` says whether the memory for one more answer is there: True; False when it is being made and
    ``serve`` will be called; or a refusal, which counts only when no running answer could make room by ending.
    A waiter whose task is cancelled is forgotten at once.
    """

    def __init__(self, model_id: str, slots: int, limit: int, kv_gate: Callable[[int], bool | LmxError]) -> None:
        self.model_id = model_id
        self.slots = slots
        self.running = 0
        self.used = 0
        self._limit = limit
        self._kv_gate = kv_gate
        self._waiting: OrderedDict[str, deque[_Ticket]] = OrderedDict()
        self._closed: LmxError | None = None
        self._typical_s = _FIRST_GUESS_S

    @property
    def queued(self) -> int:
        return sum(len(tickets) for tickets in self._waiting.values())

    async def acquire(self, principal: str, choices: int, kv_bytes: int) -> int:
        """Wait for room; returns the number of slots taken, which ``release`` gives back.

        Raises ``TooManyRequests`` when the queue is full, ``InsufficientMemory`` when it can never fit.
        """
        if self._closed is not None:
            raise self._closed
        if self.queued >= self._limit:
            raise TooManyRequests(
                f"{self.queued} requests wait for {self.model_id} already", retry_after=self.retry_after()
            )
        ticket = _Ticket(principal, min(choices, self.slots), kv_bytes, asyncio.get_running_loop().create_future())
        self._waiting.setdefault(principal, deque()).append(ticket)
        self.serve()
        try:
            await ticket.granted
        except asyncio.CancelledError:
            self._leave(ticket)
            raise
        return ticket.weight

    def _leave(self, ticket: _Ticket) -> None:
        """A waiter is gone: out of the queue, or its slot, granted in this very moment, goes back."""
        if ticket.granted.done() and not ticket.granted.cancelled() and ticket.granted.exception() is None:
            self.release(ticket.weight, None)
        else:
            self._remove(ticket)
            self.serve()

    def _remove(self, ticket: _Ticket) -> None:
        tickets = self._waiting.get(ticket.principal)
        if tickets is not None and ticket in tickets:
            tickets.remove(ticket)
            if not tickets:
                del self._waiting[ticket.principal]

    def release(self, weight: int, took_s: float | None) -> None:
        """Give slots back; ``took_s`` is how long the answer ran, for the estimate in ``Retry-After``."""
        self.used -= weight
        self.running -= 1
        if took_s is not None:
            self._typical_s += (took_s - self._typical_s) / 8
        self.serve()

    def serve(self) -> None:
        """Grant what can be granted. Called when a slot or memory came free."""
        while self._waiting and self._closed is None:
            principal, tickets = next(iter(self._waiting.items()))
            ticket = tickets[0]
            if ticket.granted.done():
                self._remove(ticket)
                continue
            if self.used and self.used + ticket.weight > self.slots:
                return
            verdict = self._kv_gate(ticket.kv_bytes) if ticket.kv_bytes else True
            if verdict is False or (verdict is not True and self.running):
                return
            self._remove(ticket)
            if principal in self._waiting:
                self._waiting.move_to_end(principal)
            if verdict is not True:
                ticket.granted.set_exception(verdict)
                continue
            self.used += ticket.weight
            self.running += 1
            ticket.granted.set_result(None)

    def close(self, error: LmxError) -> None:
        """Send everyone who waits away with ``error``, and whoever comes later."""
        self._closed = error
        waiting = [ticket for tickets in self._waiting.values() for ticket in tickets]
        self._waiting.clear()
        for ticket in waiting:
            if not ticket.granted.done():
                ticket.granted.set_exception(error)

    def retry_after(self) -> float:
        turns = (self.queued + 1) / max(1, self.slots)
        return float(round(min(_LONGEST_RETRY_S, max(1.0, turns * self._typical_s))))
