"""Gathers what a ``ToolGate`` or a splitter says, and every way of cutting a text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from hypothesis import strategies as st

from inference.worker.text.call_gate import ToolGate
from inference.worker.text.split import CallArguments, CallEnd, CallStart, Part, Piece, Splitter
from inference.worker.text.tools import SYNTAXES, Syntax
from inference.worker.vllm_compat.parsers import parse_calls

TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string"},
                    "days": {"type": "integer"},
                    "exact": {"type": "boolean"},
                    "where": {"type": "object"},
                    "tags": {"type": "array"},
                },
            },
        },
    },
    {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}},
]
SCHEMAS: dict[str, dict[str, Any]] = {tool["function"]["name"]: tool["function"]["parameters"] for tool in TOOLS}


class Heard:
    """A sink. ``calls`` are pairs of name and arguments as far as they came; ``places`` counts what was skipped too."""

    def __init__(self) -> None:
        self.said = ""
        self.places = 0
        self.calls: list[tuple[str, str]] = []
        self.open = False

    def text(self, text: str) -> None:
        assert text
        self.said += text
        self.places += len(text)

    def skip(self, length: int) -> None:
        assert length > 0
        self.places += length

    def call_start(self, identity: str, name: str) -> None:
        assert not self.open
        assert identity
        self.open = True
        self.calls.append((name, ""))

    def call_arguments(self, text: str) -> None:
        assert self.open
        name, arguments = self.calls[-1]
        self.calls[-1] = name, arguments + text

    def call_end(self) -> None:
        assert self.open
        self.open = False

    def answer(self) -> tuple[str, list[tuple[str, str]]]:
        return self.said, self.calls


def gate(parser: str | Syntax, heard: Heard, known: Iterable[str] = SCHEMAS, **options: Any) -> ToolGate:
    syntax = SYNTAXES[parser] if isinstance(parser, str) else parser
    name = parser if isinstance(parser, str) else "hermes"
    return ToolGate(syntax, lambda text: parse_calls(name, text, TOOLS), heard, set(known), SCHEMAS, **options)


def hear(parser: str | Syntax, pieces: Iterable[str], known: Iterable[str] = SCHEMAS, **options: Any) -> Heard:
    """What comes of ``pieces``; every character of them is accounted for."""
    heard, length = Heard(), 0
    made = gate(parser, heard, known, **options)
    for piece in pieces:
        made.feed(piece)
        length += len(piece)
    made.finish()
    assert not heard.open
    assert heard.places == length
    return heard


def run_splitter(splitter: Splitter, pieces: Iterable[str]) -> tuple[str, str, list[tuple[str, str]]]:
    """Content, reasoning and calls."""
    parts: list[Part] = [part for piece in pieces for part in splitter.feed(piece)] + splitter.finish()
    texts = {"content": "", "reasoning": ""}
    calls: list[tuple[str, str]] = []
    for part in parts:
        if isinstance(part, Piece):
            texts[part.kind] += part.text
        elif isinstance(part, CallStart):
            calls.append((part.name, ""))
        elif isinstance(part, CallArguments):
            calls[-1] = calls[-1][0], calls[-1][1] + part.text
        else:
            assert isinstance(part, CallEnd)
    return texts["content"], texts["reasoning"], calls


def in_two(text: str) -> Iterator[list[str]]:
    """Every way of cutting ``text`` once."""
    for at in range(len(text) + 1):
        yield [text[:at], text[at:]]


def cuts(text: str) -> st.SearchStrategy[list[str]]:
    """Ways of cutting ``text`` into any number of pieces."""
    places = st.lists(st.integers(0, len(text)), unique=True, max_size=40).map(sorted)
    return places.map(lambda at: [text[a:b] for a, b in zip([0, *at], [*at, len(text)], strict=True)])
