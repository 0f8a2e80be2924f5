"""Items in stored form as the messages that a chat template reads.

What belongs to one turn of the assistant (its reasoning, text and calls, which are items apart) becomes one message.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from inference.protocols.responses.items import Item
from inference.protocols.validation import refuse

Message = dict[str, Any]


def as_messages(instructions: str | None, items: Iterable[Item]) -> list[Message]:
    """The conversation in the worker's normal form; ``InvalidRequest`` where an output answers no call."""
    turns = _Turns()
    if instructions is not None:
        turns.made.append({"role": "system", "content": instructions})
    for item in items:
        turns.add(item)
    turns.close()
    return turns.made


class _Turns:
    """Messages so far, and the assistant's turn that is still open."""

    def __init__(self) -> None:
        self.made: list[Message] = []
        self._open: Message | None = None
        self._calls: set[str] = set()

    def add(self, item: Item) -> None:
        match item["type"]:
            case "message" if item["role"] == "assistant":
                self._say(_joined(item["content"]))
            case "message":
                self.close()
                role = "user" if item["role"] == "user" else "system"
                self.made.append({"role": role, "content": _joined(item["content"])})
            case "reasoning":
                self._think(item)
            case "function_call":
                self._call(item)
            case "function_call_output":
                self._answer(item)

    def close(self) -> None:
        """End the assistant's turn."""
        if self._open is not None:
            self.made.append(self._open)
            self._open = None

    def _turn(self) -> Message:
        if self._open is None:
            self._open = {"role": "assistant", "content": ""}
        return self._open

    def _say(self, text: str) -> None:
        if self._open is not None and self._open["content"] and "tool_calls" not in self._open:
            self.close()
        turn = self._turn()
        turn["content"] = f"{turn['content']}\n{text}" if turn["content"] else text

    def _think(self, item: Item) -> None:
        text = "\n".join(part["text"] for part in item.get("content") or item["summary"])
        if not text:
            return
        if self._open is not None and self._open["content"] and "tool_calls" not in self._open:
            self.close()
        turn = self._turn()
        earlier = turn.get("reasoning_content")
        turn["reasoning_content"] = f"{earlier}\n{text}" if earlier else text

    def _call(self, item: Item) -> None:
        self._calls.add(item["call_id"])
        function = {"name": item["name"], "arguments": item["arguments"]}
        call = {"id": item["call_id"], "type": "function", "function": function}
        self._turn().setdefault("tool_calls", []).append(call)

    def _answer(self, item: Item) -> None:
        self.close()
        call_id = item["call_id"]
        if call_id not in self._calls:
            shown = call_id[:64]
            raise refuse("input", f"has the output of the call {shown!r}, but no function_call with that call_id")
        output = item["output"]
        text = output if isinstance(output, str) else _joined(output)
        self.made.append({"role": "tool", "tool_call_id": call_id, "content": text})


def _joined(parts: list[Item]) -> str:
    return "\n".join(part.get("text") or part.get("refusal") or "" for part in parts)
