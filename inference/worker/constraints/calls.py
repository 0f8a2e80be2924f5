"""How each family of models writes tool calls, as grammars that hold a call to its tool's schema.

The grammars are in llguidance's Lark. Only what the family's parser reads back exactly is written: where the family
writes arguments as tags, the values are JSON if the parser tries JSON first. For a family, or a tool, that none of
these can carry, a call is a plain JSON object on a line of its own (``PLAIN``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from inference.worker.constraints.schemas import Schema

Arguments = Literal["json", "tags"]

SPACE = " ?"
"""Between the parts of a call's JSON: small models otherwise fill calls with newlines."""


@dataclass(frozen=True)
class CallSyntax:
    """One or more calls: ``before``, calls with ``between``, ``after``. A call is ``open`` NAME ``middle`` arguments
    ``close``.

    ``names`` matches the names of tools that this syntax can carry. Arguments written as ``tags`` are one
    ``parameter`` for each, with ``{key}`` and ``{value}`` in it, the value as JSON; with ``raw_texts`` texts stand
    without quotes.
    """

    open: str
    middle: str
    close: str
    before: str = ""
    between: str = "\n"
    after: str = ""
    arguments: Arguments = "json"
    parameter: str = ""
    raw_texts: bool = False
    names: str = r"[\w.-]+"

    @property
    def start(self) -> str:
        """The text or token by which a call begins."""
        return self.before or self.open


PLAIN = CallSyntax('{"name": "', '", "arguments": ', "}")
BARE = CallSyntax('{"name": "', '", "parameters": ', "}", between="; ")
"""A call as Llama writes it when nothing tells it from text."""

_HERMES = CallSyntax('<tool_call>\n{"name": "', '", "arguments": ', "}\n</tool_call>")
_ITEM = CallSyntax('{"name": "', '", "arguments": ', "}", between=", ", before="[", after="]")
_MISTRAL_LIST = replace(_ITEM, before="[TOOL_CALLS] [")
_MISTRAL_NAME = CallSyntax("[TOOL_CALLS]", "", "", between="", names=r"[\w-][\w.-]*")
_MISTRAL_ARGS = replace(_MISTRAL_NAME, middle="[ARGS]")
_FUNCTION_JSON = CallSyntax("<function=", ">", "</function>", between="")
_XML = CallSyntax(
    "<tool_call>\n<function=",
    ">\n",
    "</function>\n</tool_call>",
    arguments="tags",
    parameter="<parameter={key}>\n{value}\n</parameter>\n",
)
_GLM = CallSyntax(
    "<tool_call>",
    "\n",
    "</tool_call>",
    arguments="tags",
    parameter="<arg_key>{key}</arg_key>\n<arg_value>{value}</arg_value>\n",
)

SYNTAXES: dict[str, tuple[CallSyntax, ...]] = {
    "hermes": (_HERMES,),
    "qwen": (_HERMES, _FUNCTION_JSON),
    "qwen3_xml": (replace(_XML, raw_texts=True),),
    "nemotron": (_XML,),
    "step3p5": (_XML,),
    "glm47": (_GLM,),
    "poolside_v1": (replace(_GLM, raw_texts=True),),
    "mistral": (_MISTRAL_NAME,),
    "mistral_args": (_MISTRAL_ARGS,),
    "mistral_list": (_MISTRAL_LIST,),
    "llama": (
        CallSyntax('<|python_tag|>{"name": "', '", "parameters": ', "}", between="; "),
        _FUNCTION_JSON,
    ),
    "deepseek": (
        CallSyntax(
            "<｜tool▁call▁begin｜>function<｜tool▁sep｜>",
            "\n```json\n",
            "\n```<｜tool▁call▁end｜>",
            before="<｜tool▁calls▁begin｜>",
            after="<｜tool▁calls▁end｜>",
        ),
    ),
    "deepseek_v4": (
        CallSyntax(
            '<｜DSML｜invoke name="',
            '">\n',
            "</｜DSML｜invoke>",
            before="<｜DSML｜tool_calls>\n",
            after="\n</｜DSML｜tool_calls>",
            arguments="tags",
            parameter='<｜DSML｜parameter name="{key}" string="false">{value}</｜DSML｜parameter>\n',
        ),
    ),
    "kimi": (
        CallSyntax(
            "<|tool_call_begin|>functions.",
            ":0<|tool_call_argument_begin|>",
            "<|tool_call_end|>",
            before="<|tool_calls_section_begin|>",
            between="",
            after="<|tool_calls_section_end|>",
            names=r"[\w-]+",
        ),
    ),
    "granite": (replace(_ITEM, before="<|tool_call|>["),),
    "functionary": (_FUNCTION_JSON,),
    "minimax": (
        CallSyntax(
            '<invoke name="',
            '">\n',
            "</invoke>",
            before="<minimax:tool_call>\n",
            after="\n</minimax:tool_call>",
            arguments="tags",
            parameter='<parameter name="{key}">{value}</parameter>\n',
        ),
    ),
    "xlam": (replace(_ITEM, before="[TOOL_CALLS]["),),
    "auto": (_HERMES,),
}
"""By the parser's canonical name, the forms in which a free answer may begin a call; the first is the one that a
forced call takes. Of a family that writes calls in several ways, those not listed are no calls while a grammar holds.
"""

_BAD_IN_KEYS = re.compile(r"""[<>"{}\s]""")
_BAD_IN_TEXTS = re.compile(r"[<\s]|^$")
_READ_AS_NULL = re.compile(r"(?i)null|none")


@dataclass(frozen=True)
class Tool:
    """A tool that may be called. ``schema`` is that of its arguments, fit for a grammar."""

    name: str
    schema: Schema


class Lark:
    """Writes the parts of a Lark grammar; ``special`` are the tokens that no text can stand for, by their text."""

    def __init__(self, special: Mapping[str, int]) -> None:
        self._special = dict(special)
        texts = sorted((text for text in special if text), key=len, reverse=True)
        self._pattern = re.compile("(" + "|".join(map(re.escape, texts)) + ")") if texts else None

    def literal(self, text: str) -> str:
        """A text as it is, with its special tokens as tokens; "" gives nothing."""
        parts = self._pattern.split(text) if self._pattern is not None else [text]
        return " ".join(
            f"<[{self._special[part]}]>" if part in self._special else quoted(part) for part in parts if part
        )

    def leading_token(self, text: str) -> int | None:
        """The special token with which ``text`` begins, if it does."""
        if self._pattern is None or (found := self._pattern.match(text)) is None:
            return None
        return self._special[found[0]]

    def calls(
        self, syntax: CallSyntax, tools: Sequence[Tool], *, single: bool, prefix: str, begun: str = ""
    ) -> dict[str, str]:
        """The rules of ``prefix``, which is one call, or as many as the model likes.

        ``begun`` is the beginning of the syntax that stands in the text already.
        """
        rules = {f"{prefix}_arguments_{index}": self._arguments(syntax, tool) for index, tool in enumerate(tools)}
        before = syntax.before.removeprefix(begun)
        first = replace(syntax, open=syntax.open if syntax.before else syntax.open.removeprefix(begun))
        rules[f"{prefix}_first"] = self._one_of(first, tools, prefix)
        more = ""
        if not single:
            rules[f"{prefix}_next"] = self._one_of(syntax, tools, prefix)
            more = f"({self.literal(syntax.between)} {prefix}_next)*"
        rules[prefix] = f"{self.literal(before)} {prefix}_first {more} {self.literal(syntax.after)}"
        return rules

    def _one_of(self, syntax: CallSyntax, tools: Sequence[Tool], prefix: str) -> str:
        return " | ".join(
            f"{self.literal(syntax.open + tool.name + syntax.middle)} {prefix}_arguments_{index}"
            f" {self.literal(syntax.close)}"
            for index, tool in enumerate(tools)
        )

    def _arguments(self, syntax: CallSyntax, tool: Tool) -> str:
        if syntax.arguments == "json":
            return json_rule(tool.schema, SPACE)
        return self._tags(syntax, tool.schema) or '""'

    def _tags(self, syntax: CallSyntax, schema: Schema) -> str:
        made = []
        required = schema.get("required", [])
        shared = {key: schema[key] for key in ("$defs", "definitions") if key in schema}
        for key, value in schema["properties"].items():
            if value is False:
                continue
            head, tail = syntax.parameter.replace("{key}", key).split("{value}")
            inner = self._raw(value) if syntax.raw_texts and value.get("type") == "string" else None
            rule = f"{self.literal(head)} {inner or json_rule(value | shared, SPACE)} {self.literal(tail)}"
            made.append(rule if key in required else f"({rule})?")
        return " ".join(made)

    def _raw(self, schema: Schema) -> str:
        choices = _choices(schema)
        if choices is not None:
            return "(" + " | ".join(map(self.literal, choices)) + ")"
        return "RAW_TEXT"


RAW_TEXT = r"RAW_TEXT: /[^<\s]([^<]*[^<\s])?/ & ~/(?i:null|none)/"
"""A text as it stands between tags: none that the parser would take for something else."""


def carries(syntax: CallSyntax, tools: Sequence[Tool]) -> bool:
    """Whether calls of all these tools can be written so that the parser reads back what was meant."""
    if not all(re.fullmatch(syntax.names, tool.name) for tool in tools):
        return False
    return syntax.arguments == "json" or all(_fits_tags(tool.schema, raw=syntax.raw_texts) for tool in tools)


def _fits_tags(schema: Schema, *, raw: bool) -> bool:
    """A plain list of properties; texts without quotes only where nothing but a choice restricts them."""
    told = {"$defs", "definitions", "additionalProperties", "description", "properties", "required", "title", "type"}
    properties = schema.get("properties")
    if set(schema) - told - {"$schema", "$id", "examples"} or not isinstance(properties, dict):
        return False
    if schema.get("additionalProperties", False) is not False or "#/properties" in json.dumps(schema):
        return False
    required = schema.get("required", [])
    if not isinstance(required, list) or any(properties.get(name, False) is False for name in required):
        return False
    return all(_fits_tag(key, value, raw=raw) for key, value in properties.items())


def _fits_tag(key: str, value: Any, *, raw: bool) -> bool:
    if _BAD_IN_KEYS.search(key) or not key or not (isinstance(value, dict) or value is False):
        return False
    if not raw or value is False:
        return True
    if not isinstance(value.get("type"), str):
        return False
    if value["type"] != "string":
        return True
    choices = _choices(value)
    if choices is not None:
        return all(not _BAD_IN_TEXTS.search(text) and not _READ_AS_NULL.fullmatch(text) for text in choices)
    return not any(key in value for key in ("pattern", "format", "minLength", "maxLength", "enum", "const", "not"))


def _choices(schema: Schema) -> list[str] | None:
    listed = [schema["const"]] if "const" in schema else schema.get("enum")
    if not isinstance(listed, list) or not listed or not all(isinstance(text, str) for text in listed):
        return None
    return listed


def quoted(text: str) -> str:
    """A Lark literal."""
    return json.dumps(text, ensure_ascii=False)


def json_rule(schema: Schema, whitespace: str) -> str:
    return "%json " + json.dumps(schema | {"x-guidance": {"whitespace_pattern": whitespace}}, ensure_ascii=False)
