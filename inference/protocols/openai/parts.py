"""One engine request's events as part of a text completion's answer.

``Part`` numbers the choices on, puts the prompt's own log probabilities before those of the answer, and leaves out what
was only generated because the engine makes one token at least. ``BestPart`` gives the best of its choices, at its end.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from msgspec import structs

from inference.ipc import Delta, Finished, GenerateRequest, PromptLogprobs, RequestEvent, TokenLogprob


class Part:
    """``request`` is what was asked for (its ``max_tokens`` may be 0), ``first`` the number of its first choice."""

    def __init__(self, request: GenerateRequest, first: int) -> None:
        self._first = first
        self._bare = request.max_tokens == 0
        self._waits = request.prompt_logprobs is not None
        self._prompt: list[TokenLogprob] = []
        self._held: list[Delta] = []
        self._opened: set[int] = set()

    def take(self, events: Iterable[RequestEvent]) -> list[RequestEvent]:
        """What these events are in the whole answer."""
        found: list[RequestEvent] = []
        for event in events:
            if isinstance(event, PromptLogprobs):
                self._prompt = event.tokens
                found += self._release()
            elif isinstance(event, Delta):
                found += self._delta(event)
            elif isinstance(event, Finished):
                found += self._release()
                found += self._finished(event)
        return found

    def _delta(self, event: Delta) -> list[RequestEvent]:
        if self._bare and event.token_ids:
            return []
        if self._waits:  # the prompt's text may come before its logprobs
            self._held.append(event)
            return []
        logprobs = event.logprobs
        if event.choice not in self._opened:
            self._opened.add(event.choice)
            logprobs = [*self._prompt, *logprobs]
        return [structs.replace(event, choice=self._first + event.choice, logprobs=logprobs)]

    def _finished(self, event: Finished) -> list[RequestEvent]:
        if self._bare and event.reason != "cancelled":
            usage = structs.replace(event.usage, completion_tokens=0, reasoning_tokens=0)
            event = structs.replace(event, reason="length", usage=usage, stop_sequence=None)
        return [structs.replace(event, choice=self._first + event.choice)]

    def _release(self) -> list[RequestEvent]:
        self._waits = False
        held, self._held = self._held, []
        return [made for event in held for made in self._delta(event)]


class BestPart(Part):
    """Of the request's choices the ``keep`` with the highest mean log probability; all of them count as tokens.

    ``shown`` is whether the client asked for log probabilities.
    """

    def __init__(self, request: GenerateRequest, first: int, keep: int, *, shown: bool) -> None:
        super().__init__(request, 0)
        self._place = first
        self._keep = keep
        self._shown = shown
        self._made: list[list[Delta]] = [[] for _ in range(request.n)]
        self._ends: dict[int, Finished] = {}

    def take(self, events: Iterable[RequestEvent]) -> list[RequestEvent]:
        for event in super().take(events):
            if isinstance(event, Delta):
                self._made[event.choice].append(event)
            elif isinstance(event, Finished):
                self._ends[event.choice] = event
                if event.reason == "cancelled":
                    return [structs.replace(event, choice=self._place)]
        return self._chosen() if len(self._ends) == len(self._made) else []

    def _chosen(self) -> list[RequestEvent]:
        order = sorted(range(len(self._made)), key=self._mean, reverse=True)
        best, rest = order[: self._keep], order[self._keep :]
        found: list[RequestEvent] = []
        for place, choice in enumerate(best, self._place):
            for delta in self._made[choice]:
                logprobs = delta.logprobs if self._shown else []
                found.append(structs.replace(delta, choice=place, logprobs=logprobs))
            end = self._ends[choice]
            if place == self._place:
                end = self._with_tokens_of(end, rest)
            found.append(structs.replace(end, choice=place))
        return found

    def _mean(self, choice: int) -> float:
        skipped = len(self._prompt)
        logprobs = [token.logprob for delta in self._made[choice] for token in delta.logprobs][skipped:]
        return sum(logprobs) / len(logprobs) if logprobs else -math.inf

    def _with_tokens_of(self, end: Finished, others: list[int]) -> Finished:
        usages = [end.usage, *(self._ends[choice].usage for choice in others)]
        total = structs.replace(
            end.usage,
            completion_tokens=sum(usage.completion_tokens for usage in usages),
            reasoning_tokens=sum(usage.reasoning_tokens for usage in usages),
        )
        return structs.replace(end, usage=total)
