"""Tools and tool choice of a chat request, also as ``functions`` and ``function_call``, their names of 2023."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from inference.protocols.validation import WireModel, refuse

_NAME = r"^[a-zA-Z0-9_.\-]{1,64}$"
Mode = Literal["auto", "none", "required"]


class FunctionSpec(WireModel):
    """``parameters`` is a JSON Schema of an object; left out means no parameters. ``strict`` is enforced."""

    name: str = Field(pattern=_NAME)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(WireModel):
    type: Literal["function"]
    function: FunctionSpec


class ChosenFunction(WireModel):
    name: str


class AllowedTool(WireModel):
    type: Literal["function"]
    function: ChosenFunction


class AllowedTools(WireModel):
    mode: Literal["auto", "required"]
    tools: Annotated[list[AllowedTool], Field(fail_fast=True, min_length=1)]


class NamedChoice(WireModel):
    """One function that must be called, or several of which any may (``allowed_tools``)."""

    type: Literal["function", "allowed_tools"]
    function: ChosenFunction | None = None
    allowed_tools: AllowedTools | None = None


def tool_list(tools: list[Tool] | None) -> list[dict[str, Any]]:
    """The tools as chat templates expect them; ``strict`` only where it is true."""
    named = [(tool.function, f"tools[{position}].function") for position, tool in enumerate(tools or [])]
    return _listed(named)


def function_list(functions: list[FunctionSpec] | None) -> list[dict[str, Any]]:
    """``functions`` as if they were tools."""
    return _listed([(function, f"functions[{position}]") for position, function in enumerate(functions or [])])


def tool_choice(choice: str | NamedChoice | None, tools: list[dict[str, Any]]) -> tuple[Mode, list[str]]:
    """The mode, and the names of the tools that may be called: empty for all of them."""
    if choice is None or choice == "auto" or (choice == "none" and not tools):
        return "auto", []
    if choice == "none":
        return "none", []
    if isinstance(choice, str) and choice != "required":
        raise refuse("tool_choice", f"must be 'none', 'auto', 'required' or a function, not {choice[:40]!r}")
    if not tools:
        raise refuse("tool_choice", "needs tools")
    if isinstance(choice, str):
        return "required", []
    known = [tool["function"]["name"] for tool in tools]
    if choice.type == "function":
        if choice.function is None:
            raise refuse("tool_choice.function", "is required", code="missing_required_parameter")
        _check_named(choice.function.name, known, "tool_choice.function.name", "tools")
        return "required", [choice.function.name]
    return _allowed(choice.allowed_tools, known)


def function_call(choice: str | ChosenFunction | None, functions: list[dict[str, Any]]) -> tuple[Mode, list[str]]:
    """``tool_choice`` for ``functions``."""
    if isinstance(choice, str) and choice not in ("none", "auto"):
        raise refuse("function_call", f"must be 'none', 'auto' or an object with a name, not {choice[:40]!r}")
    if choice is None or isinstance(choice, str):
        return ("none" if choice == "none" and functions else "auto"), []
    if not functions:
        raise refuse("function_call", "needs functions")
    _check_named(choice.name, [one["function"]["name"] for one in functions], "function_call.name", "functions")
    return "required", [choice.name]


def _allowed(allowed: AllowedTools | None, known: list[str]) -> tuple[Mode, list[str]]:
    if allowed is None:
        raise refuse("tool_choice.allowed_tools", "is required", code="missing_required_parameter")
    names = [tool.function.name for tool in allowed.tools]
    for position, name in enumerate(names):
        _check_named(name, known, f"tool_choice.allowed_tools.tools[{position}].function.name", "tools")
    return allowed.mode, list(dict.fromkeys(names))


def _listed(named: list[tuple[FunctionSpec, str]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    seen: set[str] = set()
    for function, path in named:
        if function.name in seen:
            raise refuse(f"{path}.name", f"is {function.name!r} for a second time; names must differ")
        _check_parameters(function.parameters, f"{path}.parameters")
        seen.add(function.name)
        spec: dict[str, Any] = {"name": function.name}
        if function.description is not None:
            spec["description"] = function.description
        spec["parameters"] = function.parameters or {"type": "object", "properties": {}}
        if function.strict:
            spec["strict"] = True
        found.append({"type": "function", "function": spec})
    return found


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


def _check_named(name: str, known: list[str], path: str, where: str) -> None:
    if name not in known:
        raise refuse(path, f"is {name[:64]!r}, which is not in {where} ({', '.join(known[:10])})")
