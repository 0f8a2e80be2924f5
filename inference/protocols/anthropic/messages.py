"""The conversation of a request in the normal form that workers read.

Turns of one role in a row are one. A user's tool results become a message each, in their order, before the user's own
text; an assistant's thoughts become ``reasoning_content``, its tool uses ``tool_calls``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby
from typing import Annotated, Any, Literal

import orjson
from pydantic import Field

from inference.protocols.anthropic.blocks import (
    Block,
    Content,
    Placed,
    blocks_of,
    joined,
    misplaced,
    needed,
    text_of,
)
from inference.protocols.validation import WireModel, refuse

NOT_A_PROMPT = "x-anthropic-billing-header:"
"""How a system block begins that tells Anthropic who pays. It differs from request to request, so a model that was
shown it would read all that follows anew each time."""


class Turn(WireModel):
    role: Literal["user", "assistant", "system"]
    content: Content


Turns = Annotated[list[Turn], Field(fail_fast=True)]
Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Conversation:
    """``continues`` tells that the answer goes on with the last message, the assistant's."""

    messages: list[Message]
    continues: bool


def conversation(system: Content | None, turns: Turns) -> Conversation:
    """All messages; ``InvalidRequest`` names the block that cannot be."""
    placed = [(turn, f"messages[{position}]") for position, turn in enumerate(turns)]
    if placed and _is_blank(placed[-1][0]):  # an answer that has not begun
        placed.pop()
    if not any(turn.role == "user" for turn, _ in placed):
        raise refuse("messages", "must have a message of the user's")
    messages: list[Message] = []
    if system is not None and (text := _system(system, "system")):
        messages.append({"role": "system", "content": text})
    for role, group in groupby(placed, key=lambda one: one[0].role):
        contents = [(turn.content, f"{path}.content") for turn, path in group]
        messages += _WRITERS[role](contents)
    return Conversation(messages, _continues(messages, placed[-1][1]))


def forget_thoughts(messages: list[Message], keep: int) -> None:
    """Leave the thoughts of the last ``keep`` thinking turns only."""
    thinking = [message for message in messages if "reasoning_content" in message]
    for message in thinking[: max(0, len(thinking) - keep)]:
        del message["reasoning_content"]


def _is_blank(turn: Turn) -> bool:
    return turn.role == "assistant" and not turn.content


def _system(content: Content, path: str) -> str:
    texts: list[str] = []
    for block, place in blocks_of(content, path):
        if block.type != "text":
            raise misplaced(block, place)
        text = needed(block.text, f"{place}.text")
        if text and not text.startswith(NOT_A_PROMPT):
            texts.append(text)
    return "\n\n".join(texts)


def _late_system(contents: list[tuple[Content, str]]) -> list[Message]:
    return [{"role": "system", "content": "\n\n".join(_system(content, path) for content, path in contents)}]


# --------------------------------------------------------------------------------------------------------------- user


def _user(contents: list[tuple[Content, str]]) -> list[Message]:
    results: list[Message] = []
    texts: list[str] = []
    for content, path in contents:
        if not content:
            raise refuse(path, "must not be empty")
        for block, place in blocks_of(content, path):
            if block.type == "tool_result":
                results.append(_result(block, place))
            else:
                texts.append(text_of(block, place))
    told = [text for text in texts if text]
    if told or not results:
        results.append({"role": "user", "content": "\n".join(told)})
    return results


def _result(block: Block, path: str) -> Message:
    identity = needed(block.tool_use_id, f"{path}.tool_use_id")
    text = joined(block.content or "", f"{path}.content")
    if block.is_error and "error" not in text[:40].lower():  # templates have no other place for it
        text = f"Error: {text}" if text else "Error"
    return {"role": "tool", "tool_call_id": identity, "content": text}


# ---------------------------------------------------------------------------------------------------------- assistant


@dataclass(slots=True)
class _Said:
    """One assistant message in the making. ``texts`` of the same answer follow each other as they were written."""

    texts: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)

    def add(self, block: Block, path: str) -> None:
        if block.type == "thinking":
            self.thoughts.append(needed(block.thinking, f"{path}.thinking"))
        elif block.type == "tool_use":
            self.calls.append(_call(block, path))
        elif block.type == "text":
            self.texts.append(text_of(block, path))
        elif block.type != "redacted_thinking":
            raise misplaced(block, path)


def _assistant(contents: list[tuple[Content, str]]) -> list[Message]:
    said = [_said(blocks_of(content, path)) for content, path in contents]
    message: Message = {
        "role": "assistant",
        "content": "\n".join(text for one in said if (text := "".join(one.texts))),
    }
    if thoughts := [thought for one in said for thought in one.thoughts if thought]:
        message["reasoning_content"] = "\n".join(thoughts)
    if calls := [call for one in said for call in one.calls]:
        message["tool_calls"] = calls
    return [message]


def _said(blocks: list[Placed]) -> _Said:
    found = _Said()
    for block, path in blocks:
        found.add(block, path)
    return found


def _call(block: Block, path: str) -> dict[str, Any]:
    function = {
        "name": needed(block.name, f"{path}.name"),
        "arguments": orjson.dumps(block.input or {}).decode(),
    }
    return {"id": needed(block.id, f"{path}.id"), "type": "function", "function": function}


_WRITERS = {"user": _user, "assistant": _assistant, "system": _late_system}


def _continues(messages: list[Message], path: str) -> bool:
    last = messages[-1]
    if last["role"] != "assistant":
        return False
    if last.get("tool_calls"):
        raise refuse(path, "ends with a tool_use; a message of the user's with its tool_result must follow")
    if not last["content"]:
        raise refuse(path, "has no text to go on with")
    if last["content"] != last["content"].rstrip():
        raise refuse(path, "is a final assistant message, which must not end with white space")
    return True
