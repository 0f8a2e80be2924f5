"""How each family of models writes tool calls, as grammars that hold a call to its tool's schema.

Only what the family's parser reads back exactly is written. For a family, or a tool, that none of these can carry, a
call is a plain JSON object on a line of its own (``PLAIN``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from inference.worker.constraints.lark import Lark, json_rule, quoted
from inference.worker.constraints.schemas import Schema
from inference.worker.constraints.tags import Tags, fits

SPACE = " ?"
"""Between the parts of a call's JSON: small models otherwise fill calls with newlines."""


@dataclass(frozen=True)
class CallSyntax:
    """One or more calls: ``before``, calls with ``between``, ``after``. A call is ``open`` NAME ``middle`` arguments
    ``close``.

    ``names`` matches the names of tools that this syntax can carry. Arguments are a JSON object, or one ``parameter``
    for each, with ``{key}`` and ``{value}`` in it, where texts stand without quotes unless ``json_only``.
    """

    open: str
    middle: str
    close: str
    before: str = ""
    between: str = "\n"
    after: str = ""
    parameter: str = ""
    json_only: bool = False
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
    parameter="<parameter={key}>\n{value}\n</parameter>\n",
)
_GLM = CallSyntax(
    "<tool_call>",
    "\n",
    "</tool_call>",
    parameter="<arg_key>{key}</arg_key>\n<arg_value>{value}</arg_value>\n",
)

SYNTAXES: dict[str, tuple[CallSyntax, ...]] = {
    "hermes": (_HERMES,),
    "qwen": (_HERMES, _FUNCTION_JSON),
    "qwen3_xml": (_XML,),
    "nemotron": (_XML,),
    "step3p5": (_XML,),
    "glm47": (_GLM,),
    "poolside_v1": (_GLM,),
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
            parameter='<｜DSML｜parameter name="{key}" string="false">{value}</｜DSML｜parameter>\n',
            json_only=True,
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
            parameter='<parameter name="{key}">{value}</parameter>\n',
        ),
    ),
    "xlam": (replace(_ITEM, before="[TOOL_CALLS]["),),
    "auto": (_HERMES,),
}
"""By the parser's canonical name, the forms in which a free answer may begin a call; the first is the one that a
forced call takes. Of a family that writes calls in several ways, those not listed are no calls while a grammar holds.
"""


@dataclass(frozen=True)
class Tool:
    """A tool that may be called. ``schema`` is that of its arguments, fit for a grammar."""

    name: str
    schema: Schema


def rules_of(
    lark: Lark, syntax: CallSyntax, tools: Sequence[Tool], *, single: bool, prefix: str, begun: str = ""
) -> dict[str, str]:
    """The rules of ``prefix``, which is one call, or as many as the model likes.

    ``begun`` is the beginning of the syntax that stands in the text already.
    """
    rules: dict[str, str] = {}
    for index, tool in enumerate(tools):
        name = f"{prefix}_arguments_{index}"
        if syntax.parameter:
            tags = Tags(lark, syntax.parameter, name, SPACE, json_only=syntax.json_only)
            rules[name] = tags.arguments(tool.schema)
            rules |= tags.rules
        else:
            rules[name] = json_rule(tool.schema, SPACE)
    before = syntax.before.removeprefix(begun)
    first = replace(syntax, open=syntax.open if syntax.before else syntax.open.removeprefix(begun))
    rules[f"{prefix}_first"] = _one_of(lark, first, tools, prefix)
    more = ""
    if not single:
        rules[f"{prefix}_next"] = _one_of(lark, syntax, tools, prefix)
        more = f"({lark.literal(syntax.between)} {prefix}_next)*"
    rules[prefix] = f"{lark.literal(before)} {prefix}_first {more} {lark.literal(syntax.after)}"
    return rules


def _one_of(lark: Lark, syntax: CallSyntax, tools: Sequence[Tool], prefix: str) -> str:
    close = lark.literal(syntax.close)
    heads = [lark.literal(syntax.open + quoted(tool.name)[1:-1] + syntax.middle) for tool in tools]
    return " | ".join(f"{head} {prefix}_arguments_{index} {close}" for index, head in enumerate(heads))


def carries(syntax: CallSyntax, tools: Sequence[Tool]) -> bool:
    """Whether calls of all these tools can be written so that the parser reads back what was meant."""
    if not all(re.fullmatch(syntax.names, tool.name) for tool in tools):
        return False
    return not syntax.parameter or all(fits(tool.schema, json_only=syntax.json_only) for tool in tools)
