"""Tools, tool choice and the format of the text, as Responses spell them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from inference.ipc import OutputFormat
from inference.protocols.validation import WireModel, refuse

_NAME = r"^[a-zA-Z0-9_.\-]{1,64}$"
Mode = Literal["auto", "none", "required"]


class Tool(WireModel):
    """A function in the flat form. ``parameters`` is a JSON Schema of an object, null for none."""

    type: str
    name: str | None = Field(None, pattern=_NAME)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    defer_loading: bool | None = None
    allowed_callers: Any = None
    output_schema: Any = None


class ToolChoice(WireModel):
    """``{"type": "function", "name": …}`` or ``{"type": "allowed_tools", "mode": …, "tools": […]}``."""

    type: str
    name: str | None = None
    mode: Literal["auto", "required"] | None = None
    tools: list[dict[str, Any]] | None = None


class TextFormat(WireModel):
    """``text``, ``json_object`` (any JSON object) or ``json_schema`` (enforced while decoding, strict or not)."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = Field(None, pattern=_NAME)
    description: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class TextConfig(WireModel):
    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


def tool_list(tools: list[Tool] | None) -> list[dict[str, Any]]:
    """The tools as a worker takes them; ``InvalidRequest`` names what is none."""
    found: list[dict[str, Any]] = []
    seen: set[str] = set()
    for position, tool in enumerate(tools or []):
        path = f"tools[{position}]"
        _check(tool, path, seen)
        spec: dict[str, Any] = {"name": tool.name}
        if tool.description is not None:
            spec["description"] = tool.description
        spec["parameters"] = tool.parameters or {"type": "object", "properties": {}}
        if tool.strict:
            spec["strict"] = True
        found.append({"type": "function", "function": spec})
    return found


def shown_tools(tools: list[Tool] | None) -> list[dict[str, Any]]:
    """The tools as a response repeats them."""
    return [
        {
            "type": "function",
            "name": tool.name,
            "description": tool.description,
            "parameters": tool.parameters,
            "strict": bool(tool.strict),
        }
        for tool in tools or []
    ]


def tool_choice(choice: str | ToolChoice | None, tools: list[dict[str, Any]]) -> tuple[Mode, list[str]]:
    """The mode, and the names that may be called (none: all of them)."""
    names = [tool["function"]["name"] for tool in tools]
    if choice is None or choice == "auto":
        return "auto", []
    if choice == "none":
        return "none", []
    if isinstance(choice, str) and choice != "required":
        raise refuse("tool_choice", f"must be 'none', 'auto', 'required' or an object, not {choice[:40]!r}")
    if not names:
        raise refuse("tool_choice", "needs tools")
    if isinstance(choice, str):
        return "required", []
    if choice.type == "function":
        return "required", [_known(choice.name, names, "tool_choice.name")]
    if choice.type == "allowed_tools":
        return _allowed(choice, names)
    raise refuse(
        "tool_choice.type",
        f"must be 'function' or 'allowed_tools', not {choice.type[:40]!r}: this server has no built-in tools",
        code="unsupported_parameter",
    )


def shown_choice(choice: str | ToolChoice | None) -> str | dict[str, Any]:
    """The choice as a response repeats it."""
    if not isinstance(choice, ToolChoice):
        return choice or "auto"
    if choice.type == "function":
        return {"type": "function", "name": choice.name}
    return {"type": choice.type, "mode": choice.mode, "tools": choice.tools}


def output_format(text: TextConfig | None) -> OutputFormat:
    """The constraint on the answer's text."""
    if text is not None and text.verbosity not in (None, "medium"):
        raise refuse("text.verbosity", "can only be 'medium': no model here knows it", code="unsupported_parameter")
    wanted = text.format if text is not None else None
    if wanted is None or wanted.type == "text":
        return OutputFormat()
    if wanted.type == "json_object":
        return OutputFormat(kind="json_object")
    for name, value in (("name", wanted.name), ("schema", wanted.schema_)):
        if value is None:
            raise refuse(f"text.format.{name}", "is required", code="missing_required_parameter")
    return OutputFormat(kind="json_schema", schema=wanted.schema_)


def shown_text(text: TextConfig | None) -> dict[str, Any]:
    """The text's configuration as a response repeats it."""
    wanted = text.format if text is not None else None
    shown: dict[str, Any] = {"type": wanted.type if wanted is not None else "text"}
    if wanted is not None and wanted.type == "json_schema":
        shown |= {
            "name": wanted.name,
            "description": wanted.description,
            "schema": wanted.schema_,
            "strict": bool(wanted.strict),
        }
    return {"format": shown, "verbosity": "medium"}


def _check(tool: Tool, path: str, seen: set[str]) -> None:
    if tool.type != "function":
        shown = tool.type[:40]
        message = f"is {shown!r}, but this server runs no tools itself: only 'function' tools can be called"
        raise refuse(f"{path}.type", message, code="unsupported_parameter")
    if tool.name is None:
        raise refuse(f"{path}.name", "is required", code="missing_required_parameter")
    if tool.name in seen:
        raise refuse(f"{path}.name", f"is {tool.name!r} for a second time; names must differ")
    if tool.defer_loading:
        raise refuse(f"{path}.defer_loading", "needs tool search, which is not here", code="unsupported_parameter")
    seen.add(tool.name)
    _check_parameters(tool.parameters or {}, f"{path}.parameters")


def _check_parameters(parameters: dict[str, Any], path: str) -> None:
    kind = parameters.get("type", "object")
    if kind != "object":
        raise refuse(f"{path}.type", f"must be 'object', not {repr(kind)[:40]}")
    properties = parameters.get("properties", {})
    if not isinstance(properties, dict):
        raise refuse(f"{path}.properties", "must be an object", code="invalid_type")
    for name, schema in properties.items():
        if not isinstance(schema, dict | bool):
            raise refuse(f"{path}.properties.{name[:64]}", "must be a JSON Schema object", code="invalid_type")


def _allowed(choice: ToolChoice, names: list[str]) -> tuple[Mode, list[str]]:
    if choice.mode is None:
        raise refuse("tool_choice.mode", "is required", code="missing_required_parameter")
    if not choice.tools:
        raise refuse("tool_choice.tools", "must name at least one tool")
    found: list[str] = []
    for position, tool in enumerate(choice.tools):
        path = f"tool_choice.tools[{position}]"
        if tool.get("type") != "function":
            raise refuse(f"{path}.type", "must be 'function'", code="unsupported_parameter")
        found.append(_known(tool.get("name"), names, f"{path}.name"))
    return choice.mode, list(dict.fromkeys(found))


def _known(name: Any, names: list[str], path: str) -> str:
    if not isinstance(name, str):
        raise refuse(path, "is required", code="missing_required_parameter")
    if name not in names:
        raise refuse(path, f"is {name[:64]!r}, which is not in tools ({', '.join(names[:10])})")
    return name
