"""The channels of gpt-oss ("harmony"): analysis is reasoning, final is the answer, commentary to a tool is a call.

A message is ``<|channel|>NAME [to=RECIPIENT] [<|constrain|>TYPE]<|message|>BODY`` and ends at ``<|end|>``,
``<|call|>``, ``<|return|>`` or the next message. The prompt ends with ``<|start|>assistant``.
"""

from __future__ import annotations

import re
import uuid

from inference.worker.text.split import Call, Kind, Part, Piece, find_first, held_length

MARKERS = ("<|start|>", "<|channel|>", "<|constrain|>", "<|message|>", "<|end|>", "<|call|>", "<|return|>")
ANSWER_BEGINS = re.compile(r"<\|channel\|>final[^<]*(<\|constrain\|>[^<]*)?<\|message\|>$")
_RECIPIENT = re.compile(r"to=(?:functions\.)?([^\s<]+)")
_CLOSERS = ("<|end|>", "<|call|>", "<|return|>", "<|start|>", "<|channel|>")


class Channels:
    """The state of one choice. ``tools`` says whether a message to a tool is a call; else its text is content."""

    def __init__(self, *, tools: bool) -> None:
        self._tools = tools
        self.thinking = False
        self._buffer = ""
        self._header = ""
        self._in_header = False
        self._in_role = False
        self._call = ""
        self._arguments = ""
        self._kind: Kind = "content"

    def feed(self, text: str) -> list[Part]:
        self._buffer += text
        parts: list[Part] = []
        while (found := find_first(self._buffer, MARKERS)) is not None:
            at, marker = found
            self._text(self._buffer[:at], parts)
            self._buffer = self._buffer[at + len(marker) :]
            self._marker(marker, parts)
        cut = len(self._buffer) - held_length(self._buffer, MARKERS)
        self._text(self._buffer[:cut], parts)
        self._buffer = self._buffer[cut:]
        return parts

    def finish(self) -> list[Part]:
        """The end of the answer closes a call as ``<|call|>`` does, which is an end-of-answer token and not text."""
        parts: list[Part] = []
        self._text(self._buffer, parts)
        self._buffer = ""
        self._close(parts)
        return parts

    def _text(self, text: str, parts: list[Part]) -> None:
        if not text or self._in_role:
            return
        if self._in_header:
            self._header += text
        elif self._call:
            self._arguments += text
        else:
            parts.append(Piece(self._kind, text))

    def _marker(self, marker: str, parts: list[Part]) -> None:
        if marker in _CLOSERS:
            self._close(parts)
        if marker == "<|start|>":
            self._in_role = True
        elif marker == "<|channel|>":
            self._in_role, self._in_header, self._header = False, True, ""
        elif marker == "<|constrain|>":
            self._header += " " if self._in_header else ""
        elif marker == "<|message|>":
            self._open()

    def _open(self) -> None:
        self._in_role = self._in_header = False
        recipient = _RECIPIENT.search(self._header)
        if recipient is not None and self._tools:
            self._call, self._arguments = recipient[1], ""
        self._kind = "reasoning" if self._header.startswith("analysis") else "content"
        self.thinking = self._kind == "reasoning" and not self._call

    def _close(self, parts: list[Part]) -> None:
        if self._call:
            parts.append(Call(f"call_{uuid.uuid4().hex[:24]}", self._call, self._arguments.strip() or "{}"))
        self._call, self._kind, self.thinking = "", "content", False
        self._in_header = False
