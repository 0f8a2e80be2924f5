"""JSON Schemas before they become grammars: what cannot be enforced is named, what is silent is made definite.

llguidance enforces most of JSON Schema while decoding. What it does not is refused by keyword and place, or, where a
schema is a description more than a promise (tools that are not strict), left out. Annotations pass.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

TYPES = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})

FORMATS = frozenset(
    {"date", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "time", "unknown", "uri", "uuid"}
)
ANNOTATING_FORMATS = frozenset({"binary", "directory-path", "file-path", "password", "path"})
"""Formats that say what a text is for, not how it is written."""

UNENFORCED: dict[str, Callable[[Any, Mapping[str, Any]], bool]] = {
    "$dynamicRef": lambda value, schema: True,
    "$recursiveRef": lambda value, schema: True,
    "contains": lambda value, schema: True,
    "dependencies": lambda value, schema: value != {},
    "dependentRequired": lambda value, schema: value != {},
    "dependentSchemas": lambda value, schema: value != {},
    "if": lambda value, schema: "then" in schema or "else" in schema,
    "not": lambda value, schema: value is not False,
    "propertyNames": lambda value, schema: value not in (True, {}),
    "unevaluatedItems": lambda value, schema: value not in (True, {}),
    "unevaluatedProperties": lambda value, schema: value not in (True, {}),
    "uniqueItems": lambda value, schema: value is not False,
}
"""Keywords that no grammar can hold an answer to, each with whether it says anything where it stands."""

_IDLE = (*UNENFORCED, "then", "else", "minContains", "maxContains", "x-guidance")
_ONE = ("additionalItems", "additionalProperties", "items")
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
_MAPS = ("$defs", "definitions", "patternProperties", "properties")
_COMBINING = ("$ref", "allOf", "anyOf", "oneOf")
_OF_OBJECTS = ("additionalProperties", "patternProperties", "properties", "required")
_OPEN_ENDED = ("additionalProperties", "minProperties", "patternProperties", "unevaluatedProperties")

Schema = dict[str, Any]


class BadSchema(ValueError):
    """What is wrong with a schema; ``place`` is a JSON pointer into it, "" for the whole."""

    def __init__(self, reason: str, place: str = "") -> None:
        self.place = place
        super().__init__(f"{reason} (at {place})" if place else reason)


def subschemas(schema: Any, place: str = "") -> Iterator[tuple[str, Schema]]:
    """Every schema within ``schema`` with its JSON pointer, itself first; not what only looks like one (``enum``)."""
    waiting = [(place, schema)]
    while waiting:
        where, found = waiting.pop()
        if not isinstance(found, dict):
            continue
        yield where, found
        waiting.extend(reversed(list(_children(where, found))))


def _children(where: str, schema: Schema) -> Iterator[tuple[str, Any]]:
    for key in _ONE:
        if isinstance(schema.get(key), dict):
            yield f"{where}/{key}", schema[key]
    for key in _LISTS:
        if isinstance(schema.get(key), list):
            yield from ((f"{where}/{key}/{index}", child) for index, child in enumerate(schema[key]))
    for key in _MAPS:
        if isinstance(schema.get(key), dict):
            yield from ((f"{where}/{key}/{_escaped(name)}", child) for name, child in schema[key].items())


def check(schema: Schema) -> None:
    """Raise ``BadSchema`` for the first keyword that would be silently broken, or is no JSON Schema."""
    for place, part in subschemas(schema):
        for keyword, says_something in UNENFORCED.items():
            if keyword in part and says_something(part[keyword], part):
                raise BadSchema(f"the keyword {keyword!r} cannot be enforced", f"{place}/{keyword}")
        _check_type(part.get("type", "object"), f"{place}/type")
        given = part.get("format")
        if "format" in part and given not in FORMATS | ANNOTATING_FORMATS and _may_be_text(part):
            raise BadSchema(f"the format {given!r} cannot be enforced", f"{place}/format")


def _check_type(given: Any, place: str) -> None:
    listed = given if isinstance(given, list) else [given]
    for kind in listed:
        if not isinstance(kind, str) or kind not in TYPES:
            raise BadSchema(f"{kind!r} is no type; it can be one of {', '.join(sorted(TYPES))}", place)


def definite(schema: Schema) -> Schema:
    """A schema for llguidance whose documents all satisfy ``schema``: idle keywords dropped, silent objects closed.

    An object that lists its properties and does not say whether others may follow gets no others, so that a small
    model comes to an end. Not where schemas are combined, because there the properties of each would exclude the
    others'.
    """
    closing = not any(_combines(part) for _, part in subschemas(schema))
    found: Schema = _rewrite(schema, lambda part: _tidied(part, closing=closing))
    return found


def relaxed(schema: Schema, *, patterns: bool = True) -> Schema:
    """``schema`` without what cannot be enforced; without ``patterns`` also without what sometimes cannot."""

    def relax(part: Schema) -> Schema:
        made = {key: value for key, value in part.items() if key not in _IDLE}
        if "oneOf" in made and "anyOf" not in made:
            made["anyOf"] = made.pop("oneOf")
        if made.get("format") not in FORMATS or not patterns:
            made.pop("format", None)
        if not patterns:
            for key in ("pattern", "patternProperties", "minProperties", "maxProperties"):
                made.pop(key, None)
        return made

    found: Schema = _rewrite(schema, relax)
    return found


def arguments(parameters: Any) -> Schema:
    """The schema of a tool's arguments: an object always, and ``{}`` where no parameters are told."""
    schema: Schema = dict(parameters) if isinstance(parameters, dict) else {}
    if not any(key in schema for key in _COMBINING):
        schema.setdefault("type", "object")
        if not any(key in schema for key in _OPEN_ENDED):
            schema.setdefault("properties", {})
    return schema


def _combines(part: Schema) -> bool:
    """Whether several schemas speak about one object."""
    schemas = [key for key in _COMBINING if key in part]
    several = len(schemas) > 1 or (isinstance(part.get("allOf"), list) and len(part["allOf"]) > 1)
    return several or bool(schemas and any(key in part for key in _OF_OBJECTS))


def _tidied(part: Schema, *, closing: bool) -> Schema:
    made = {key: value for key, value in part.items() if key not in _IDLE}
    if made.get("format") not in FORMATS:
        made.pop("format", None)
    declared, required = made.get("properties"), made.get("required")
    silent = isinstance(declared, dict) and not any(key in made for key in _OPEN_ENDED)
    listed = required if isinstance(required, list) else []
    if closing and silent and set(map(str, listed)) <= set(declared or ()):
        made["additionalProperties"] = False
    return made


def _rewrite(schema: Any, change: Callable[[Schema], Schema]) -> Any:
    """A copy with ``change`` made to every schema in it."""
    if not isinstance(schema, dict):
        return schema
    made = change(schema)
    for key in _ONE:
        if isinstance(made.get(key), dict):
            made[key] = _rewrite(made[key], change)
    for key in _LISTS:
        if isinstance(made.get(key), list):
            made[key] = [_rewrite(child, change) for child in made[key]]
    for key in _MAPS:
        if isinstance(made.get(key), dict):
            made[key] = {name: _rewrite(child, change) for name, child in made[key].items()}
    return made


def _may_be_text(part: Schema) -> bool:
    kind = part.get("type", "string")
    return kind == "string" or (isinstance(kind, list) and "string" in kind)


def _escaped(name: Any) -> str:
    return re.sub("/", "~1", re.sub("~", "~0", str(name)))
