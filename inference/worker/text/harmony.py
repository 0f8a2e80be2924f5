"""The channels of gpt-oss ("harmony"): analysis is reasoning, final is the answer, commentary to a tool is a call.

A message is ``<|channel|>NAME [to=RECIPIENT] [<|constrain|>TYPE]<|message|>BODY`` and ends at ``<|end|>``,
``<|call|>``, ``<|return|>`` or the next message. The prompt ends with ``<|start|>assistant``; the recipient may stand
right after it, before the channel. The arguments of a call come out while they are decoded, as far as they are the
beginning of a JSON object; a body that does not begin as one is text, and so is what follows the object, if it is more
than white space.
"""

from __future__ import annotations

import re
from typing import Literal

from inference.worker.text.json_scan import JsonScanner
from inference.worker.text.split import (
    CallArguments,
    CallEnd,
    CallStart,
    Kind,
    Part,
    Piece,
    Sections,
    find_first,
    held_length,
)

MARKERS = ("<|start|>", "<|channel|>", "<|constrain|>", "<|message|>", "<|end|>", "<|call|>", "<|return|>")
_RECIPIENT = re.compile(r"to=(?:functions\.)?([^\s<]+)")
_ROLE = re.compile(r"\s*(t(o(=\S*\s*)?)?)?")
_MAX_ROLE = 512
"""Characters up to which the beginning of an answer may yet be a recipient."""
_CLOSERS = ("<|end|>", "<|call|>", "<|return|>", "<|start|>", "<|channel|>")

_Where = Literal["opening", "role", "header", "body", "call", "after"]


class Channels:
    """The state of one choice. ``tools`` says whether a message to a tool is a call; else its text is content."""

    def __init__(self, *, tools: bool) -> None:
        self._tools = tools
        self.thinking = False
        self.sections = Sections()
        self.apart = Sections()
        self._buffer = ""
        self._place = 0
        self._where: _Where = "opening"
        self._role = ""
        self._header = ""
        self._header_at = 0
        self._call = ""
        self._lead = ""
        self._scanner: JsonScanner | None = None
        self._kind: Kind = "content"

    def feed(self, text: str) -> list[Part]:
        self._buffer += text
        parts: list[Part] = []
        while (found := find_first(self._buffer, MARKERS)) is not None:
            at, marker = found
            self._take(at, parts)
            self._buffer = self._buffer[len(marker) :]
            self._marker(marker, parts)
            self._place += len(marker)
        self._take(len(self._buffer) - held_length(self._buffer, MARKERS), parts)
        return parts

    def skip(self, length: int) -> list[Part]:
        self._place += length
        return []

    def finish(self) -> list[Part]:
        """The end of the answer closes a call as ``<|call|>`` does, which is an end-of-answer token and not text."""
        parts: list[Part] = []
        self._take(len(self._buffer), parts)
        if self._where == "opening":
            self._say(self._role, parts)
        self._close(parts)
        self.sections.end(self._place)
        return parts

    def _take(self, length: int, parts: list[Part]) -> None:
        text, self._buffer = self._buffer[:length], self._buffer[length:]
        self._place += length
        if text:
            self._text(text, parts)

    @property
    def decided(self) -> int:
        return self._place - (len(self._role) if self._where == "opening" else len(self._lead))

    def _text(self, text: str, parts: list[Part]) -> None:
        if self._where == "header":
            self._header += text
        elif self._where == "role":
            self._role += text
        elif self._where == "opening":
            self._opening(text, parts)
        elif self._where == "call":
            self._arguments(text, parts)
        elif self._where == "after":
            self._after(text, parts)
        else:
            self._say(text, parts)

    def _opening(self, text: str, parts: list[Part]) -> None:
        """What comes first may name the recipient; if it does not, it is content."""
        self._role += text
        if len(self._role) > _MAX_ROLE or _ROLE.fullmatch(self._role) is None:
            self._where = "body"
            text, self._role = self._role, ""
            self._say(text, parts)

    def _say(self, text: str, parts: list[Part]) -> None:
        if text:
            if not self.thinking:
                self.apart.end(self._place - len(text))
            parts.append(Piece(self._kind, text))

    def _arguments(self, text: str, parts: list[Part]) -> None:
        if self._scanner is None:
            body = text.lstrip()
            if not body:
                self._lead += text
                return
            if body[0] != "{":
                self._where, text, self._lead = "body", self._lead + text, ""
                self._say(text, parts)
                return
            self._lead = ""
            self._scanner, text = JsonScanner(), body
            parts.append(CallStart(self._call))
        at, valid = self._scanner.take(text, 0)
        if valid:
            parts.append(CallArguments(valid))
        if self._scanner.done or self._scanner.failed:
            parts.append(CallEnd())
            self._where, self._scanner, self._lead = "after", None, ""
            self._after(text[at:], parts)

    def _after(self, text: str, parts: list[Part]) -> None:
        """White space between the arguments and the end of the message says nothing."""
        self._lead += text
        if text and not text.isspace():
            self._where, text, self._lead = "body", self._lead, ""
            self._say(text, parts)

    def _marker(self, marker: str, parts: list[Part]) -> None:
        """``_place`` is where the marker begins."""
        self.apart.begin(self.decided)
        if marker in _CLOSERS:
            self._close(parts)
            self.sections.end(self._place + (len(marker) if marker in _CLOSERS[:3] else 0))
        if marker == "<|start|>":
            self._where, self._role = "role", ""
        elif marker == "<|channel|>":
            self._where, self._header, self._header_at = "header", "", self._place
        elif marker == "<|constrain|>":
            self._header += " " if self._where == "header" else ""
        elif marker == "<|message|>":
            self._open()

    def _open(self) -> None:
        recipient = _RECIPIENT.search(self._header) or _RECIPIENT.search(self._role)
        called = recipient is not None and self._tools
        self._call = recipient[1] if recipient is not None and called else ""
        self._where = "call" if called else "body"
        self._lead, self._role = "", ""
        self.thinking = self._header.startswith("analysis") and not called
        self._kind = "reasoning" if self.thinking else "content"
        if self.thinking:
            self.sections.begin(self._header_at)

    def _close(self, parts: list[Part]) -> None:
        if self._where == "call":
            if self._scanner is None:
                parts.extend((CallStart(self._call), CallArguments("{}")))
            parts.append(CallEnd())
        self._where, self._scanner, self._lead, self._header = "body", None, "", ""
        self._kind, self.thinking = "content", False
