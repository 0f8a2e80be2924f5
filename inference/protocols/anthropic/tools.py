"""Tools and tool choice.

A tool of Anthropic's own (web search, shell, editor, computer, memory) has no schema in the request: the model it is
made for knows it. It is refused by its type; the same tool with a name, a description and a schema works.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import orjson
from pydantic import Field

from inference.protocols.validation import WireModel, refuse

_NAME = re.compile(r"[a-zA-Z0-9_.\-]{1,128}")
Mode = Literal["auto", "none", "required"]


class Tool(WireModel):
    """``input_schema`` is a JSON Schema of an object; ``strict`` is enforced. The rest is known and changes nothing,
    but for ``input_examples``, which the model is shown."""

    type: str | None = None
    name: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None
    input_examples: list[dict[str, Any]] | None = None
    allowed_callers: list[str] | None = None
    defer_loading: bool | None = None
    eager_input_streaming: bool | None = None
    cache_control: Any = None


Tools = Annotated[list[Tool], Field(fail_fast=True)]


class ToolChoice(WireModel):
    """``any`` and ``tool`` are enforced while decoding."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


def tool_list(tools: Tools | None) -> list[dict[str, Any]]:
    """The tools as chat templates expect them; ``strict`` only where it is true."""
    found: list[dict[str, Any]] = []
    seen: set[str] = set()
    for position, tool in enumerate(tools or []):
        path = f"tools[{position}]"
        _check_kind(tool, path)
        name = _name(tool, path)
        if name in seen:
            raise refuse(f"{path}.name", f"is {name!r} for a second time; names must differ")
        seen.add(name)
        found.append({"type": "function", "function": _function(tool, name, path)})
    return found


def tool_choice(choice: ToolChoice | None, tools: list[dict[str, Any]]) -> tuple[Mode, list[str]]:
    """The mode, and the names of the tools that may be called: empty for all of them."""
    if choice is None or choice.type == "auto":
        return "auto", []
    if choice.type == "none":
        return "none", []
    if not tools:
        raise refuse("tool_choice", "needs tools")
    if choice.type == "any":
        return "required", []
    if choice.name is None:
        raise refuse("tool_choice.name", "is required", code="missing_required_parameter")
    known = [tool["function"]["name"] for tool in tools]
    if choice.name not in known:
        raise refuse("tool_choice.name", f"is {choice.name[:64]!r}, which is not in tools ({', '.join(known[:10])})")
    return "required", [choice.name]


def _check_kind(tool: Tool, path: str) -> None:
    if tool.type not in (None, "custom"):
        message = (
            f"is {tool.type[:64]!r}, a tool of Anthropic's own that this server does not have; "
            "describe it with a name and an input_schema"
        )
        raise refuse(f"{path}.type", message, code="unsupported_tool")
    if tool.allowed_callers and "direct" not in tool.allowed_callers:
        message = "without 'direct' leaves the call to code that this server does not run"
        raise refuse(f"{path}.allowed_callers", message, code="unsupported_parameter")


def _name(tool: Tool, path: str) -> str:
    if tool.name is None:
        raise refuse(f"{path}.name", "is required", code="missing_required_parameter")
    if not _NAME.fullmatch(tool.name):
        raise refuse(f"{path}.name", "must be 1 to 128 letters, digits, '_', '-' or '.'")
    return tool.name


def _function(tool: Tool, name: str, path: str) -> dict[str, Any]:
    function: dict[str, Any] = {"name": name}
    description = tool.description
    if tool.input_examples:
        examples = "\n".join(orjson.dumps(example).decode() for example in tool.input_examples)
        description = f"{description or ''}\n\nExamples of input:\n{examples}".lstrip()
    if description is not None:
        function["description"] = description
    function["parameters"] = _parameters(tool.input_schema, f"{path}.input_schema")
    if tool.strict:
        function["strict"] = True
    return function


def _parameters(schema: dict[str, Any] | None, path: str) -> dict[str, Any]:
    if schema is None:
        raise refuse(path, "is required", code="missing_required_parameter")
    kind = schema.get("type", "object")
    if kind != "object":
        raise refuse(f"{path}.type", f"must be 'object', not {repr(kind)[:40]}")
    properties = schema.get("properties")
    if properties is not None and not isinstance(properties, dict):
        raise refuse(f"{path}.properties", "must be an object", code="invalid_type")
    for name, one in (properties or {}).items():
        if not isinstance(one, dict | bool):
            raise refuse(f"{path}.properties.{name[:64]}", "must be a JSON Schema object", code="invalid_type")
    return schema or {"type": "object", "properties": {}}
