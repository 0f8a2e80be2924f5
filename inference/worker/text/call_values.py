"""Turns the text of an XML-like parameter into JSON, by the type that the function's schema gives it."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from typing import Any

_MAX_DEPTH = 8
_PYTHON_LIMIT = 65_536
"""Characters up to which a value is tried as a Python literal."""


def types_of(schema: Mapping[str, Any], name: str) -> frozenset[str]:
    """JSON types that parameter ``name`` may have; empty when the schema does not say. A reference counts once."""
    properties = schema.get("properties")
    member = properties.get(name) if isinstance(properties, Mapping) else None
    return _types(member, schema, set(), 0)


def _types(schema: Any, root: Mapping[str, Any], followed: set[str], depth: int) -> frozenset[str]:
    if not isinstance(schema, Mapping) or depth > _MAX_DEPTH:
        return frozenset()
    declared, reference = schema.get("type"), schema.get("$ref")
    if isinstance(declared, str | list):
        return frozenset(kind for kind in ([declared] if isinstance(declared, str) else declared) if type(kind) is str)
    if isinstance(reference, str):
        if reference in followed:
            return frozenset()
        followed.add(reference)
        return _types(_resolve(reference, root), root, followed, depth + 1)
    for key in ("anyOf", "oneOf", "allOf"):
        if isinstance(schema.get(key), list):
            return frozenset().union(*(_types(part, root, followed, depth + 1) for part in schema[key]))
    values = schema["enum"] if isinstance(schema.get("enum"), list) else [schema["const"]] if "const" in schema else []
    return frozenset(map(_type_of, values))


def _resolve(reference: str, root: Mapping[str, Any]) -> Any:
    found: Any = root
    for part in reference.removeprefix("#").strip("/").split("/"):
        if part and isinstance(found, Mapping):
            found = found.get(part.replace("~1", "/").replace("~0", "~"))
    return found


def _type_of(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, list):
        return "array"
    return "object" if isinstance(value, dict) else "string"


def as_json(text: str, types: frozenset[str]) -> str:
    """The value as JSON text. What is neither JSON nor a Python literal of a type that may be is a string."""
    text = text.strip() if "string" not in types else text
    parsed = _json(text)
    if parsed is not None and _fits(parsed[0], types):
        return text.strip()
    literal = None if parsed is not None else _python(text)
    if literal is not None and _fits(literal[0], types):
        return literal[1]
    return json.dumps(text, ensure_ascii=False)


def _fits(value: Any, types: frozenset[str]) -> bool:
    """A text within quotes fits only where nothing says that the parameter is a string: there, quotes are its own."""
    kind = _type_of(value)
    if kind == "string":
        return "string" not in types
    return not types or kind in types or (kind == "number" and "integer" in types)


def _json(text: str) -> tuple[Any] | None:
    try:
        return (json.loads(text, parse_constant=_refuse),)
    except (ValueError, RecursionError):
        return None


def _refuse(constant: str) -> Any:
    raise ValueError(constant)


def _python(text: str) -> tuple[Any, str] | None:
    """``True``, ``None`` and containers with single quotes, as models trained on Python write them."""
    if len(text) > _PYTHON_LIMIT:
        return None
    try:
        value = ast.literal_eval(text.strip())
        return value, json.dumps(value, ensure_ascii=True, allow_nan=False)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
