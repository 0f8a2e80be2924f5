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
    """``arguments`` is text, whether or not it is JSON: it is history, which no client can change any more. An object
    is accepted and written as text."""

    name: str = Field(min_length=1)
    arguments: str | dict[str, Any] | None = None


class ToolCall(WireModel):
    id: str | None = None
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = None


class Message(WireModel):
    """One turn. ``content`` may be null where the role allows it (assistant, tool).

    ``function_call`` and the role ``function`` are how calls and results were written before tools.
    """

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | Annotated[list[ContentPart], Field(fail_fast=True)] | None = None
    name: str | None = None
    tool_calls: Annotated[list[ToolCall], Field(fail_fast=True)] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    annotations: Any = None
    audio: Any = None
    function_call: CalledFunction | None = None


def normalised(messages: list[Message]) -> list[dict[str, Any]]:
    """The messages in normal form; ``InvalidRequest`` for what no role allows."""
    found: list[dict[str, Any]] = []
    legacy: dict[str, str] = {}  # a function's name to the id that its last call was given
    for position, message in enumerate(messages):
        found.append(_normal(message, position, legacy))
    return found


def _normal(message: Message, position: int, legacy: dict[str, str]) -> dict[str, Any]:
    path = f"messages[{position}]"
    if message.audio is not None:
        raise refuse(f"{path}.audio", "is not supported; use text", code="unsupported_content")
    role = {"developer": "system", "function": "tool"}.get(message.role, message.role)
    found: dict[str, Any] = {"role": role, "content": _content(message, path)}
    if message.name is not None:
        found["name"] = message.name
    if role == "assistant":
        found |= _assistant_extras(message, position, legacy)
    else:
        for name in ("tool_calls", "function_call"):
            if getattr(message, name):
                raise refuse(f"{path}.{name}", f"is only allowed in an assistant message, not in a {role} message")
    if role == "tool":
        found["tool_call_id"] = _answered(message, path, legacy)
    return found


def _answered(message: Message, path: str, legacy: dict[str, str]) -> str:
    """The id of the call that a tool's message answers."""
    if message.role == "function":
        if not message.name:
            raise refuse(f"{path}.name", "is required in a function message", code="missing_required_parameter")
        return message.tool_call_id or legacy.get(message.name, f"call_{message.name}")
    if not message.tool_call_id:
        raise refuse(f"{path}.tool_call_id", "is required in a tool message", code="missing_required_parameter")
    return message.tool_call_id


def _content(message: Message, path: str) -> str | None:
    content = message.content
    if content is None:
        if message.role in ("assistant", "tool", "function"):
            calls = message.tool_calls or message.function_call
            return message.refusal if message.refusal else None if calls else ""
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


def _assistant_extras(message: Message, position: int, legacy: dict[str, str]) -> dict[str, Any]:
    extras: dict[str, Any] = {}
    thoughts = message.reasoning_content if message.reasoning_content is not None else message.reasoning
    if thoughts:
        extras["reasoning_content"] = thoughts
    calls = [
        _call(call.function, call.id or f"call_{position}_{number}")
        for number, call in enumerate(message.tool_calls or [])
    ]
    if message.function_call is not None:
        name = message.function_call.name
        legacy[name] = f"call_{position}"
        calls.append(_call(message.function_call, legacy[name]))
    if calls:
        extras["tool_calls"] = calls
    return extras


def _call(function: CalledFunction, id: str) -> dict[str, Any]:
    arguments = function.arguments
    text = orjson.dumps(arguments).decode() if isinstance(arguments, dict) else arguments or ""
    return {"id": id, "type": "function", "function": {"name": function.name, "arguments": text}}
