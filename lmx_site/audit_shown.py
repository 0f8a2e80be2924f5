"""What the audit log keeps of a request's parameters: bounded, without secrets, and of prompts their length alone."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_LONGEST_TEXT = 200
_LONGEST_SUBJECT = 512
_MOST_FIELDS = 40
_MOST_CHARACTERS = 4096
_DEEPEST = 3
_SECRET = re.compile(r"key|token(?!s$|s_|izer)|secret|password|authorization", re.IGNORECASE)
_WORDS = re.compile(r"prompt|messages|input|content|stop|kwargs", re.IGNORECASE)
_HIDDEN = (
    (re.compile(r"://[^/@\s]*@"), "://hidden@"),
    (re.compile(r"\b(hf|sk|api)[_-][A-Za-z0-9_-]{10,}"), "hidden"),
)


def shown(fields: Mapping[str, Any]) -> dict[str, Any]:
    """All parameters; where they are too many, their names."""
    found = {str(name)[:64]: _shown(str(name), value) for name, value in list(fields.items())[:_MOST_FIELDS]}
    if len(json.dumps(found)) <= _MOST_CHARACTERS:
        return found
    return {"too_long": list(found)}


def text_of(value: Any) -> str:
    """A text, bounded, without what looks like a secret."""
    text = str(value)[:_LONGEST_SUBJECT]
    for pattern, instead in _HIDDEN:
        text = pattern.sub(instead, text)
    return text


def _shown(name: str, value: Any, depth: int = 0) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return value if abs(value) < 2**63 else str(value)[:_LONGEST_TEXT]
    if _SECRET.search(name):
        return "hidden"
    if _WORDS.search(name):
        return f"{len(value):,} characters" if isinstance(value, str) else "hidden"
    if isinstance(value, Mapping) and depth < _DEEPEST:
        return {str(key)[:64]: _shown(str(key), one, depth + 1) for key, one in list(value.items())[:_MOST_FIELDS]}
    if isinstance(value, list | tuple) and depth < _DEEPEST:
        return [_shown(name, one, depth + 1) for one in value[:_MOST_FIELDS]]
    # What lies too deep to be looked through may hold anything.
    return "hidden" if isinstance(value, Mapping | list | tuple) else text_of(value)[:_LONGEST_TEXT]
