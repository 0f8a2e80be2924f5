"""A request body as a JSON object, refused with the place where it is not one.

Stricter than most parsers where leniency would guess: duplicate keys, NaN and Infinity, lone surrogates, invalid UTF-8
and nesting deeper than ``MAX_DEPTH`` are errors, and so is a body of so many values that taking it apart would take
seconds of everybody's time and gigabytes of memory. A megabyte of messages takes about 15 ms.
"""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

from inference.errors import InvalidRequest

MAX_DEPTH = 100
MAX_NODES = 300_000
"""Objects, arrays and object members, together."""
MAX_VALUES = 2_000_000
"""Commas: a prompt of token ids for the longest context there is."""

_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)  # linear, whatever the input: no way back


class _DuplicateKey(Exception):
    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


def parse_object(body: bytes) -> dict[str, Any]:
    """``body`` parsed; ``InvalidRequest`` (code ``invalid_json``) when it is not exactly one JSON object."""
    if not body.strip():
        raise _refused("the request has no body; send a JSON object")
    if not _is_moderate(body):
        raise _refused(f"the body holds more than {MAX_NODES:,} objects, arrays and members or {MAX_VALUES:,} values")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _refused(f"the body is not valid JSON: {_reason(error)}") from None
    if not isinstance(value, dict):
        raise _refused(f"the body must be a JSON object, not {describe(value)}")
    _check_depth(value)
    _check_keys(body)
    return value


def describe(value: object) -> str:
    """What a JSON value is, in words; numbers and booleans are shown, texts are not."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return f"{value:.6g}" if isinstance(value, float) else str(value)
    if isinstance(value, str):
        return "a string"
    return "an array" if isinstance(value, list) else "an object"


def _refused(message: str) -> InvalidRequest:
    return InvalidRequest(message, code="invalid_json")


def _reason(error: orjson.JSONDecodeError) -> str:
    return f"{error.msg} (line {error.lineno}, column {error.colno})"


def _is_moderate(body: bytes) -> bool:
    """Whether the values are few enough, whatever stands inside texts; costs a millisecond for a megabyte."""
    if _nodes(body) <= MAX_NODES and body.count(b",") <= MAX_VALUES:
        return True
    outside, strings = _STRING.subn(b"", body, count=2 * MAX_NODES)
    return strings < 2 * MAX_NODES and _nodes(outside) <= MAX_NODES and outside.count(b",") <= MAX_VALUES


def _nodes(text: bytes) -> int:
    return text.count(b"[") + text.count(b"{") + text.count(b":")


def _check_depth(value: dict[str, Any]) -> None:
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, dict | list)
        ]
        if not level:
            return
    raise _refused(f"the body is nested deeper than {MAX_DEPTH} levels")


def _check_keys(body: bytes) -> None:
    # orjson keeps the last of two equal keys silently, so which one counts would depend on the parser.
    try:
        json.loads(body, object_pairs_hook=_unique)
    except _DuplicateKey as error:
        raise _refused(f"the key {error.key[:80]!r} appears twice in one object") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _DuplicateKey(key)
            seen.add(key)
    return found
