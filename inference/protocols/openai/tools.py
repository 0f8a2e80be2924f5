"""Tools, tool choice and response format of a chat request."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from inference.ipc import OutputFormat
from inference.protocols.validation import WireModel, refuse

_NAME = r"^[a-zA-Z0-9_.\-]{1,64}$"


class FunctionSpec(WireModel):
    """``parameters`` is a JSON Schema of an object; left out means no parameters."""

    name: str = Field(pattern=_NAME)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(WireModel):
    type: Literal["function"]
    function: FunctionSpec


class ChosenFunction(WireModel):
    name: str


class NamedChoice(WireModel):
    type: str
    function: ChosenFunction | None = None


class JsonSchemaFormat(WireModel):
    name: str = Field(pattern=_NAME)
    description: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class ResponseFormat(WireModel):
    """``text``, ``json_object`` (any JSON object) or ``json_schema`` (enforced while decoding, strict or not)."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None


def tool_list(tools: list[Tool] | None) -> list[dict[str, Any]]:
    """The tools as chat templates expect them."""
    found: list[dict[str, Any]] = []
    seen: set[str] = set()
    for position, tool in enumerate(tools or []):
        path, function = f"tools[{position}].function", tool.function
        if function.name in seen:
            raise refuse(f"{path}.name", f"is {function.name!r} for a second time; names must differ")
        if function.strict:
            raise refuse(
                f"{path}.strict", "is true, but arguments are not constrained yet", code="unsupported_parameter"
            )
        _check_parameters(function.parameters, f"{path}.parameters")
        seen.add(function.name)
        spec: dict[str, Any] = {"name": function.name}
        if function.description is not None:
            spec["description"] = function.description
        spec["parameters"] = function.parameters or {"type": "object", "properties": {}}
        found.append({"type": "function", "function": spec})
    return found


def tool_choice(
    choice: str | NamedChoice | None, tools: list[dict[str, Any]]
) -> Literal["auto", "none", "required"] | dict[str, Any]:
    """``auto`` or ``none``; what needs constrained decoding is refused by name."""
    if choice is None or choice in ("auto", "none"):
        return "none" if choice == "none" else "auto"
    if not tools:
        raise refuse("tool_choice", "needs tools")
    if isinstance(choice, NamedChoice):
        _check_named(choice, [tool["function"]["name"] for tool in tools])
    elif choice != "required":
        raise refuse("tool_choice", f"must be 'none', 'auto', 'required' or a function, not {choice[:40]!r}")
    raise refuse("tool_choice", "can be 'auto' or 'none' for now: calls cannot be forced", code="unsupported_parameter")


def output_format(wanted: ResponseFormat | None) -> OutputFormat:
    """The constraint on the answer's text."""
    if wanted is None or wanted.type == "text":
        return OutputFormat()
    if wanted.type == "json_object":
        return OutputFormat(kind="json_object")
    if wanted.json_schema is None:
        raise refuse("response_format.json_schema", "is required", code="missing_required_parameter")
    return OutputFormat(kind="json_schema", schema=wanted.json_schema.schema_ or {})


def _check_parameters(parameters: dict[str, Any] | None, path: str) -> None:
    if not parameters:
        return
    kind = parameters.get("type", "object")
    if kind != "object":
        shown = repr(kind)[:40]
        raise refuse(f"{path}.type", f"must be 'object', not {shown}")
    properties = parameters.get("properties", {})
    if not isinstance(properties, dict):
        raise refuse(f"{path}.properties", "must be an object", code="invalid_type")
    for name, schema in properties.items():
        if not isinstance(schema, dict | bool):
            raise refuse(f"{path}.properties.{name[:64]}", "must be a JSON Schema object", code="invalid_type")


def _check_named(choice: NamedChoice, names: list[str]) -> None:
    if choice.type != "function" or choice.function is None:
        return
    if choice.function.name not in names:
        listed = ", ".join(names[:10])
        raise refuse("tool_choice.function.name", f"is {choice.function.name[:64]!r}, which is not in tools ({listed})")
