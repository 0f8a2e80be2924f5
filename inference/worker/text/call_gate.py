"""Takes tool calls out of a text that arrives in pieces: name and arguments while they are decoded, no marker ever.

From the first character that may begin a marker nothing is let out. Behind a start marker one of our own machines
reads (``call_forms``), and the call begins to come out as soon as it is certain: its name and the beginning of its
arguments are read. What then becomes of a block that is no well-formed call:

- Before a call has begun: the whole block, up to its end marker, goes to vllm-mlx's parser, which knows more lapses and
  the syntaxes that have no machine; what it cannot read either is text. Within the reasoning, and where a family has
  no end marker, the marker is text at once, so that one that is only mentioned holds nothing back. Calls that can only
  be read as a whole (``NotStreamable``) are always given to the parser.
- After it has begun: the arguments stay what was decoded of them, the beginning of a JSON object. What follows, up to
  the end marker, is text, if it is more than white space; the end marker is dropped. So it is with what stands between
  the end of a well-formed call and its end marker.
- The answer ends before a call has begun: the block is text, and no parser is asked, which might take half a call for
  a whole one. After another call, or where nothing but calls could come, it is dropped.
- Where all markers are special tokens, none is text, whatever becomes of the block.
- The answer ends within a call: the arguments stay what was decoded; the reason says whether it was cut off. What was
  read of a marker, or of a further call of the same block, is dropped.

A call without any marker counts only where the family writes such, at the beginning of the answer, and when it names a
function of the request. An answer in which no call was found is looked through once more as a whole, by the parser.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Generator, Mapping
from typing import Any

from inference.worker.text import call_forms as forms
from inference.worker.text.call_reader import Calls, NotACall, NotStreamable, Reader, Sink, TextEnded
from inference.worker.text.split import Call, find_first, held_length
from inference.worker.text.tools import Block, Syntax, call_id, short_call_id

Parse = Callable[[str], list[Call]]

MAX_LAST_LOOK = 65_536
"""Characters up to which a whole answer is looked through once more for calls without their markers."""

_QUOTES = re.compile(r'(?<!\\)(?:\\\\)*"')


class _End:
    """Looks for the end marker of one block, from ``start`` on. One within a JSON string is part of an argument.

    Every character is looked at once, however often the block is asked for its end and however many markers it has.
    """

    def __init__(self, marker: str, start: int) -> None:
        self._marker = marker
        self._searched = start
        self._counted = 0
        self._object = False
        self._string = False

    def of(self, block: str) -> int:
        """Where the block ends, after its end marker; -1 if it does not yet."""
        if not self._marker:
            return -1
        at = block.find(self._marker, self._searched)
        while at >= 0 and self._inside_string(block, at):
            at = block.find(self._marker, at + 1)
        self._searched = max(self._searched, len(block) - len(self._marker) + 1)
        return at + len(self._marker) if at >= 0 else -1

    def _inside_string(self, block: str, at: int) -> bool:
        if not self._object:
            brace = block.find("{", self._counted, at)
            self._object = brace >= 0
            self._counted = brace if self._object else at
        if self._object:
            self._string ^= len(_QUOTES.findall(block, self._counted, at)) % 2 == 1
            self._counted = at
        return self._string


class ToolGate:
    """The state of one choice. ``known`` are the functions of which a call without marker counts; ``schemas`` the JSON
    Schemas of the arguments by function.

    ``tags`` are the markers of the reasoning, if any, which stay in the text; ``thinking`` says that the prompt ended
    within it. ``either`` says that the content is calls or text but not both, as a grammar makes it: after a word of
    text a marker is text. What is read goes to ``sink``.
    """

    def __init__(
        self,
        syntax: Syntax,
        parse: Parse,
        sink: Sink,
        known: Collection[str],
        schemas: Mapping[str, Mapping[str, Any]],
        *,
        tags: tuple[str, str] | None = None,
        thinking: bool = False,
        either: bool = False,
        only_calls: bool = False,
    ) -> None:
        self._syntax = syntax
        self._parse = parse
        self._sink = sink
        self._tags: tuple[str, ...] = tags or ()
        self._thinking = thinking
        self._either = either
        self._only_calls = only_calls
        self._worded = False
        self._reader = Reader()
        self._calls = Calls(
            sink, self._reader, frozenset(known), schemas, short_call_id if syntax.short_ids else call_id
        )
        self._fresh = syntax.bare is not None
        self._strays: tuple[str, ...] = ()
        # A grammar that describes the content may have one in a string.
        self._never = syntax.markers if syntax.special and not either else ()
        self._loose = tuple(marker for marker in self._never if marker not in syntax.blocks)
        self._parts = re.compile(f"({'|'.join(map(re.escape, self._never))})") if self._never else None
        self._cut_off = False
        self._told = 0
        self._blank = 0
        self._said: list[str] = []
        self._said_length = 0
        self._run = self._read()

    def feed(self, text: str) -> None:
        self._reader.push(text)
        next(self._run)

    def finish(self) -> None:
        """Let out the rest, and look at everything that was said once more when no call was found."""
        self._reader.ended = True
        next(self._run, None)
        reader = self._reader
        self._skip_to(reader.base + len(reader.text))
        if not (self._calls.made or self._cut_off or self._worded) and 0 < self._said_length <= MAX_LAST_LOOK:
            self._pass_on(self._known_calls("".join(self._said)))

    def _read(self) -> Generator[None, None, None]:
        while True:
            if self._fresh:
                yield from self._bare()
            marker = yield from self._text()
            if marker is None:
                return
            yield from self._block(marker, self._syntax.blocks[marker])

    def _text(self) -> Generator[None, None, str | None]:
        """Say what is text, up to a start marker, which is read then; None at the end of the answer.

        White space before a start marker belongs to the call; the reader's mark is before it.
        """
        reader = self._reader
        while True:
            starts = () if self._worded else self._syntax.blocks
            strays = (*self._strays, *self._loose)
            markers = (*starts, *self._tags, *strays)
            found = self._find(markers)
            if self._either and not self._thinking and self._says_word(found, markers):
                continue
            if found is None:
                if reader.ended:
                    self._last_words()
                    return None
                start = self._unread()
                rest = reader.text[start:]
                rest = rest[: len(rest) - held_length(rest, markers)]
                if rest and not rest.isspace():
                    self._say_to(start + len(rest.rstrip()))
                self._blank = reader.base + start + len(rest)
                yield
                continue
            at, marker = found
            if marker in self._tags:
                self._say_to(at + len(marker))
                self._thinking = marker == self._tags[0]
                self._fresh = not self._thinking and self._syntax.bare is not None
                if self._fresh:
                    yield from self._bare()
                continue
            self._say_to(reader.at + len(reader.text[reader.at : at].rstrip()))
            reader.mark = reader.at
            reader.at = at + len(marker)
            if marker not in strays:
                return marker
            reader.mark = None
            self._strays = () if marker in self._strays[:1] else self._strays

    def _says_word(self, found: tuple[int, str] | None, markers: tuple[str, ...]) -> bool:
        """True, the first time, if there is text before the marker that was found."""
        reader = self._reader
        rest = reader.text[self._unread() : found[0] if found is not None else None]
        certain = rest[: len(rest) - held_length(rest, markers)] if found is None and not reader.ended else rest
        if self._worded or not certain.strip():
            return False
        self._worded = True
        return True

    def _find(self, markers: tuple[str, ...]) -> tuple[int, str] | None:
        """The first marker, if it is certain that no longer one begins at the same place."""
        reader = self._reader
        start = self._unread()
        found = find_first(reader.text[start:], markers) if markers else None
        if found is None:
            return None
        at, marker = found[0] + start, found[1]
        rest = reader.text[at:]
        if not reader.ended and any(len(other) > len(rest) and other.startswith(rest) for other in markers):
            return None
        return at, marker

    def _unread(self) -> int:
        """Where text begins that was not looked at: the white space before it is held, and no marker begins there."""
        return max(self._reader.at, self._blank - self._reader.base)

    def _last_words(self) -> None:
        """What is left at the end: no white space after a call, no beginning of an end marker that was due."""
        reader = self._reader
        rest = reader.text[reader.at :]
        due = (*self._strays, *self._syntax.blocks) if self._only_calls and not self._thinking else self._strays
        rest = rest[: len(rest) - held_length(rest, due)]
        if not (self._calls.made and (not rest or rest.isspace())):
            self._say_to(reader.at + len(rest))

    def _bare(self) -> Generator[None, None, None]:
        """At the beginning of the answer, or of the content: a call without any marker."""
        self._fresh = False
        reader, bare = self._reader, self._syntax.bare
        if bare is None:
            return
        made, reader.mark = self._calls.made, reader.at
        try:
            yield from forms.several(bare)(reader, self._calls)
        except NotACall as refusal:
            if self._calls.made > made:
                self._rubbish(refusal)
            elif isinstance(refusal, NotStreamable):
                yield from self._whole("", "", known=True)
            elif not self._drops(refusal):
                self._back()
        reader.mark = None

    def _block(self, marker: str, block: Block) -> Generator[None, None, None]:
        """Read one block, of which the start marker was read."""
        reader, made = self._reader, self._calls.made
        self._strays = (block.end, *self._syntax.inner) if block.end else ()
        try:
            if block.machine is None:
                raise NotStreamable
            if (yield from block.machine(reader, self._calls)):
                self._strays = ()
        except NotACall as refusal:
            if self._calls.made > made:
                self._rubbish(refusal)
            else:
                self._strays = ()
                yield from self._refused(marker, block, refusal)
        reader.mark = None

    def _rubbish(self, refusal: NotACall) -> None:
        """What follows calls belongs to none: an open one ends, or the reader returns to where the last one ended."""
        if isinstance(refusal, TextEnded):
            self._reader.at = len(self._reader.text)
        elif not self._calls.open:
            self._back()
        if self._calls.open:
            self._calls.end()

    def _refused(self, marker: str, block: Block, refusal: NotACall) -> Generator[None, None, None]:
        """No call has begun in this block: the parser reads it as a whole, or its marker is text."""
        reader = self._reader
        ended = isinstance(refusal, TextEnded)
        self._cut_off = self._cut_off or ended
        if self._drops(refusal):
            return
        if isinstance(refusal, NotStreamable) or (block.end and not (ended or block.known or self._thinking)):
            yield from self._whole(marker, block.end, known=block.known)
        else:
            self._back()
            self._say_to(reader.text.index(marker, reader.at) + len(marker))

    def _drops(self, refusal: NotACall) -> bool:
        """Whether the answer ended before a call had begun that could be nothing else; it is dropped then."""
        if self._thinking or not isinstance(refusal, TextEnded) or not (self._calls.made or self._only_calls):
            return False
        self._reader.at = len(self._reader.text)
        return True

    def _back(self) -> None:
        """Return to the mark."""
        if self._reader.mark is not None:
            self._reader.at, self._reader.mark = self._reader.mark, None

    def _whole(self, marker: str, end: str, *, known: bool) -> Generator[None, None, None]:
        """Wait for the end of a block, and give it to the parser. The reader's mark is before it."""
        reader = self._reader
        self._back()
        reader.mark = reader.at
        block_end = _End(end, reader.text.index(marker, reader.at) + len(marker) - reader.at)
        while True:
            text = reader.text[reader.at :]
            stop = block_end.of(text)
            if stop >= 0 or reader.ended:
                break
            yield
        self._cut_off = self._cut_off or (bool(end) and stop < 0)
        stop = stop if stop >= 0 else len(text)
        calls = [] if self._cut_off else self._known_calls(text[:stop]) if known else self._parse(text[:stop])
        if calls:
            reader.at += stop
            self._pass_on(calls)
        else:
            self._say_to(reader.at + stop)

    def _known_calls(self, text: str) -> list[Call]:
        calls = self._parse(text)
        return calls if all(call.name in self._calls.known for call in calls) else []

    def _pass_on(self, calls: list[Call]) -> None:
        for call in calls:
            self._calls.start(call.name)
            self._calls.add(call.arguments)
            self._calls.end()

    def _say_to(self, at: int) -> None:
        """The text up to ``at`` is no call."""
        reader = self._reader
        text = reader.text[reader.at : at]
        if not text:
            return
        self._skip_to(reader.place)
        reader.at = at
        self._told = reader.place
        for piece in filter(None, self._parts.split(text) if self._parts else (text,)):
            if piece in self._never:
                self._sink.skip(len(piece))
                continue
            if not self._calls.made and self._said_length <= MAX_LAST_LOOK:
                self._said.append(piece)
                self._said_length += len(piece)
            self._sink.text(piece)

    def _skip_to(self, place: int) -> None:
        if place > self._told:
            self._sink.skip(place - self._told)
            self._told = place
