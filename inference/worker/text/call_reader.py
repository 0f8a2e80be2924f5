"""What the machines that read tool calls share: a text that arrives in pieces, and where the calls go.

A machine is a generator: it reads from a ``Reader`` and yields when it needs more text than there is. It decides only
on what it has read, never on where a piece ended, so that the same text gives the same calls however it is cut.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
Steps = Generator[None, None, T]

MAX_NAME = 256
"""Characters of a function's or a parameter's name; more than that is no call."""


class NotACall(Exception):
    """What comes is no call, or no longer one."""


class NotStreamable(NotACall):
    """It may well be a call, but one that can only be read as a whole."""


class TextEnded(NotACall):
    """The answer ended in the middle."""


class Sink(Protocol):
    """Takes what was read, in order. Every character of the answer is in one ``text`` or counted by one ``skip``."""

    def text(self, text: str) -> None: ...

    def skip(self, length: int) -> None: ...

    def call_start(self, identity: str, name: str) -> None: ...

    def call_arguments(self, text: str) -> None: ...

    def call_end(self) -> None: ...


class Reader:
    """``text[at:]`` is what was not read yet. ``mark`` is the place to which one may want to return, if any.

    ``base`` is the place of ``text[0]`` in the whole answer.
    """

    def __init__(self) -> None:
        self.text = ""
        self.at = 0
        self.base = 0
        self.mark: int | None = None
        self.ended = False

    def push(self, text: str) -> None:
        keep = self.at if self.mark is None else self.mark
        self.text = self.text[keep:] + text
        self.at -= keep
        self.base += keep
        if self.mark is not None:
            self.mark = 0

    @property
    def place(self) -> int:
        """Where the reader stands in the whole answer."""
        return self.base + self.at

    def more(self) -> Steps[None]:
        """Wait for the next piece. Raises ``TextEnded`` when there is none."""
        if self.ended:
            raise TextEnded
        yield

    def peek(self) -> Steps[str]:
        while self.at >= len(self.text):
            yield from self.more()
        return self.text[self.at]

    def space(self) -> Steps[None]:
        """Go past white space."""
        while (yield from self.peek()).isspace():
            self.at += 1

    def expect(self, character: str) -> Steps[None]:
        if (yield from self.peek()) != character:
            raise NotACall
        self.at += 1

    def choose(self, options: Iterable[str]) -> Steps[str]:
        """Which of ``options`` comes next, the longest one; it is read. "" for none of them."""
        ordered = sorted(options, key=len, reverse=True)
        while True:
            rest = self.text[self.at : self.at + len(ordered[0])]
            unfinished = any(len(option) > len(rest) and option.startswith(rest) for option in ordered)
            found = next((option for option in ordered if rest.startswith(option)), "")
            if found and (self.ended or not unfinished):
                self.at += len(found)
                return found
            if not unfinished:
                return ""
            yield from self.more()

    def until(self, markers: Iterable[str], limit: int = MAX_NAME) -> Steps[tuple[str, str]]:
        """The text up to the first of ``markers``, and that marker, both read. Raises ``NotACall`` beyond ``limit``."""
        markers = tuple(markers)
        while True:
            found = [(at, marker) for marker in markers if (at := self.text.find(marker, self.at)) >= 0]
            if found:
                at, marker = min(found)
                text = self.text[self.at : at]
                if len(text) > limit:
                    raise NotACall
                self.at = at + len(marker)
                return text, marker
            if len(self.text) - self.at > limit + max(map(len, markers)):
                raise NotACall
            yield from self.more()


class Calls:
    """Passes calls on. ``known`` are the functions of which a call without marker counts, ``schemas`` the JSON Schemas
    of the arguments by function.

    What was read cannot be taken back once a call has begun: the reader's mark goes, and comes back after its end.
    """

    def __init__(
        self,
        sink: Sink,
        reader: Reader,
        known: Collection[str],
        schemas: Mapping[str, Mapping[str, Any]],
        new_identity: Callable[[], str],
    ) -> None:
        self._sink = sink
        self._reader = reader
        self._new_identity = new_identity
        self.known = known
        self.schemas = schemas
        self.open = False
        self.made = 0

    def start(self, name: str) -> None:
        self.open = True
        self.made += 1
        self._reader.mark = None
        self._sink.call_start(self._new_identity(), name)

    def add(self, text: str) -> None:
        if text:
            self._sink.call_arguments(text)

    def end(self) -> None:
        self.open = False
        self._reader.mark = self._reader.at
        self._sink.call_end()
