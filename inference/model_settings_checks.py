"""Whether a value can be one of a setting.

What depends on the model (its context, its kind, the names of others) its keeper judges.
"""

from __future__ import annotations

import json
import math
from typing import Any

from inference.model_settings_fields import FIELDS, MAX_TEMPLATE_BYTES, NEVER, RESERVED_TEMPLATE_KWARGS, Field

_NO_QUANTIZED_CACHE = (
    "is not supported: models keep their key-value cache in full precision. mlx-lm's quantized cache has no batch, so "
    "requests could not share the model's steps, and the prefix cache could not cut what it holds"
)
UNSUPPORTED = dict.fromkeys(("kv_bits", "kv_group_size"), _NO_QUANTIZED_CACHE)
"""Settings that others have, refused by name, with the reason."""

_LONGEST = {"aliases": 256, "stop": 1000}
_NO_ALIASES = ("", "default", "local-model")


class SettingProblem(ValueError):
    """Why a value cannot be one; the text goes on after the setting's name."""


def checked(name: str, value: Any) -> Any:
    """``value`` in the form in which it is kept. Raises ``SettingProblem``."""
    if name in UNSUPPORTED:
        raise SettingProblem(UNSUPPORTED[name])
    field = FIELDS.get(name)
    if field is None:
        raise SettingProblem(f"is no setting of a model; those are {', '.join(FIELDS)}")
    match field.kind:
        case "boolean":
            if not isinstance(value, bool):
                raise SettingProblem("must be true or false")
            return value
        case "integer" | "number" | "seconds":
            return _number(field, value)
        case "string":
            return _text(value, field.most or 0)
        case "choice":
            if value not in field.choices:
                raise SettingProblem(f"must be one of {', '.join(field.choices)}")
            return value
        case "strings":
            return _texts(field, value)
        case "object":
            return _template(value)


def _number(field: Field, value: Any) -> int | float | str:
    if field.kind == "seconds" and value == NEVER:
        return NEVER
    fits = isinstance(value, int if field.kind == "integer" else int | float) and not isinstance(value, bool)
    low, high = field.minimum or 0, field.maximum or 0
    if not fits or not (isinstance(value, int) or math.isfinite(value)):
        kind = "a whole number" if field.kind == "integer" else "a number"
        raise SettingProblem(f"must be {kind}, {_range(field)}")
    if value < low or value > high or (field.above and value == low):
        raise SettingProblem(f"must be {_range(field)}")
    return value if field.kind == "integer" else float(value)


def _range(field: Field) -> str:
    low, high = field.minimum or 0, field.maximum or 0
    never = ", or never" if field.kind == "seconds" else ""
    return f"above {low}, up to {high}" if field.above else f"from {low} to {high}{never}"


def _text(value: Any, most: int) -> str:
    if not isinstance(value, str):
        raise SettingProblem("must be a text")
    if len(value) > most:
        raise SettingProblem(f"must have at most {most} characters, not {len(value)}")
    if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
        raise SettingProblem("has characters that are none")
    return value


def _texts(field: Field, value: Any) -> list[str]:
    if not isinstance(value, list):
        raise SettingProblem("must be a list of texts")
    if len(value) > (field.most or 0):
        raise SettingProblem(f"must have at most {field.most} texts, not {len(value)}")
    texts = [_text(one, _LONGEST[field.name]) for one in value]
    if field.name == "aliases":
        for text in texts:
            _check_alias(text)
        return list({text.lower(): text for text in reversed(texts)}.values())[::-1]
    if "" in texts:
        raise SettingProblem("must not have an empty text")
    return list(dict.fromkeys(texts))


def _check_alias(text: str) -> None:
    if not text.isprintable() or text != text.strip() or text.lower() in _NO_ALIASES:
        raise SettingProblem(
            f"cannot have {text[:40]!r}: a name is printable, without spaces around it, and not 'default' or "
            "'local-model', which mean the default model"
        )


def _template(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise SettingProblem("must be an object: variables by name")
    for name in value:
        if name in RESERVED_TEMPLATE_KWARGS:
            raise SettingProblem(f"cannot have {name!r}, which is set by the server")
        if name == "enable_thinking":
            raise SettingProblem("cannot have 'enable_thinking', which is a setting of its own")
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise SettingProblem("has values that are not JSON") from error
    if len(text) > MAX_TEMPLATE_BYTES:
        raise SettingProblem(f"must have at most {MAX_TEMPLATE_BYTES} characters as JSON")
    _text(json.dumps(value, ensure_ascii=False), MAX_TEMPLATE_BYTES * 8)
    copied: dict[str, Any] = json.loads(text)
    return copied
