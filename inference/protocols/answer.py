"""A whole answer, gathered from a request's events; every protocol's body is made from it."""

from __future__ import annotations

from dataclasses import dataclass, field

from inference.errors import InternalError, RequestCancelled
from inference.ipc import Delta, Finished, FinishReason, TokenLogprob, Usage


@dataclass(slots=True)
class CalledTool:
    """One complete tool call; ``arguments`` is JSON text as the model wrote it."""

    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(slots=True)
class Choice:
    """One choice. ``reason`` is None while it is being written; ``written`` is reasoning and content as they came."""

    written: list[str] = field(default_factory=list)
    content: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    tools: dict[int, CalledTool] = field(default_factory=dict)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    reason: FinishReason | None = None
    stop_sequence: str | None = None

    def add(self, delta: Delta) -> None:
        for text, kind in ((delta.reasoning, self.reasoning), (delta.content, self.content)):
            if text:
                kind.append(text)
                self.written.append(text)
        self.logprobs += delta.logprobs
        for fragment in delta.tools:
            call = self.tools.setdefault(fragment.index, CalledTool())
            call.id = fragment.id or call.id
            call.name = fragment.name or call.name
            call.arguments += fragment.arguments


class Tally:
    """Which of ``n`` choices are still open, and the usage of the whole request so far."""

    def __init__(self, n: int, prompt_tokens: int) -> None:
        self._open = set(range(n))
        self.usage = Usage(prompt_tokens=prompt_tokens)

    def finish(self, event: Finished) -> None:
        """Count a finished choice; ``RequestCancelled`` when it did not finish by itself."""
        if event.reason == "cancelled":
            raise RequestCancelled("the request was cancelled")
        self._open.discard(event.choice)
        usage = event.usage
        # All choices share one prompt; each reports the tokens it added.
        self.usage = Usage(
            prompt_tokens=max(self.usage.prompt_tokens, usage.prompt_tokens),
            completion_tokens=self.usage.completion_tokens + usage.completion_tokens,
            cached_tokens=max(self.usage.cached_tokens, usage.cached_tokens),
            reasoning_tokens=self.usage.reasoning_tokens + usage.reasoning_tokens,
        )

    def close(self) -> Usage:
        """The usage of the complete answer; ``InternalError`` when a choice never finished."""
        if self._open:
            raise InternalError("the answer ended before it was finished")
        return self.usage


class Answer:
    """The choices of one request, in order."""

    def __init__(self, n: int) -> None:
        self.choices = [Choice() for _ in range(n)]
        self.usage = Usage()

    def add(self, delta: Delta) -> None:
        self.choices[delta.choice].add(delta)

    def finish(self, event: Finished) -> None:
        choice = self.choices[event.choice]
        choice.reason, choice.stop_sequence = event.reason, event.stop_sequence
