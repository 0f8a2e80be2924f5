"""The conversation of a chat request, and its normal form for the worker.

Normal form: ``role`` is system, user, assistant or tool; ``content`` is a string or None; several text parts are
joined by a line feed; ``tool_calls`` keep their arguments as JSON text; ``reasoning_content`` is kept for templates
that show a model its earlier thoughts.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import orjson
from pydantic import Field

from inference.protocols.validation import WireModel, refuse

_NOT_YET = {
    "image_url": "images",
    "input_audio": "audio",
    "video_url": "video",
    "file": "files",
}


class ContentPart(WireModel):
    """One part of a message; ``text`` and ``refusal`` are read."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: Any = None
    input_audio: Any = None
    file: Any = None


class CalledFunction(WireModel):
    """``arguments`` is JSON text; an object is accepted and written as text."""

    name: str = Field(min_length=1)
    arguments: str | dict[str, Any] = ""


class ToolCall(WireModel):
    id: str = Field(min_length=1)
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = None


class Message(WireModel):
    """One turn. ``content`` may be null where the role allows it (assistant, tool)."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[ContentPart], Field(fail_fast=True)] | None = None
    name: str | None = None
    tool_calls: Annotated[list[ToolCall], Field(fail_fast=True)] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    annotations: Any = None
    audio: Any = None
    function_call: Any = None


def normalised(messages: list[Message]) -> list[dict[str, Any]]:
    """The messages in normal form; ``InvalidRequest`` for what no role allows."""
    return [_normal(message, f"messages[{position}]") for position, message in enumerate(messages)]


def _normal(message: Message, path: str) -> dict[str, Any]:
    for name in ("audio", "function_call"):
        if getattr(message, name) is not None:
            raise refuse(f"{path}.{name}", "is not supported; use tool_calls and text", code="unsupported_parameter")
    role = "system" if message.role == "developer" else message.role
    found: dict[str, Any] = {"role": role, "content": _content(message, path)}
    if message.name is not None:
        found["name"] = message.name
    if role == "assistant":
        found |= _assistant_extras(message)
    elif message.tool_calls:
        raise refuse(f"{path}.tool_calls", f"is only allowed in an assistant message, not in a {role} message")
    if role == "tool":
        if not message.tool_call_id:
            raise refuse(f"{path}.tool_call_id", "is required in a tool message", code="missing_required_parameter")
        found["tool_call_id"] = message.tool_call_id
    return found


def _content(message: Message, path: str) -> str | None:
    content = message.content
    if content is None:
        if message.role in ("assistant", "tool"):
            return message.refusal if message.refusal else None if message.tool_calls else ""
        raise refuse(f"{path}.content", "must be a string or an array of parts", code="invalid_type")
    if isinstance(content, str):
        return content
    return "\n".join(_part(part, f"{path}.content[{index}]") for index, part in enumerate(content))


def _part(part: ContentPart, path: str) -> str:
    if part.type in _NOT_YET:
        what = _NOT_YET[part.type]
        raise refuse(f"{path}.type", f"is {part.type!r}: this server takes no {what} yet", code="unsupported_content")
    if part.type not in ("text", "refusal"):
        raise refuse(f"{path}.type", f"must be 'text', not {part.type[:40]!r}")
    text = part.text if part.type == "text" else part.refusal
    if text is None:
        raise refuse(f"{path}.{part.type}", "is required", code="missing_required_parameter")
    return text


def _assistant_extras(message: Message) -> dict[str, Any]:
    extras: dict[str, Any] = {}
    thoughts = message.reasoning_content if message.reasoning_content is not None else message.reasoning
    if thoughts:
        extras["reasoning_content"] = thoughts
    if message.tool_calls:
        extras["tool_calls"] = [_tool_call(call) for call in message.tool_calls]
    return extras


def _tool_call(call: ToolCall) -> dict[str, Any]:
    arguments = call.function.arguments
    text = arguments if isinstance(arguments, str) else orjson.dumps(arguments).decode()
    return {"id": call.id, "type": "function", "function": {"name": call.function.name, "arguments": text}}
