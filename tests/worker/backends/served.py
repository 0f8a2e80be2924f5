"""A generating backend in this process, and what it answered."""

from __future__ import annotations

import queue
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inference import ipc
from inference.worker.backends.base import Backend
from inference.worker.backends.vllm_mlx import VllmMlxBackend
from tests.worker.backends.threaded import PATIENCE_S, Threaded


@dataclass
class Said:
    """One choice, joined from its deltas."""

    content: str = ""
    reasoning: str = ""
    calls: list[tuple[str | None, str]] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    logprobs: list[ipc.TokenLogprob] = field(default_factory=list)
    reason: str = ""
    stop_sequence: str | None = None
    usage: ipc.Usage = field(default_factory=ipc.Usage)

    def add(self, delta: ipc.Delta) -> None:
        self.content += delta.content
        self.reasoning += delta.reasoning
        self.calls += [(tool.name, tool.arguments) for tool in delta.tools]
        self.tokens += delta.token_ids
        self.logprobs += delta.logprobs


@dataclass
class Result:
    """Everything one request was told. ``failed`` is its last event when it failed as a whole."""

    choices: list[Said]
    prepared: ipc.Prepared
    events: list[ipc.Event] = field(default_factory=list)
    failed: ipc.Failed | None = None

    @property
    def content(self) -> str:
        return self.choices[0].content


class Served(Threaded[Backend]):
    """What each request was told, in queues by its id."""

    def __init__(self, path: Path, backend: Backend | None = None, **options: Any) -> None:
        super().__init__(path, backend or VllmMlxBackend(), **options)
        self._queues: dict[str, queue.SimpleQueue[ipc.Event]] = {}
        self._bodies: dict[str, tuple[ipc.GenerateRequest, ipc.Prepared]] = {}

    def prepare(self, body: ipc.GenerateRequest) -> str:
        request = next(self._names)
        self._queues[request] = queue.SimpleQueue()
        self._bodies[request] = (body, self.backend.prepare(request, body))
        return request

    def start(self, body: ipc.GenerateRequest) -> str:
        request = self.prepare(body)
        self.backend.start(request, body.max_tokens or 16)
        return request

    def next_event(self, request: str) -> ipc.Event:
        return self._queues[request].get(timeout=PATIENCE_S)

    def until(self, request: str, kind: type[ipc.Event]) -> ipc.Event:
        """Drop events up to the first of this kind."""
        while not isinstance(event := self.next_event(request), kind):
            pass
        return event

    def result(self, request: str) -> Result:
        """Wait for the end of a request."""
        body, prepared = self._bodies[request]
        result = Result([Said() for _ in range(body.n)], prepared)
        open_choices = body.n
        while open_choices:
            event = self.next_event(request)
            result.events.append(event)
            if isinstance(event, ipc.Delta):
                result.choices[event.choice].add(event)
            elif isinstance(event, ipc.Finished):
                said = result.choices[event.choice]
                said.reason, said.stop_sequence, said.usage = event.reason, event.stop_sequence, event.usage
                open_choices -= 1
            elif isinstance(event, ipc.Failed):
                result.failed = event
                break
        return result

    def run(self, body: ipc.GenerateRequest) -> Result:
        return self.result(self.start(body))

    def _hear(self, event: ipc.RequestEvent) -> None:
        self._queues[event.request].put(event)
