"""Items that come in with a request, and their stored form, which every later request can be given again.

The stored form is what OpenAI's ``input_items`` lists: each item has an id, messages have parts, and nothing is left
that a client may leave out. The id of an item names its response: ``msg_<response>i0`` is the first that went into
``resp_<response>``, ``msg_<response>o0`` the first that came out of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from django.core import signing
from pydantic import Field

from inference.errors import InvalidRequest
from inference.protocols.validation import WireModel, refuse

_OF_RESPONSE = re.compile(r"[a-z]{2,3}_([0-9a-f]{32})[io][0-9]{1,6}")
_PREFIX = {"message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}
_MEDIA = {"input_image": "images", "input_file": "files", "input_audio": "audio"}
_SALT = "lmx.reasoning"

Item = dict[str, Any]
Value = TypeVar("Value")


class Part(WireModel):
    """One part of a message, of a tool's output or of reasoning."""

    type: str
    text: str | None = None
    refusal: str | None = None
    annotations: Any = None
    logprobs: Any = None
    detail: Any = None
    image_url: Any = None
    file_id: Any = None
    file_data: Any = None
    filename: Any = None
    file_url: Any = None
    input_audio: Any = None


Parts = Annotated[list[Part], Field(fail_fast=True)]


class InputItem(WireModel):
    """One item of ``input``: a message (``type`` may be left out), a call and its output, reasoning, a reference."""

    type: str | None = None
    id: str | None = Field(None, max_length=256)
    status: Any = None
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: str | Parts | None = None
    phase: Any = None
    call_id: str | None = Field(None, max_length=256)
    name: str | None = Field(None, max_length=256)
    namespace: Any = None
    caller: Any = None
    arguments: str | None = None
    output: str | Parts | None = None
    summary: Parts | None = None
    encrypted_content: str | None = None
    created_by: Any = None

    @property
    def kind(self) -> str:
        """The type, where it is left out by what else there is."""
        if self.type is not None:
            return self.type
        return "message" if self.role is not None else "item_reference" if self.id is not None else "message"


def references(items: str | list[InputItem] | None) -> list[str]:
    """Ids of stored items that the input refers to."""
    listed = items if isinstance(items, list) else []
    return [item.id for item in listed if item.kind == "item_reference" and item.id]


def response_of(item_id: str) -> str | None:
    """The id of the response whose item this is; None for ids that this server never gave."""
    found = _OF_RESPONSE.fullmatch(item_id)
    return f"resp_{found.group(1)}" if found else None


def item_id(kind: str, response_id: str, side: Literal["i", "o"], position: int) -> str:
    return f"{_PREFIX[kind]}_{response_id.removeprefix('resp_')}{side}{position}"


def stored_form(items: str | list[InputItem] | None, response_id: str, known: Mapping[str, Item]) -> list[Item]:
    """The input of ``response_id`` in stored form; ``known`` has the items that are referred to."""
    if isinstance(items, str):
        return [_message("user", [_input_text(items)]) | {"id": item_id("message", response_id, "i", 0)}]
    made: list[Item] = []
    seen: set[str] = set()
    for position, item in enumerate(items or []):
        if item.kind == "item_reference":
            one = known[_required(item.id, f"input[{position}].id")]
        else:
            one = _stored(item, f"input[{position}]")
            given = item.id if item.id and item.id not in seen else None
            one["id"] = given or item_id(one["type"], response_id, "i", position)
        seen.add(one["id"])
        made.append(one)
    return made


def sealed(text: str) -> str:
    """Reasoning as ``encrypted_content``: opaque to the client, and accepted back only unchanged."""
    return signing.dumps(text, salt=_SALT, compress=True)


def _stored(item: InputItem, path: str) -> Item:
    match item.kind:
        case "message":
            return _stored_message(item, path)
        case "function_call":
            return _stored_call(item, path)
        case "function_call_output":
            return _stored_output(item, path)
        case "reasoning":
            return _stored_reasoning(item, path)
    shown = item.kind[:40]
    message = f"is {shown!r}; this server knows {', '.join([*_PREFIX, 'item_reference'])}"
    raise refuse(f"{path}.type", message, code="unsupported_content")


def _stored_message(item: InputItem, path: str) -> Item:
    role = _required(item.role, f"{path}.role")
    make, content = _output_text if role == "assistant" else _input_text, item.content
    if content is None:
        raise _lacking(f"{path}.content")
    if isinstance(content, str):
        return _message(role, [make(content)])
    parts = [_text_of(part, f"{path}.content[{at}]") for at, part in enumerate(content)]
    return _message(role, [make(text) for text in parts])


def _message(role: str, content: list[Item]) -> Item:
    return {"type": "message", "role": role, "status": "completed", "content": content}


def _stored_call(item: InputItem, path: str) -> Item:
    return {
        "type": "function_call",
        "status": "completed",
        "call_id": _required(item.call_id, f"{path}.call_id"),
        "name": _required(item.name, f"{path}.name"),
        "arguments": _required(item.arguments, f"{path}.arguments"),
    }


def _stored_output(item: InputItem, path: str) -> Item:
    output = item.output
    if output is None:
        raise _lacking(f"{path}.output")
    shown = output if isinstance(output, str) else _output_parts(output, f"{path}.output")
    call_id = _required(item.call_id, f"{path}.call_id")
    return {"type": "function_call_output", "status": "completed", "call_id": call_id, "output": shown}


def _output_parts(parts: list[Part], path: str) -> list[Item]:
    return [_input_text(_text_of(part, f"{path}[{at}]")) for at, part in enumerate(parts)]


def _stored_reasoning(item: InputItem, path: str) -> Item:
    content = item.content or []
    texts = [content] if isinstance(content, str) else _thoughts(content, f"{path}.content")
    summary = _thoughts(item.summary or [], f"{path}.summary")
    if not texts and item.encrypted_content:
        texts = [_unsealed(item.encrypted_content, f"{path}.encrypted_content")]
    return {
        "type": "reasoning",
        "status": "completed",
        "summary": [{"type": "summary_text", "text": text} for text in summary],
        "content": [{"type": "reasoning_text", "text": text} for text in texts],
    }


def _thoughts(parts: list[Part], path: str) -> list[str]:
    return [_thought(part, f"{path}[{at}]") for at, part in enumerate(parts)]


def _unsealed(sealed_text: str, path: str) -> str:
    try:
        return str(signing.loads(sealed_text, salt=_SALT))
    except signing.BadSignature:
        raise refuse(path, "was not made by this server, or was changed", code="invalid_encrypted_content") from None


def _text_of(part: Part, path: str) -> str:
    if part.type in _MEDIA:
        what = _MEDIA[part.type]
        raise refuse(f"{path}.type", f"is {part.type!r}: this server takes no {what} yet", code="unsupported_content")
    if part.type not in ("input_text", "output_text", "text", "refusal"):
        raise refuse(f"{path}.type", f"must be 'input_text' or 'output_text', not {part.type[:40]!r}")
    name = "refusal" if part.type == "refusal" else "text"
    return _required(part.refusal if name == "refusal" else part.text, f"{path}.{name}")


def _thought(part: Part, path: str) -> str:
    if part.type not in ("reasoning_text", "summary_text"):
        raise refuse(f"{path}.type", f"must be 'reasoning_text' or 'summary_text', not {part.type[:40]!r}")
    return _required(part.text, f"{path}.text")


def _input_text(text: str) -> Item:
    return {"type": "input_text", "text": text}


def _output_text(text: str) -> Item:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _required(value: Value | None, path: str) -> Value:
    if value is None:
        raise _lacking(path)
    return value


def _lacking(path: str) -> InvalidRequest:
    return refuse(path, "is required", code="missing_required_parameter")
