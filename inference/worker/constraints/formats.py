"""The grammar of a response format: JSON, JSON Schema, regular expression, Lark or GBNF, choices."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from llguidance import LLMatcher
from llguidance.gbnf_to_lark import any_to_lark

from inference.ipc import OutputFormat
from inference.worker.constraints import schemas
from inference.worker.constraints.lark import quoted

Grammar = dict[str, Any]
"""One of llguidance's grammars, as the object it writes in JSON."""

MAX_SOURCE_CHARACTERS = 1_000_000
WHITESPACE = r"[ \n\r\t]{0,64}"
"""Between the parts of a JSON text. Bounded, because small models otherwise go on with newlines for ever."""


def format_grammar(output_format: OutputFormat) -> Grammar:
    """Raises ``ValueError`` that says what cannot be enforced, and for a schema where."""
    size = len(output_format.text or "") + sum(map(len, output_format.choices))
    if size > MAX_SOURCE_CHARACTERS:
        raise ValueError(f"it is longer than {MAX_SOURCE_CHARACTERS} characters")
    return _GRAMMARS[output_format.kind](output_format)


def schema_grammar(schema: schemas.Schema, whitespace: str = WHITESPACE) -> Grammar:
    """Raises ``schemas.BadSchema`` where llguidance does not know a keyword's value."""
    text = json.dumps(schema)
    if len(text) > MAX_SOURCE_CHARACTERS:
        raise ValueError(f"it is longer than {MAX_SOURCE_CHARACTERS} characters")
    document = LLMatcher.grammar_from_json_schema(text, overrides={"whitespace_pattern": whitespace})
    refusal = LLMatcher.validate_grammar(document)
    if refusal:
        reason, place = _blamed(schema, refusal)
        raise schemas.BadSchema(first_line(reason), place)
    return _first(document)


def _blamed(schema: schemas.Schema, refusal: str) -> tuple[str, str]:
    """llguidance's reason, and the place of the first part of the schema that it can be about."""
    keywords = next((words for sign, words in _SIGNS if sign in refusal), ())
    for place, part in schemas.subschemas(schema):
        for keyword in keywords:
            if keyword in part and not (keyword == "pattern" and _is_regex(part[keyword])):
                return refusal, f"{place}/{keyword}"
    return refusal, ""


_SIGNS = (
    ("oneOf constraints", ("oneOf",)),
    ("regex parse error", ("pattern",)),
    ("look-around", ("pattern",)),
    ("min/maxProperties", ("minProperties", "maxProperties")),
)
"""By what llguidance says, the keywords that it can mean."""


def _is_regex(pattern: Any) -> bool:
    document = LLMatcher.grammar_from_json_schema(json.dumps({"type": "string", "pattern": pattern}))
    return not LLMatcher.validate_grammar(document)


def _schema(output_format: OutputFormat) -> Grammar:
    schema = output_format.schema if output_format.schema is not None else {}
    schemas.check(schema)
    return schema_grammar(schemas.definite(schema))


def _object(output_format: OutputFormat) -> Grammar:
    return schema_grammar({"type": "object"})


def _regex(output_format: OutputFormat) -> Grammar:
    return _first(LLMatcher.grammar_from_regex(output_format.text or ""))


_GBNF_RULE = re.compile(r"^[ \t]*[\w-]+[ \t]*::=", re.MULTILINE)


def _grammar(output_format: OutputFormat) -> Grammar:
    """Lark as llguidance has it, or llama.cpp's GBNF, told apart by its ``::=``."""
    text = output_format.text or ""
    if not _GBNF_RULE.search(text):
        return _lark(text)
    try:
        return _lark(any_to_lark(text))
    except Exception as error:  # the converter's own exceptions are bare, and odd grammars trip it
        raise ValueError(first_line(f"as GBNF it is not valid: {error or type(error).__name__}")) from error


def _choice(output_format: OutputFormat) -> Grammar:
    choices = output_format.choices
    if not choices or "" in choices:
        raise ValueError("choices must be a list of texts, none of them empty")
    return _lark("start: " + " | ".join(map(quoted, choices)))


def _lark(text: str) -> Grammar:
    return {"lark_grammar": text}


def _first(document: str) -> Grammar:
    made: dict[str, Any] = json.loads(document)
    found: Grammar = made["grammars"][0]
    return {key: value for key, value in found.items() if value is not None}


_GRAMMARS: dict[str, Callable[[OutputFormat], Grammar]] = {
    "json_object": _object,
    "json_schema": _schema,
    "regex": _regex,
    "grammar": _grammar,
    "choice": _choice,
}

_WORDS = {
    "NoExtensionBias": "it allows no text at all, because a definition in it refers to itself without end",
    "oneOf constraints": "oneOf is enforced only where no value can match two of its schemas; use anyOf",
}
"""For those of llguidance's messages that say nothing to people."""


def first_line(message: str) -> str:
    """llguidance appends its inner state after ``<state>``; regex errors need their following lines."""
    for sign, words in _WORDS.items():
        if sign in message:
            return words
    return " ".join(message.split("<state>")[0].split())[:500] or "unknown error"
