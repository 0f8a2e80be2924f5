"""From the tokens of one choice to its deltas: text, then tool calls, then reasoning, then stop strings.

A tool call counts wherever it begins, also within the reasoning, and no marker counts within its arguments. Stop
strings are looked for in the content only: not in the reasoning, which OpenAI does not show, and not inside a tool
call. ``completion_tokens`` counts every token decoded up to the one that ended the answer, that one included, whether
it is an end-of-answer token or the token that completed a stop string; this is vLLM's habit. The list of logprobs
leaves out end-of-answer tokens (but see ``OutputPlan.scored``) and tokens that lie within a stop string, a tool call or
the reasoning, so that its texts make the content. ``reasoning_tokens`` counts the tokens that are reasoning at least in
part, its markers too.

The first fragment of a call has its id and name and comes as soon as these are certain, the others pieces of the
arguments. Text that stop strings hold back comes out before a call. With ``parallel_calls`` false the answer is over
when the first call is complete.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from inference import ipc
from inference.worker.core.types import TokenLogprobs
from inference.worker.text.call_gate import Parse, ToolGate
from inference.worker.text.detok import TokenTable
from inference.worker.text.logprobs import LogprobEntries, wire_logprob
from inference.worker.text.split import Call, CallArguments, CallStart, Part, Piece, Plain, Splitter, Tags
from inference.worker.text.stops import StopStrings
from inference.worker.text.tools import JSON_LINES, Forced, Syntax, call_id


@dataclass(frozen=True)
class OutputPlan:
    """What the choices of one request share. ``eos`` are the tokens that end the answer and give no text.

    Without ``syntax`` no tool calls are looked for. ``known_tools`` are the functions of which a call without marker
    counts; ``schemas`` the JSON Schemas of the arguments, by which parameters that are not JSON get their types.
    ``continues`` keeps the space before the first word.

    ``forced`` says that a grammar makes the answer consist of calls: ``native`` in the model's own syntax, ``json``
    as objects ``{"name": ..., "arguments": {...}}``, one a line, without markers. ``named`` is a forced call of one
    named function, which ends with the reason ``stop``, as OpenAI has it. ``either`` says that a grammar makes the
    content calls or something else, but not both: what looks like a marker within a described text is text.

    ``scored``: the prompt is given with its log probabilities. Whoever scores prompts takes the last entry of the list
    for the one token that was made, so an end-of-answer token has its entry too.
    """

    request: str
    table: TokenTable
    eos: frozenset[int] = frozenset()
    stops: StopStrings = field(default_factory=lambda: StopStrings([]))
    splitter: Callable[[], Splitter] = Plain
    syntax: Syntax | None = None
    parse: Parse | None = None
    known_tools: frozenset[str] = frozenset()
    schemas: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    parallel_calls: bool = True
    visible: frozenset[int] = frozenset()
    continues: bool = False
    forced: Forced = ""
    named: bool = False
    either: bool = False
    scored: bool = False


class ChoiceOutput:
    """The state of one choice. ``feed`` each token, ``take`` once per step, ``finish`` at the end."""

    def __init__(self, plan: OutputPlan, choice: int) -> None:
        self._plan = plan
        self._choice = choice
        self._detokenizer = plan.table.detokenizer(continues=plan.continues, visible=plan.visible)
        self._splitter = plan.splitter()
        self._stop = plan.stops.matcher()
        self._gate = self._tool_gate()
        self._plain = self._gate is None and isinstance(self._splitter, Plain)
        self._delta: ipc.Delta | None = None
        self._entries: LogprobEntries | None = None
        self._content_in = 0
        self._content_out = 0
        self._ends: list[int] = []
        self._length = 0
        self.completion_tokens = 0
        self.reasoning_tokens = 0
        self.calls = 0
        self._complete = False

    def _tool_gate(self) -> ToolGate | None:
        plan, splitter = self._plan, self._splitter
        syntax = JSON_LINES if plan.forced == "json" else plan.syntax
        if syntax is None:
            return None
        tags, thinking = (splitter.markers, splitter.thinking) if isinstance(splitter, Tags) else (None, False)
        parse = plan.parse or _no_calls
        return ToolGate(
            syntax,
            parse,
            self,
            plan.known_tools,
            plan.schemas,
            tags=tags,
            thinking=thinking,
            either=plan.either,
            only_calls=bool(plan.forced),
        )

    @property
    def stopped(self) -> str | None:
        """The stop string that was found; after it nothing may be fed."""
        return self._stop.matched

    @property
    def over(self) -> bool:
        """The answer is over before its end: by a stop string, or because it may have one call only."""
        return self._complete or self._stop.matched is not None

    def feed(self, token: int, logprobs: TokenLogprobs | None = None) -> None:
        delta = self._open_delta()
        delta.token_ids.append(token)
        self.completion_tokens += 1
        ends = token in self._plan.eos
        if ends and not self._plan.scored:
            return
        text = "" if ends else self._detokenizer.add(token)
        if logprobs is not None:
            entry = wire_logprob(self._plan.table, token, logprobs)
            if self._entries is None:
                self._entries = LogprobEntries()
            self._entries.add(self._length, self._length + len(text), entry)
        self._length += len(text)
        if not self._plain:
            self._ends.append(self._length)
            self._text(text)
        elif text:
            self._say_content(text)
        if self._entries is not None:
            self._release_logprobs(self._length if self._plain else self._splitter.decided)

    def take(self) -> ipc.Delta | None:
        """What was gained since the last call."""
        delta, self._delta = self._delta, None
        return delta

    def finish(self, reason: ipc.FinishReason) -> ipc.FinishReason:
        """Let out what was held back; ``take`` once more after it. Returns the reason as clients know it.

        An answer that somebody ended is ``cancelled``, whatever is found in what was held back.
        """
        if not self.over:
            self._text(self._detokenizer.finish())
            if self._gate is not None:
                self._gate.finish()
            self._parts(self._splitter.finish())
        if self.stopped is None:
            self._content_gained(self._stop.flush())
        self._release_logprobs(sys.maxsize if not self.over else self._splitter.decided)
        self.reasoning_tokens = self._splitter.sections.touched(self._ends)
        if reason == "cancelled":
            return reason
        if self.stopped is not None:
            reason = "stop"
        return "tool_calls" if reason == "stop" and self.calls and not self._plan.named else reason

    def _open_delta(self) -> ipc.Delta:
        if self._delta is None:
            self._delta = ipc.Delta(request=self._plan.request, choice=self._choice)
        return self._delta

    def _text(self, text: str) -> None:
        if not text:
            return
        if self._gate is not None:
            self._gate.feed(text)
        else:
            self.text(text)

    def text(self, text: str) -> None:
        self._parts(self._splitter.feed(text))

    def skip(self, length: int) -> None:
        self._parts(self._splitter.skip(length))

    def call_start(self, identity: str, name: str) -> None:
        if not self.over:
            self._content_gained(self._stop.flush())
            fragment = ipc.ToolFragment(index=self.calls, id=identity, name=name)
            self._open_delta().tools.append(fragment)
            self.calls += 1

    def call_arguments(self, text: str) -> None:
        if self.over:
            return
        tools = self._open_delta().tools
        if tools and tools[-1].index == self.calls - 1:
            tools[-1].arguments += text
        else:
            tools.append(ipc.ToolFragment(index=self.calls - 1, arguments=text))

    def call_end(self) -> None:
        self._complete = not self._plan.parallel_calls

    def _parts(self, parts: list[Part]) -> None:
        for part in parts:
            if isinstance(part, Piece):
                self._piece(part)
            elif isinstance(part, CallStart):
                self.call_start(call_id(), part.name)
            elif isinstance(part, CallArguments):
                self.call_arguments(part.text)
            else:
                self.call_end()

    def _piece(self, piece: Piece) -> None:
        if self._complete:
            return
        if piece.kind == "reasoning":
            self._open_delta().reasoning += piece.text
        else:
            self._say_content(piece.text)

    def _say_content(self, text: str) -> None:
        if self.stopped is None:
            self._content_in += len(text)
            self._content_gained(self._stop.feed(text))

    def _content_gained(self, text: str) -> None:
        if text:
            self._content_out += len(text)
            self._open_delta().content += text

    def _release_logprobs(self, decided: int) -> None:
        if self._entries is None:
            return
        nothing_held = self.stopped is None and self._content_out == self._content_in
        out = self._entries.release(self._splitter.apart, decided, sys.maxsize if nothing_held else self._content_out)
        if out:
            self._open_delta().logprobs.extend(out)


def _no_calls(_text: str) -> list[Call]:
    return []
