"""Arguments that a family writes as one tag for each, held to the schema of the tool.

How such a value is read depends on the types that the schema allows (``text.call_values``): where only a text may be,
what stands between the tags is the text; where something else may be too, what reads as that is that; and where no
text may be, or nothing is said, it is JSON. So these grammars write texts as they are and all else as JSON, and have
nothing for schemas that demand more of a text than a length or a choice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from inference.worker.constraints.lark import Lark, escaped, json_rule, quoted
from inference.worker.constraints.schemas import Schema, subschemas
from inference.worker.text.call_values import types_of

_TOLD = frozenset(
    {"$defs", "$id", "$schema", "additionalProperties", "definitions", "description", "examples", "properties"}
    | {"required", "title", "type"}
)
_OF_TEXTS = ("format", "pattern")
_BAD_IN_KEYS = re.compile(r'[<>"{}\s]|^$')
_ANY = r"(.|\n)"
_NO_JSON = r"/[a-zA-Z](.|\n)*/ & ~/(true|false|null|True|False|None)[ \n]*/"
_NO_NULL = r"~/[ \n]*(null|None)[ \n]*/"


class Tags:
    """The rules for one tool's arguments. ``rules`` grows as they are written; ``prefix`` begins all their names.

    ``parameter`` has ``{key}`` and ``{value}`` in it. ``json_only`` says that texts are quoted too.
    """

    def __init__(self, lark: Lark, parameter: str, prefix: str, space: str, *, json_only: bool) -> None:
        self.rules: dict[str, str] = {}
        self._lark = lark
        self._parameter = parameter
        self._prefix = prefix
        self._space = space
        self._json_only = json_only

    def arguments(self, schema: Schema) -> str:
        """The body of a rule for the arguments, whose schema ``fits``."""
        made = []
        shared: Schema = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
        for key, value in schema["properties"].items():
            if value is False:
                continue
            rule = self._member(key, value, schema, shared)
            made.append(rule if key in schema.get("required", []) else f"({rule})?")
        return " ".join(made) or '""'

    def _member(self, key: str, value: Any, schema: Schema, shared: Schema) -> str:
        head, tail = self._parameter.replace("{key}", key).split("{value}")
        value = value if isinstance(value, dict) else {}
        types = types_of(schema, key)
        ways = []
        if self._json_only or "string" not in types:
            ways.append(f"{json_rule(value | shared, self._space)} {self._lark.literal(tail)}")
        else:
            texts, others = _split(value)
            ways += [f"{json_rule(other | shared, self._space)} {self._lark.literal(tail)}" for other in others]
            ways += [self._text(text, tail, types) for text in texts]
        return f"{self._lark.literal(head)} ({' | '.join(ways)})"

    def _text(self, schema: Schema, tail: str, types: frozenset[str]) -> str:
        choices = _choices(schema)
        if choices is not None:
            return f"({' | '.join(map(self._lark.literal, choices))}) {self._lark.literal(tail)}"
        marker = tail.strip("\n")
        name = f"{self._prefix}_{len(self.rules)}"
        text = f"{name.upper()}_TEXT"
        self.rules[text] = " & ".join([_length(schema), *_unlike(types), f"~/{_ANY}*{escaped(marker)}{_ANY}*/"])
        token = self._lark.leading_token(marker)
        lead, rest = tail.split(marker)
        if token is not None:  # the break before it would be taken for a part of the text
            self.rules[name] = f"{text} <[{token}]>"
            return f"{name} {self._lark.literal(rest)}"
        self.rules[f"{name}[lazy]"] = f"{text} {quoted(lead + marker)}"
        return f"{name} {self._lark.literal(rest)}"


def fits(schema: Schema, *, json_only: bool) -> bool:
    """Whether the arguments can be written so that what is read back is what the schema allows."""
    properties = schema.get("properties")
    if (
        set(schema) - _TOLD
        or not isinstance(properties, dict)
        or schema.get("additionalProperties", False) is not False
    ):
        return False
    required = schema.get("required", [])
    if not isinstance(required, list) or any(properties.get(name, False) is False for name in required):
        return False
    if any(str(part.get("$ref", "")).startswith("#/properties") for _, part in subschemas(schema)):
        return False
    return all(_member_fits(key, value, schema, json_only=json_only) for key, value in properties.items())


def _member_fits(key: str, value: Any, schema: Schema, *, json_only: bool) -> bool:
    if _BAD_IN_KEYS.search(key):
        return False
    types = types_of(schema, key)
    if json_only or "string" not in types:
        return True
    texts, others = _split(value)
    told = all(_is_told(text, alone=types == {"string"}) for text in texts)
    return told and all(
        "string" not in types_of({"properties": {"x": other}}, "x") and _says(other) for other in others
    )


def _split(value: Schema) -> tuple[list[Schema], list[Schema]]:
    """The parts of a schema that are texts, and those that are not."""
    kind = value.get("type")
    if kind == "string" or (kind is None and _choices(value) is not None):
        return [value], []
    if isinstance(kind, list) and "string" in kind and "enum" not in value and "const" not in value:
        others = [name for name in kind if name != "string"]
        return [value | {"type": "string"}], [value | {"type": others}] if others else []
    branches = value.get("anyOf")
    if not isinstance(branches, list) or set(value) - {"anyOf", "title", "description", "default", "examples"}:
        return [{"pattern": "what no tag can hold"}], []
    texts: list[Schema] = []
    rest: list[Schema] = []
    for branch in branches:
        found = _split(branch) if isinstance(branch, dict) and _is_text(branch) else ([], [branch])
        texts += found[0]
        rest += found[1]
    return texts, rest


def _is_text(schema: Schema) -> bool:
    kind = schema.get("type")
    return kind == "string" or "anyOf" in schema or (isinstance(kind, list) and "string" in kind) or "enum" in schema


def _says(schema: Any) -> bool:
    """Whether a part that is no text says so: one that says nothing may be a text too, and would be read as one."""
    return isinstance(schema, dict) and bool(types_of({"properties": {"x": schema}}, "x"))


def _is_told(schema: Schema, *, alone: bool) -> bool:
    choices = _choices(schema)
    if choices is not None:
        plain = re.compile(r"\S(.*\S)?", re.DOTALL) if alone else re.compile(r"[A-Za-z](.*\S)?", re.DOTALL)
        words = {"true", "false", "null", "none"} if not alone else set()
        return all(plain.fullmatch(text) and "<" not in text and text.lower() not in words for text in choices)
    return not any(key in schema for key in (*_OF_TEXTS, "enum", "const", "allOf", "oneOf", "anyOf", "$ref"))


def _choices(schema: Schema) -> list[str] | None:
    listed = [schema["const"]] if "const" in schema else schema.get("enum")
    if not isinstance(listed, list) or not listed or not all(isinstance(text, str) for text in listed):
        return None
    return listed


def _length(schema: Mapping[str, Any]) -> str:
    """A text of so many characters; with bounds none that white space at its ends would be cut off from."""
    least, most = schema.get("minLength", 0), schema.get("maxLength")
    if not least and most is None:
        return f"/{_ANY}*/"
    inner = f"{{{max(least - 2, 0)},{'' if most is None else max(most - 2, 0)}}}"
    ways = [rf"[^ \n\t\r\f\v]{_ANY}{inner}[^ \n\t\r\f\v]"] if most is None or most > 1 else []
    if least <= 1:
        ways.append(r"[^ \n\t\r\f\v]" if most != 0 else "")
    if least == 0:
        ways.append("")
    return f"/{'|'.join(f'({way})' for way in ways)}/"


def _unlike(types: frozenset[str]) -> list[str]:
    """What a text must not look like beside the other types."""
    if types == {"string"}:
        return []
    return [_NO_NULL] if types == {"string", "null"} else [_NO_JSON]
