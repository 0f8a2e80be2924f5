"""Turns the core's events into frames for the web process, on a thread of its own.

The stepping thread puts its events into a queue (but for small steps, see ``Answers.put``). Here tokens become text,
stop strings are found and one frame per step is emitted, in the order of the steps; when this thread falls behind, the
steps that wait are joined into one frame. A defect in one request's text ends that request and no other.
"""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from traceback import format_tb

from inference import ipc
from inference.worker.backends.base import Emit
from inference.worker.core.types import (
    ChoiceFinished,
    CoreEvent,
    PrefillProgress,
    PromptLogprobs,
    RequestFailed,
    Started,
    TokenLogprobs,
    Tokens,
)
from inference.worker.text.logprobs import wire_logprob
from inference.worker.text.output import ChoiceOutput, OutputPlan

log = logging.getLogger(__name__)

_SMALL_STEP = 4
"""Tokens and other events of one step up to which its text is made on the stepping thread."""

Cancel = Callable[[str, int | None], None]
"""Ends one choice of a request in the core, or all of them."""


@dataclass
class Answer:
    """One started request. An output is None once its choice has had its last event. Times are monotonic seconds.

    ``logprobs_first``: the prompt's log probabilities come before its ``echo``.
    """

    plan: OutputPlan
    prompt_tokens: int
    n: int
    echo: str = ""
    logprobs_first: bool = False
    cached_tokens: int = 0
    arrived: float = field(default_factory=time.monotonic)
    started: float | None = None
    first_token: float | None = None
    outputs: list[ChoiceOutput | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.outputs = [ChoiceOutput(self.plan, choice) for choice in range(self.n)]

    def timings(self, now: float) -> ipc.Timings:
        started = self.started if self.started is not None else now
        first = self.first_token if self.first_token is not None else now
        return ipc.Timings(
            queue_s=started - self.arrived,
            prefill_s=first - started,
            ttft_s=first - self.arrived,
            total_s=now - self.arrived,
        )


def _is_small(events: list[CoreEvent]) -> bool:
    return sum(map(_weight, events)) <= _SMALL_STEP


def _weight(event: CoreEvent) -> int:
    """How many tokens' text or numbers there are to make of it, at least 1."""
    if isinstance(event, Tokens):
        return len(event.rows)
    return len(event.token_ids) if isinstance(event, PromptLogprobs) else 1


class Answers:
    """All started requests of one model. ``open`` before the core may know the request; ``put`` never blocks."""

    def __init__(self, emit: Emit, cancel: Cancel) -> None:
        self._emit = emit
        self._cancel = cancel
        self._answers: dict[str, Answer] = {}
        self._queue: queue.SimpleQueue[tuple[float, list[CoreEvent]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="text", daemon=True)
        self._handed_over = 0
        self._worked_off = 0
        self._frame: list[ipc.Event] = []
        self._touched: dict[int, ChoiceOutput] = {}
        self._ended: list[str] = []

    def start(self) -> None:
        self._thread.start()

    def open(self, request: str, answer: Answer) -> None:
        self._answers[request] = answer

    def put(self, events: list[CoreEvent]) -> None:
        """Take the events of one step; called on the stepping thread.

        The text of a step of few rows is made at once, if the text thread has nothing to do: between two threads that
        take turns in one interpreter the hand-over would cost the step more than the text does.
        """
        now = time.monotonic()
        if self._handed_over == self._worked_off and _is_small(events):
            for event in events:
                self._event(event, now)
            self._send()
        else:
            self._handed_over += 1
            self._queue.put((now, events))

    def busy(self) -> bool:
        return bool(self._answers)

    def close(self) -> None:
        """Work off what is queued, fail what is still open, end the thread."""
        self._queue.put(None)
        self._thread.join()
        for request in list(self._answers):
            self._emit([ipc.Failed.cut_off(request)])
        self._answers.clear()

    def _run(self) -> None:
        going = True
        while going:
            item = self._queue.get()
            taken = 0
            while True:
                if item is None:
                    going = False
                else:
                    taken += 1
                    for event in item[1]:
                        self._event(event, item[0])
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
            self._send()
            self._worked_off += taken

    def _send(self) -> None:
        """Emit one frame with everything gathered; forget ended requests only when their last event is out."""
        self._gather()
        if self._frame:
            self._emit(self._frame)
            self._frame = []
        for request in self._ended:
            self._answers.pop(request, None)
        self._ended.clear()

    def _gather(self) -> None:
        for output in self._touched.values():
            delta = output.take()
            if delta is not None:
                self._frame.append(delta)
        self._touched.clear()

    def _event(self, event: CoreEvent, now: float) -> None:
        if isinstance(event, Tokens):
            self._tokens(event, now)
        elif isinstance(event, ChoiceFinished):
            self._finished(event, now)
        elif isinstance(event, Started):
            self._started(event, now)
        elif isinstance(event, PrefillProgress):
            self._prefill(event)
        elif isinstance(event, PromptLogprobs):
            self._prompt_logprobs(event)
        else:
            self._failed(event)

    def _started(self, event: Started, now: float) -> None:
        answer = self._answers.get(event.key)
        if answer is None:
            return
        answer.started = now
        self._frame.append(ipc.Started(event.key))
        if not answer.logprobs_first:
            self._echo(event.key, answer)

    def _echo(self, request: str, answer: Answer) -> None:
        if answer.echo:
            self._frame.extend(ipc.Delta(request, choice, content=answer.echo) for choice in range(answer.n))

    def _prefill(self, event: PrefillProgress) -> None:
        answer = self._answers.get(event.key)
        if answer is not None:
            answer.cached_tokens = event.cached
            self._frame.append(ipc.Prefill(event.key, event.done, event.total))

    def _prompt_logprobs(self, event: PromptLogprobs) -> None:
        answer = self._answers.get(event.key)
        if answer is None or not any(answer.outputs):
            return
        table, nothing = answer.plan.table, TokenLogprobs(math.nan, [], [])
        pairs = zip(event.token_ids, event.logprobs, strict=True)
        entries = [wire_logprob(table, token, nothing if logprob is None else logprob) for token, logprob in pairs]
        self._frame.append(ipc.PromptLogprobs(event.key, entries))
        if answer.logprobs_first:
            self._echo(event.key, answer)

    def _tokens(self, event: Tokens, now: float) -> None:
        logprobs: list[TokenLogprobs | None] | list[None] = event.logprobs or [None] * len(event.rows)
        for row, token, logprob in zip(event.rows, event.token_ids, logprobs, strict=True):
            answer = self._answers.get(row.key)
            output = answer.outputs[row.choice] if answer is not None else None
            if answer is None or output is None:
                continue
            if answer.first_token is None:
                answer.first_token = now
            self._touched[id(output)] = output
            try:
                output.feed(token, logprob)
                if output.over:
                    self._cancel(row.key, row.choice)
                    self._end(row.key, answer, row.choice, "stop", now)
            except Exception as error:
                self._defect(row.key, error)

    def _finished(self, event: ChoiceFinished, now: float) -> None:
        answer = self._answers.get(event.key)
        if answer is None or answer.outputs[event.choice] is None:
            return
        try:
            self._end(event.key, answer, event.choice, event.reason, now)
        except Exception as error:
            self._defect(event.key, error)

    def _end(self, request: str, answer: Answer, choice: int, reason: ipc.FinishReason, now: float) -> None:
        output = answer.outputs[choice]
        if output is None:
            return
        reason = output.finish(reason)
        self._touched[id(output)] = output
        self._gather()
        usage = ipc.Usage(
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=output.completion_tokens,
            cached_tokens=answer.cached_tokens,
            reasoning_tokens=output.reasoning_tokens,
        )
        self._frame.append(
            ipc.Finished(
                request,
                reason,
                choice=choice,
                stop_sequence=output.stopped,
                usage=usage,
                timings=answer.timings(now),
            )
        )
        answer.outputs[choice] = None
        if not any(answer.outputs):
            self._ended.append(request)

    def _failed(self, event: RequestFailed) -> None:
        answer = self._answers.get(event.key)
        if answer is None or not any(answer.outputs):
            return
        self._drop(event.key, answer)
        self._frame.append(ipc.Failed(event.key, event.code, event.message, event.param))

    def _defect(self, request: str, error: Exception) -> None:
        """Type and place are told, not the message, which may hold a part of the answer."""
        log.error("the text of a request failed: %s\n%s", type(error).__name__, "".join(format_tb(error.__traceback__)))
        self._cancel(request, None)
        self._drop(request, self._answers[request])
        self._frame.append(ipc.Failed(request, "internal_error", f"the answer's text failed: {type(error).__name__}"))

    def _drop(self, request: str, answer: Answer) -> None:
        self._gather()
        answer.outputs = [None] * answer.n
        self._ended.append(request)
