"""Separates reasoning from the answer in a text that arrives in pieces, without ever letting a marker out."""

from __future__ import annotations

from bisect import bisect_right
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


class CallStart(NamedTuple):
    """A call begins; its arguments follow as ``CallArguments``."""

    name: str


class CallArguments(NamedTuple):
    """The next piece of the JSON text of the arguments."""

    text: str


class CallEnd(NamedTuple):
    """No more of this call will come."""


Part = Piece | CallStart | CallArguments | CallEnd


class Sections:
    """Stretches of an answer, counted in characters. The last one may be open."""

    def __init__(self) -> None:
        self._closed: list[tuple[int, int]] = []
        self._start: int | None = None

    def begin(self, at: int) -> None:
        """One begins, if none is open."""
        if self._start is None:
            self._start = at

    def end(self, at: int) -> None:
        if self._start is not None:
            if at > self._start:
                self._closed.append((self._start, at))
            self._start = None

    def within(self, start: int, end: int) -> int:
        """How many of the characters from ``start`` to ``end`` lie in them."""
        inside = max(0, end - max(start, self._start)) if self._start is not None else 0
        for at in range(bisect_right(self._closed, start, key=_stop), len(self._closed)):
            begin, stop = self._closed[at]
            if begin >= end:
                break
            inside += min(end, stop) - max(start, begin)
        return inside

    def touched(self, ends: Sequence[int]) -> int:
        """How many tokens lie in them, at least in part. ``ends`` are the places where the tokens' texts end.

        A token without text of its own, such as the first of those that make one character, lies where it stands.
        """
        count = start = section = 0
        for end in ends:
            while section < len(self._closed) and self._closed[section][1] <= start:
                section += 1
            if section < len(self._closed):
                begin = self._closed[section][0]
                count += begin < end or begin == start
            start = end
        return count


def _stop(section: tuple[int, int]) -> int:
    return section[1]


class Splitter(Protocol):
    """The state of one choice. ``thinking`` is true while the text that comes is reasoning.

    ``sections`` are the reasoning with its markers, ``apart`` all that is not content; up to ``decided`` the latter is
    known.
    """

    thinking: bool
    sections: Sections
    apart: Sections

    @property
    def decided(self) -> int: ...

    def feed(self, text: str) -> list[Part]: ...

    def skip(self, length: int) -> list[Part]:
        """That many characters of the answer are a call, and come to no splitter."""
        ...

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

    def __init__(self) -> None:
        self.sections = Sections()
        self.apart = Sections()
        self.decided = 0

    def feed(self, text: str) -> list[Part]:
        self.decided += len(text)
        return [Piece("content", text)] if text else []

    def skip(self, length: int) -> list[Part]:
        self.apart.begin(self.decided)
        self.decided += length
        self.apart.end(self.decided)
        return []

    def finish(self) -> list[Part]:
        return []


class Tags:
    """Reasoning between a start and an end marker. ``opened`` says the prompt ended inside the reasoning.

    White space around the reasoning belongs to the format and goes: before and after the markers, inside and outside.
    An end marker without a start is dropped too. With ``once`` there is reasoning at the beginning only: in an answer
    whose text a grammar describes, a marker is a part of it.
    """

    def __init__(self, start: str, end: str, *, opened: bool = False, once: bool = False) -> None:
        self.markers = (start, end)
        self.thinking = opened
        self.sections = Sections()
        self.apart = Sections()
        if opened:
            self.sections.begin(0)
            self.apart.begin(0)
        self._once = once
        self._place = 0
        self._buffer = ""
        self._space = ""
        self._fresh = True
        self._thought = opened

    def feed(self, text: str) -> list[Part]:
        self._buffer += text
        parts: list[Part] = []
        while (found := find_first(self._buffer, self._live())) is not None:
            at, marker = found
            self._take(at, parts)
            if marker in self._live():
                self._switch(marker)
        self._take(len(self._buffer) - held_length(self._buffer, self._live()), parts)
        return parts

    def skip(self, length: int) -> list[Part]:
        parts: list[Part] = []
        self._take(len(self._buffer), parts)
        self._say_space(parts)
        self.sections.end(self._place)
        self.apart.begin(self._place)
        self._place += length
        if self.thinking:
            self.sections.begin(self._place)
        return parts

    def finish(self) -> list[Part]:
        parts: list[Part] = []
        self._take(len(self._buffer), parts)
        self._say_space(parts)
        self.sections.end(self._place)
        return parts

    @property
    def decided(self) -> int:
        return self._place - len(self._space)

    def _say_space(self, parts: list[Part]) -> None:
        """No marker follows on the white space that was held back."""
        if self._space and not (self._fresh and self._thought):
            self._say(self._space, self._place - len(self._space), parts)
        self._space = ""

    def _say(self, text: str, at: int, parts: list[Part]) -> None:
        if not self.thinking:
            self.apart.end(at)
        parts.append(Piece("reasoning" if self.thinking else "content", text))

    def _live(self) -> tuple[str, ...]:
        """The markers that still count."""
        return () if self._once and not self.thinking and not self._fresh else self.markers

    def _take(self, length: int, parts: list[Part]) -> None:
        """That much of the buffer is text."""
        text, self._buffer = self._buffer[:length], self._buffer[length:]
        self._place += length
        self._emit(text, parts)

    def _switch(self, marker: str) -> None:
        """Go past a marker, which the buffer begins with."""
        self._buffer = self._buffer[len(marker) :]
        self.apart.begin(self.decided)
        if marker == self.markers[0]:
            self.sections.begin(self._place)
        self._place += len(marker)
        self.thinking = marker == self.markers[0]
        if not self.thinking:
            self.sections.end(self._place)
        self._thought = self._thought or self.thinking
        self._space = ""
        self._fresh = True

    def _emit(self, text: str, parts: list[Part]) -> None:
        """Hold back white space at the end, which may stand before a marker; drop it at the beginning."""
        body = text.rstrip()
        if not body:
            self._space += text
            return
        body, text = self._space + body, self._space + text
        self._space = text[len(body) :]
        said = body.lstrip() if self._fresh and self._thought else body
        self._fresh = False
        self._say(said, self._place - len(text) + len(body) - len(said), parts)
