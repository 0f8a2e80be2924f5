"""Takes tool calls out of a text that arrives in pieces, with vllm-mlx's parsers and our own hold-back.

Only the parsers' ``extract_tool_calls`` is used, on whole blocks: their streaming halves give parts of markers out as
text (see ``vllm_compat.parsers``). From the first character that may begin a marker nothing is let out; a block in
which the parser finds no call becomes text again, so that nothing a model says is lost.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

from inference.worker.text.split import Call, find_first, held_length

Parse = Callable[[str], list[Call]]


@dataclass(frozen=True)
class Syntax:
    """How one family writes calls. ``blocks`` maps each start marker to its end marker, "" for the end of the text.

    ``inner`` are further special tokens that a parser must see inside a block.
    """

    blocks: dict[str, str]
    inner: tuple[str, ...] = ()

    @property
    def markers(self) -> tuple[str, ...]:
        return (*self.blocks, *(end for end in self.blocks.values() if end), *self.inner)


_TAG = {"<tool_call>": "</tool_call>"}
_FUNCTION = {"<function=": "</function>"}
_KIMI = {
    "<|tool_calls_section_begin|>": "<|tool_calls_section_end|>",
    "<|tool_call_section_begin|>": "<|tool_call_section_end|>",
}
_DEEPSEEK = {"<｜tool▁calls▁begin｜>": "<｜tool▁calls▁end｜>"}
_DSML = {"<｜DSML｜tool_calls>": "</｜DSML｜tool_calls>"}
_MINIMAX = {"<minimax:tool_call>": "</minimax:tool_call>"}
_GEMMA = {"<|tool_call>": "<tool_call|>"}
_MISTRAL = {"[TOOL_CALLS]": ""}
_BRACKET = {"[Calling tool:": ")]"}

SYNTAXES: dict[str, Syntax] = {
    "hermes": Syntax(_TAG),
    "qwen": Syntax(_TAG | _FUNCTION | _BRACKET),
    "qwen3_xml": Syntax(_TAG | _FUNCTION),
    "nemotron": Syntax(_TAG),
    "step3p5": Syntax(_TAG | _FUNCTION),
    "glm47": Syntax(_TAG),
    "poolside_v1": Syntax(_TAG),
    "mistral": Syntax(_MISTRAL, ("[ARGS]", "[CALL_ID]")),
    "llama": Syntax({"<|python_tag|>": ""} | _FUNCTION),
    "deepseek": Syntax(_DEEPSEEK, ("<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>")),
    "deepseek_v4": Syntax(_DSML),
    "kimi": Syntax(_KIMI, ("<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>")),
    "granite": Syntax({"<|tool_call|>": ""}),
    "gemma4": Syntax(_GEMMA, ('<|"|>',)),
    "minimax": Syntax(_MINIMAX),
    "functionary": Syntax({"<|from|>": "", "<|recipient|>": ""} | _FUNCTION, ("<|content|>",)),
    "xlam": Syntax(_MISTRAL),
    "harmony": Syntax({}),
    "auto": Syntax(_TAG | _FUNCTION | _BRACKET | _GEMMA | _DSML | _MISTRAL, ('<|"|>',)),
}

_BARE_STARTS = tuple(
    f'{before}{{"{key}":' for before in ("", "[") for key in ("name", "type", "function", "arguments", "parameters")
)
MAX_LAST_LOOK = 65_536
"""Characters up to which a whole answer is looked through once more for calls without their markers."""

_QUOTES = re.compile(r'(?<!\\)(?:\\\\)*"')
_BARE_LONGEST = max(map(len, _BARE_STARTS))


def may_be_bare_call(text: str) -> bool:
    """True while ``text`` begins like a call written as JSON with no marker around it."""
    compact = re.sub(r"\s+", "", text[: 8 * _BARE_LONGEST])[:_BARE_LONGEST]
    return any(start.startswith(compact) or compact.startswith(start) for start in _BARE_STARTS)


def _inside_string(block: str) -> bool:
    """True if ``block`` ends within a JSON string: an end marker there is part of an argument."""
    at = block.find("{")
    return at >= 0 and len(_QUOTES.findall(block, at)) % 2 == 1


class ToolGate:
    """The state of one choice. ``known`` are the names of the request's tools.

    A call without its marker counts only when it names one of them; a marked one counts always, for the client to
    see what the model wanted.
    """

    def __init__(self, syntax: Syntax, parse: Parse, known: Collection[str]) -> None:
        self._syntax = syntax
        self._starts = tuple(syntax.blocks)
        self._parse = parse
        self._known = frozenset(known)
        self._buffer = ""
        self._end: str | None = None
        self._bare: bool | None = None
        self._said = ""
        self._gap = ""
        self._called = False

    def feed(self, text: str) -> list[str | Call]:
        self._buffer += text
        parts: list[str | Call] = []
        while self._step(parts):
            pass
        return parts

    def finish(self) -> list[str | Call]:
        """The rest, and a last look at everything that was said when no call was found."""
        parts: list[str | Call] = []
        rest, self._buffer = self._buffer, ""
        if self._end is not None:
            self._block(rest, parts)
        elif self._bare:
            self._bare_call(rest, parts)
        elif rest and not (self._called and rest.isspace()):
            self._say(rest, parts)
        if not self._called and 0 < len(self._said) <= MAX_LAST_LOOK:
            parts.extend(self._known_calls(self._said))
        return parts

    def _step(self, parts: list[str | Call]) -> bool:
        """Move one block, or one stretch of text, from the buffer to ``parts``; False when more text is needed."""
        if self._end is not None:
            return self._close(parts)
        if self._bare is None or self._bare:
            self._bare = may_be_bare_call(self._buffer) if self._buffer.strip() else self._bare
            if self._bare is not False:
                return False
        found = find_first(self._buffer, self._starts)
        if found is not None:
            before, self._buffer = self._buffer[: found[0]], self._buffer[found[0] :]
            body = before.rstrip()
            self._gap = before[len(body) :]
            self._say(body, parts)
            self._end = self._syntax.blocks[found[1]]
            return True
        body = self._buffer[: len(self._buffer) - held_length(self._buffer, self._starts)].rstrip()
        self._buffer = self._buffer[len(body) :]
        self._say(body, parts)
        return False

    def _close(self, parts: list[str | Call]) -> bool:
        if not self._end:
            return False
        at = self._buffer.find(self._end)
        while at >= 0 and _inside_string(self._buffer[:at]):
            at = self._buffer.find(self._end, at + 1)
        if at < 0:
            return False
        at += len(self._end)
        block, self._buffer, self._end = self._buffer[:at], self._buffer[at:], None
        self._block(block, parts)
        return True

    def _block(self, block: str, parts: list[str | Call]) -> None:
        calls = self._parse(block)
        if calls:
            self._called = True
            parts.extend(calls)
        else:
            self._say(self._gap + block, parts)

    def _bare_call(self, text: str, parts: list[str | Call]) -> None:
        calls = self._known_calls(text)
        if calls:
            self._called = True
            parts.extend(calls)
        else:
            self._say(text, parts)

    def _known_calls(self, text: str) -> list[Call]:
        calls = self._parse(text)
        return calls if all(call.name in self._known for call in calls) else []

    def _say(self, text: str, parts: list[str | Call]) -> None:
        if text:
            self._said += text
            parts.append(text)
