"""Separates reasoning from the answer in a text that arrives in pieces, without ever letting a marker out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, Protocol

Kind = Literal["content", "reasoning"]


class Piece(NamedTuple):
    """Text of one kind that is final."""

    kind: Kind
    text: str


class Call(NamedTuple):
    """A whole tool call; ``arguments`` is the JSON text as the parser gives it."""

    id: str
    name: str
    arguments: str


Part = Piece | Call


class Splitter(Protocol):
    """The state of one choice. ``thinking`` is true while the text that comes is reasoning."""

    thinking: bool

    def feed(self, text: str) -> list[Part]: ...

    def finish(self) -> list[Part]: ...


def held_length(text: str, markers: Iterable[str]) -> int:
    """How many characters at the end of ``text`` may yet become one of ``markers``."""
    longest = 0
    for marker in markers:
        for size in range(min(len(marker) - 1, len(text)), longest, -1):
            if marker.startswith(text[-size:]):
                longest = size
                break
    return longest


def find_first(text: str, markers: Sequence[str]) -> tuple[int, str] | None:
    """The marker that begins first; of two that begin together the longer one."""
    found: tuple[int, str] | None = None
    for marker in markers:
        at = text.find(marker)
        if at >= 0 and (found is None or (at, -len(marker)) < (found[0], -len(found[1]))):
            found = (at, marker)
    return found


class Plain:
    """Everything is content."""

    thinking = False

    def feed(self, text: str) -> list[Part]:
        return [Piece("content", text)] if text else []

    def finish(self) -> list[Part]:
        return []


class Tags:
    """Reasoning between a start and an end marker. ``opened`` says the prompt ended inside the reasoning.

    White space around the reasoning belongs to the format and goes: before and after the markers, inside and outside.
    An end marker without a start is dropped too.
    """

    def __init__(self, start: str, end: str, *, opened: bool = False) -> None:
        self._markers = (start, end)
        self._start = start
        self.thinking = opened
        self._buffer = ""
        self._space = ""
        self._fresh = True
        self._thought = opened

    def feed(self, text: str) -> list[Part]:
        self._buffer += text
        parts: list[Part] = []
        while (found := find_first(self._buffer, self._markers)) is not None:
            at, marker = found
            self._emit(self._buffer[:at], parts)
            self._buffer = self._buffer[at + len(marker) :]
            self._switch(marker == self._start)
        cut = len(self._buffer) - held_length(self._buffer, self._markers)
        self._emit(self._buffer[:cut], parts)
        self._buffer = self._buffer[cut:]
        return parts

    def finish(self) -> list[Part]:
        parts: list[Part] = []
        self._emit(self._buffer, parts)
        self._buffer = ""
        if self._space and not self._fresh:
            parts.append(Piece(self._kind, self._space))
        elif self._space and not self._thought:
            parts.append(Piece("content", self._space))
        self._space = ""
        return parts

    @property
    def _kind(self) -> Kind:
        return "reasoning" if self.thinking else "content"

    def _switch(self, thinking: bool) -> None:
        self.thinking = thinking
        self._thought = self._thought or thinking
        self._space = ""
        self._fresh = True

    def _emit(self, text: str, parts: list[Part]) -> None:
        """Hold back white space at the end, which may stand before a marker; drop it at the beginning."""
        text = self._space + text
        body = text.rstrip()
        self._space = text[len(body) :]
        if not body:
            return
        if self._fresh and self._thought:
            body = body.lstrip()
        self._fresh = False
        parts.append(Piece(self._kind, body))
