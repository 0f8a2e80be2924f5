"""From the tokens of one choice to its deltas: text, then reasoning and tool calls, then stop strings.

Stop strings are looked for in the content only: not in the reasoning, which OpenAI does not show, and not inside a
tool call. ``completion_tokens`` counts every token decoded up to the one that ended the answer, that one included,
whether it is an end-of-answer token or the token that completed a stop string; this is vLLM's habit. The list of
logprobs leaves out end-of-answer tokens and tokens that lie within a stop string, so that its texts make the content.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from inference import ipc
from inference.worker.core.types import TokenLogprobs
from inference.worker.text.detok import TokenTable
from inference.worker.text.split import Call, Kind, Piece, Plain, Splitter
from inference.worker.text.stops import StopStrings
from inference.worker.text.tools import Parse, Syntax, ToolGate

Forced = Literal["", "native", "json"]


@dataclass(frozen=True)
class OutputPlan:
    """What the choices of one request share. ``eos`` are the tokens that end the answer and give no text.

    Without ``syntax`` no tool calls are looked for. ``continues`` keeps the space before the first word.

    ``forced`` says that a grammar makes the answer consist of calls: ``native`` in the model's own syntax, ``json``
    as objects ``{"name": ..., "arguments": {...}}``, one a line, without markers. ``named`` is a forced call of one
    named function, which ends with the reason ``stop``, as OpenAI has it.
    """

    request: str
    table: TokenTable
    eos: frozenset[int] = frozenset()
    stops: StopStrings = field(default_factory=lambda: StopStrings([]))
    splitter: Callable[[], Splitter] = Plain
    syntax: Syntax | None = None
    parse: Parse | None = None
    known_tools: frozenset[str] = frozenset()
    parallel_calls: bool = True
    visible: frozenset[int] = frozenset()
    continues: bool = False
    forced: Forced = ""
    named: bool = False


class ChoiceOutput:
    """The state of one choice. ``feed`` each token, ``take`` once per step, ``finish`` at the end."""

    def __init__(self, plan: OutputPlan, choice: int) -> None:
        self._plan = plan
        self._choice = choice
        self._detokenizer = plan.table.detokenizer(continues=plan.continues, visible=plan.visible)
        self._splitter = plan.splitter()
        self._stop = plan.stops.matcher()
        self._gates: dict[Kind, ToolGate] = {}
        if plan.syntax is not None and plan.parse is not None:
            for kind in ("content", "reasoning"):
                self._gates[kind] = ToolGate(plan.syntax, plan.parse, plan.known_tools)
        self._plain = not self._gates and isinstance(self._splitter, Plain)
        self._kind: Kind = "content"
        self._delta: ipc.Delta | None = None
        self._waiting: deque[tuple[int, ipc.TokenLogprob]] = deque()
        self._content_in = 0
        self._content_out = 0
        self.completion_tokens = 0
        self.reasoning_tokens = 0
        self.calls = 0

    @property
    def stopped(self) -> str | None:
        """The stop string that was found; after it nothing may be fed."""
        return self._stop.matched

    def feed(self, token: int, logprobs: TokenLogprobs | None = None) -> None:
        delta = self._open_delta()
        delta.token_ids.append(token)
        self.completion_tokens += 1
        if token in self._plan.eos:
            return
        if logprobs is not None:
            self._waiting.append((self._content_in, wire_logprob(self._plan.table, token, logprobs)))
        text = self._detokenizer.add(token)
        if self._plain:
            if text:
                self._say_content(text)
        else:
            thinking = self._splitter.thinking
            self._text(text)
            if thinking or self._splitter.thinking:
                self.reasoning_tokens += 1
        if self._waiting:
            self._release_logprobs()

    def take(self) -> ipc.Delta | None:
        """What was gained since the last call."""
        delta, self._delta = self._delta, None
        return delta

    def finish(self, reason: ipc.FinishReason) -> ipc.FinishReason:
        """Let out what was held back; ``take`` once more after it. Returns the reason as clients know it."""
        if self.stopped is None:
            self._text(self._detokenizer.finish())
            self._parts(self._splitter.finish())
            for kind in tuple(self._gates):
                self._finish_gate(kind)
            if self.stopped is None:
                self._content_gained(self._stop.flush())
        self._release_logprobs()
        if self.stopped is not None:
            reason = "stop"
        return "tool_calls" if reason == "stop" and self.calls else reason

    def _open_delta(self) -> ipc.Delta:
        if self._delta is None:
            self._delta = ipc.Delta(request=self._plan.request, choice=self._choice)
        return self._delta

    def _text(self, text: str) -> None:
        if text:
            self._parts(self._splitter.feed(text))

    def _parts(self, parts: list[Any]) -> None:
        for part in parts:
            if isinstance(part, Call):
                self._call(part)
                continue
            if part.kind != self._kind:
                if self._gates:
                    self._finish_gate(self._kind)
                self._kind = part.kind
            self._piece(part)

    def _piece(self, piece: Piece) -> None:
        gate = self._gates.get(piece.kind)
        if gate is None:
            self._say(piece.kind, piece.text)
        else:
            self._gated(piece.kind, gate.feed(piece.text))

    def _finish_gate(self, kind: Kind) -> None:
        self._gated(kind, self._gates[kind].finish())

    def _gated(self, kind: Kind, parts: list[str | Call]) -> None:
        for part in parts:
            if isinstance(part, Call):
                self._call(part)
            else:
                self._say(kind, part)

    def _say(self, kind: Kind, text: str) -> None:
        if kind == "reasoning":
            self._open_delta().reasoning += text
        else:
            self._say_content(text)

    def _say_content(self, text: str) -> None:
        if self.stopped is None:
            self._content_in += len(text)
            self._content_gained(self._stop.feed(text))

    def _content_gained(self, text: str) -> None:
        if text:
            self._content_out += len(text)
            self._open_delta().content += text

    def _call(self, call: Call) -> None:
        if self.stopped is not None or (self.calls and not self._plan.parallel_calls):
            return
        fragment = ipc.ToolFragment(index=self.calls, id=call.id, name=call.name, arguments=call.arguments)
        self._open_delta().tools.append(fragment)
        self.calls += 1

    def _release_logprobs(self) -> None:
        """Let out the entries of tokens whose text is out at least in part, and those that precede them."""
        nothing_held = self.stopped is None and self._content_out == self._content_in
        while self._waiting and (nothing_held or self._waiting[0][0] < self._content_out):
            self._open_delta().logprobs.append(self._waiting.popleft()[1])


def wire_logprob(table: TokenTable, token: int, logprobs: TokenLogprobs) -> ipc.TokenLogprob:
    """A token's log probabilities with the texts and bytes of the tokens."""
    raw = table.raw_of(token)
    top = []
    for index, logprob in zip(logprobs.top_ids, logprobs.top_logprobs, strict=True):
        bytes_ = table.raw_of(index)
        top.append(ipc.TopLogprob(index, bytes_.decode("utf-8", "replace"), bytes_, logprob))
    return ipc.TokenLogprob(token, raw.decode("utf-8", "replace"), raw, logprobs.logprob, top)
