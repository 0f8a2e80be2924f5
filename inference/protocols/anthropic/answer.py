"""An answer as content blocks: one rule for the stream and for the whole, so that both have the same blocks.

A block begins where the kind of what the model says changes. White space alone begins no text and no thought: models
put it between their thoughts, their text and their calls, and clients may not send such a block back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic_core import from_json

from inference.ipc import Delta, ToolFragment
from inference.protocols.answer import Answer

Kind = Literal["thinking", "text", "tool_use"]


@dataclass(frozen=True, slots=True)
class Piece:
    """What a block gains; ``begins`` where it is the block's first. ``id`` and ``name`` are a call's."""

    kind: Kind
    text: str
    begins: bool
    id: str = ""
    name: str = ""


class Cutter:
    """Cuts the deltas of one answer, in order, into pieces of blocks."""

    def __init__(self) -> None:
        self._kind: Kind | None = None
        self._call = -1
        self._held_kind: Kind | None = None
        self._held: list[str] = []

    def pieces(self, delta: Delta) -> Iterator[Piece]:
        if delta.reasoning:
            yield from self._said("thinking", delta.reasoning)
        if delta.content:
            yield from self._said("text", delta.content)
        for fragment in delta.tools:
            yield self._called(fragment)

    def _said(self, kind: Kind, text: str) -> Iterator[Piece]:
        if kind == self._kind:
            yield Piece(kind, text, begins=False)
            return
        if kind != self._held_kind:
            self._hold_nothing(kind)
        self._held.append(text)
        if text.strip():
            text = "".join(self._held)
            self._kind = kind
            self._hold_nothing()
            yield Piece(kind, text, begins=True)

    def _called(self, fragment: ToolFragment) -> Piece:
        begins = self._kind != "tool_use" or fragment.index != self._call
        self._kind, self._call = "tool_use", fragment.index
        self._hold_nothing()
        id = "toolu_" + (fragment.id or "").removeprefix("call_")
        return Piece("tool_use", fragment.arguments, begins, id, fragment.name or "")

    def _hold_nothing(self, kind: Kind | None = None) -> None:
        self._held_kind = kind
        self._held.clear()


@dataclass(slots=True)
class Part:
    """One whole block."""

    kind: Kind
    id: str = ""
    name: str = ""
    texts: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.texts)


class BlockAnswer(Answer):
    """The one choice of an answer that is not streamed, as blocks."""

    def __init__(self, n: int) -> None:
        super().__init__(n)
        self.parts: list[Part] = []
        self._cutter = Cutter()

    def add(self, delta: Delta) -> None:
        for piece in self._cutter.pieces(delta):
            if piece.begins:
                self.parts.append(Part(piece.kind, piece.id, piece.name))
            self.parts[-1].texts.append(piece.text)


def tool_input(arguments: str) -> dict[str, Any]:
    """The arguments of a call as an object. Of a call that was cut off: the members that are complete."""
    try:
        found = from_json(arguments or "{}", allow_partial=True)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
