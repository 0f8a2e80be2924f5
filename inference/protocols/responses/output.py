"""Items that a model writes, each open while it grows: what is told of it at its begin, its growth and its end.

An event is its type and its fields; the wording numbers it. The frame of a piece of text begins with the same bytes
each time (``head``), made once per item.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Literal

import orjson

from inference.ipc import TokenLogprob
from inference.protocols.openai.words import finite
from inference.protocols.responses.items import Item, item_id, sealed

Event = tuple[str, dict[str, Any]]
Status = Literal["in_progress", "completed", "incomplete"]


class OpenItem(ABC):
    """An item with a text that comes in pieces. ``kind`` is the item's type, ``delta`` its event's."""

    kind = ""
    delta = ""

    def __init__(self, response_id: str, index: int) -> None:
        self.id = item_id(self.kind, response_id, "o", index)
        self.index = index
        self._pieces: list[str] = []
        fields = {"type": self.delta, "item_id": self.id, "output_index": index} | self._place()
        self.head = b"event: " + self.delta.encode() + b"\ndata: " + orjson.dumps(fields)[:-1] + b',"sequence_number":'

    @property
    def text(self) -> str:
        if len(self._pieces) > 1:
            self._pieces[:] = ["".join(self._pieces)]
        return self._pieces[0] if self._pieces else ""

    def add(self, piece: str) -> None:
        self._pieces.append(piece)

    @abstractmethod
    def opening(self) -> list[Event]:
        """What is told when the item begins."""

    @abstractmethod
    def closing(self, status: Status) -> list[Event]:
        """What is told at its end: the item is whole, or was cut off."""

    @abstractmethod
    def as_item(self, status: Status) -> Item:
        """The item as it is now."""

    def _place(self) -> dict[str, Any]:
        return {"content_index": 0}

    def _at(self, **fields: Any) -> dict[str, Any]:
        return {"item_id": self.id, "output_index": self.index, **self._place(), **fields}

    def _added(self, **changed: Any) -> Event:
        return "response.output_item.added", {
            "output_index": self.index,
            "item": self.as_item("in_progress") | changed,
        }

    def _done(self, status: Status) -> Event:
        return "response.output_item.done", {"output_index": self.index, "item": self.as_item(status)}


class MessageItem(OpenItem):
    """The answer's text. ``logprobs`` None: they were not asked for."""

    kind = "message"
    delta = "response.output_text.delta"

    def __init__(self, response_id: str, index: int) -> None:
        super().__init__(response_id, index)
        self.logprobs: list[TokenLogprob] = []

    def opening(self) -> list[Event]:
        return [self._added(content=[]), ("response.content_part.added", self._at(part=self._part()))]

    def closing(self, status: Status) -> list[Event]:
        logprobs = shown_logprobs(self.logprobs, whole=False)
        return [
            ("response.output_text.done", self._at(text=self.text, logprobs=logprobs)),
            ("response.content_part.done", self._at(part=self._part())),
            self._done(status),
        ]

    def as_item(self, status: Status) -> Item:
        return {"id": self.id, "type": "message", "status": status, "role": "assistant", "content": [self._part()]}

    def _part(self) -> Item:
        logprobs = shown_logprobs(self.logprobs, whole=True)
        return {"type": "output_text", "text": self.text, "annotations": [], "logprobs": logprobs}


class ReasoningItem(OpenItem):
    """What the model thought, whole; ``seal`` adds it in the form that clients hand back without reading it."""

    kind = "reasoning"
    delta = "response.reasoning_text.delta"

    def __init__(self, response_id: str, index: int, *, seal: bool) -> None:
        super().__init__(response_id, index)
        self._seal = seal

    def opening(self) -> list[Event]:
        return [self._added(content=[]), ("response.content_part.added", self._at(part=self._part()))]

    def closing(self, status: Status) -> list[Event]:
        return [
            ("response.reasoning_text.done", self._at(text=self.text)),
            ("response.content_part.done", self._at(part=self._part())),
            self._done(status),
        ]

    def as_item(self, status: Status) -> Item:
        item = {"id": self.id, "type": "reasoning", "status": status, "summary": [], "content": [self._part()]}
        if self._seal and status != "in_progress":
            item["encrypted_content"] = sealed(self.text)
        return item

    def _part(self) -> Item:
        return {"type": "reasoning_text", "text": self.text}


class CallItem(OpenItem):
    """A call of one of the client's functions."""

    kind = "function_call"
    delta = "response.function_call_arguments.delta"

    def __init__(self, response_id: str, index: int, call_id: str, name: str) -> None:
        super().__init__(response_id, index)
        self._call_id = call_id or f"call_{self.id.partition('_')[2]}"
        self._name = name

    def opening(self) -> list[Event]:
        return [self._added()]

    def closing(self, status: Status) -> list[Event]:
        return [("response.function_call_arguments.done", self._at(arguments=self.text)), self._done(status)]

    def as_item(self, status: Status) -> Item:
        return {
            "id": self.id,
            "type": "function_call",
            "status": status,
            "call_id": self._call_id,
            "name": self._name,
            "arguments": self.text,
        }

    def _place(self) -> dict[str, Any]:
        return {}


def shown_logprobs(tokens: list[TokenLogprob], *, whole: bool) -> list[dict[str, Any]]:
    """Log probabilities; events leave out the bytes, which the item has (``whole``)."""
    return [_entry(token, whole) | {"top_logprobs": [_entry(top, whole) for top in token.top]} for token in tokens]


def _entry(token: Any, whole: bool) -> dict[str, Any]:
    entry = {"token": token.text, "logprob": finite(token.logprob)}
    return entry | {"bytes": list(token.raw)} if whole else entry
