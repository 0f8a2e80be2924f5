"""What an answer must look like: ``response_format``, and the names that vLLM and llama.cpp have for the same.

All of them become one ``OutputFormat``; two at once are refused, as no answer can be both. An empty value means off.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import orjson
from pydantic import Field

from inference.ipc import OutputFormat
from inference.protocols.validation import WireModel, refuse

_NAME = r"^[a-zA-Z0-9_.\-]{1,64}$"
Schema = str | dict[str, Any] | None
Choices = Annotated[list[str], Field(fail_fast=True)] | None


class JsonSchemaFormat(WireModel):
    name: str = Field(pattern=_NAME)
    description: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class ResponseFormat(WireModel):
    """``text``, ``json_object`` (any JSON object) or ``json_schema`` (enforced while decoding, strict or not).

    ``schema`` beside ``type`` is llama.cpp's place for the JSON Schema.
    """

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")


class StructuredOutputs(WireModel):
    """vLLM's ``structured_outputs``: one of these. ``json`` is a JSON Schema, also as its text."""

    json_: Schema = Field(None, alias="json")
    regex: str | None = None
    choice: Choices = None
    grammar: str | None = None
    json_object: bool | None = None
    structural_tag: Any = None
    whitespace_pattern: str | None = None


class ConstraintParams(WireModel):
    """The parameters themselves; at most one may ask for something."""

    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = Field(None, description="vLLM: json, regex, choice or grammar.")
    guided_json: Schema = Field(None, description="JSON Schema, also as its text.")
    guided_regex: str | None = None
    guided_choice: Choices = None
    guided_grammar: str | None = None
    json_schema: dict[str, Any] | None = Field(None, description="llama.cpp's name for a JSON Schema.")
    regex: str | None = None
    choice: Choices = None
    grammar: str | None = None


def output_format(params: ConstraintParams) -> OutputFormat:
    """The constraint on the answer's text; ``InvalidRequest`` names the second of two, or what is none."""
    asked = asked_format(params)
    return OutputFormat() if asked is None else asked[1]


def asked_format(params: ConstraintParams) -> tuple[str, OutputFormat] | None:
    """The constraint with the name of the parameter that asks for it, None where nothing does."""
    made = _response_format(params.response_format)
    asked = {"response_format": made} if made.kind != "text" else {}
    asked |= _structured(params.structured_outputs)
    asked |= _named("guided_json", "guided_regex", "guided_choice", "guided_grammar", params)
    asked |= _named("json_schema", "regex", "choice", "grammar", params)
    names = list(asked)
    if len(names) > 1:
        raise refuse(names[1], f"cannot be combined with {names[0]}: an answer has one format")
    return (names[0], asked[names[0]]) if names else None


def _response_format(wanted: ResponseFormat | None) -> OutputFormat:
    if wanted is None or wanted.type == "text":
        return OutputFormat()
    if wanted.type == "json_object":
        if wanted.schema_ is not None:
            return OutputFormat(kind="json_schema", schema=wanted.schema_)
        return OutputFormat(kind="json_object")
    if wanted.json_schema is not None:
        return OutputFormat(kind="json_schema", schema=wanted.json_schema.schema_ or {})
    if wanted.schema_ is None:
        raise refuse("response_format.json_schema", "is required", code="missing_required_parameter")
    return OutputFormat(kind="json_schema", schema=wanted.schema_)


def _structured(wanted: StructuredOutputs | None) -> dict[str, OutputFormat]:
    if wanted is None:
        return {}
    for name in ("structural_tag", "whitespace_pattern"):
        if getattr(wanted, name):
            raise refuse(
                f"structured_outputs.{name}",
                "would change the answer and is not supported; leave it out",
                code="unsupported_parameter",
            )
    found = _named("json_", "regex", "choice", "grammar", wanted, "structured_outputs.")
    if wanted.json_object:
        found["structured_outputs.json_object"] = OutputFormat(kind="json_object")
    return found


def _named(
    schema: str, regex: str, choice: str, grammar: str, params: WireModel, prefix: str = ""
) -> dict[str, OutputFormat]:
    """What is asked for under these four names, by the whole name."""
    found: dict[str, OutputFormat] = {}
    if (wanted := getattr(params, schema)) not in (None, ""):
        name = prefix + schema.removesuffix("_")
        found[name] = OutputFormat(kind="json_schema", schema=_schema(wanted, name))
    if pattern := getattr(params, regex):
        found[prefix + regex] = OutputFormat(kind="regex", text=pattern)
    if choices := getattr(params, choice):
        found[prefix + choice] = OutputFormat(kind="choice", choices=choices)
    if rules := getattr(params, grammar):
        found[prefix + grammar] = OutputFormat(kind="grammar", text=rules)
    return found


def _schema(wanted: str | dict[str, Any], name: str) -> dict[str, Any]:
    if isinstance(wanted, dict):
        return wanted
    try:
        schema = orjson.loads(wanted)
    except orjson.JSONDecodeError:
        raise refuse(name, "must be a JSON Schema, as an object or as its JSON text") from None
    if not isinstance(schema, dict):
        raise refuse(name, "must be the JSON text of an object")
    return schema
