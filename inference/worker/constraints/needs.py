"""Which requests have an answer that is held to something while it is decoded. Imports nothing heavy."""

from __future__ import annotations

from typing import Any

from inference.ipc import GenerateRequest


def is_strict(tool: dict[str, Any]) -> bool:
    """Whether the arguments of this tool's calls must validate."""
    function = tool.get("function")
    return isinstance(function, dict) and function.get("strict") is True


def holds_calls(body: GenerateRequest) -> bool:
    """Whether the calls themselves are held to the tools, and not only read."""
    if not body.tools or body.tool_choice == "none":
        return False
    return body.tool_choice == "required" or bool(body.tool_names) or any(map(is_strict, body.tools))


def needs_grammar(body: GenerateRequest) -> bool:
    """Whether ``prepare`` may have to compile, which takes long enough to have a lane of its own."""
    return body.output_format.kind != "text" or body.thinking_budget is not None or holds_calls(body)
