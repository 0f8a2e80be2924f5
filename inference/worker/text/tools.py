"""How each family writes tool calls: its start markers and what reads behind them; ids for the calls."""

from __future__ import annotations

import secrets
import string
import uuid
from dataclasses import dataclass
from typing import Literal, NamedTuple

from inference.worker.text import call_forms as forms
from inference.worker.text import call_xml as xml
from inference.worker.text.call_json import Envelope

Forced = Literal["", "native", "json"]


class Block(NamedTuple):
    """``end`` is the marker that ends it, "" where there is none. Without a machine it is read as a whole."""

    end: str
    machine: forms.Machine | None


@dataclass(frozen=True)
class Syntax:
    """How one family writes calls: what each start marker begins.

    ``inner`` are further special tokens that stand inside a block. ``bare`` says how a call without marker is written,
    None if it is not. ``short_ids`` are Mistral's, nine letters and digits, which its templates insist on.
    """

    blocks: dict[str, Block]
    inner: tuple[str, ...] = ()
    bare: Envelope | None = None
    short_ids: bool = False

    @property
    def markers(self) -> tuple[str, ...]:
        return (*self.blocks, *(block.end for block in self.blocks.values() if block.end), *self.inner)


_BARE = Envelope(bare=True)


def _tag(machine: forms.Machine) -> dict[str, Block]:
    return {"<tool_call>": Block("</tool_call>", machine)}


def _function(form: xml.Form) -> dict[str, Block]:
    return {"<function=": Block("</function>", forms.function_call(form))}


_ARG_TAGS = ("<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>")
_KIMI = {
    "<|tool_calls_section_begin|>": Block("<|tool_calls_section_end|>", forms.kimi),
    "<|tool_call_section_begin|>": Block("<|tool_call_section_end|>", forms.kimi),
}
_DEEPSEEK = {"<｜tool▁calls▁begin｜>": Block("<｜tool▁calls▁end｜>", forms.deepseek)}
_DSML_END = "</｜DSML｜tool_calls>"
_DSML = {"<｜DSML｜tool_calls>": Block(_DSML_END, forms.invokes('<｜DSML｜invoke name="', _DSML_END, xml.DSML))}
_MINIMAX_END = "</minimax:tool_call>"
_MINIMAX = {"<minimax:tool_call>": Block(_MINIMAX_END, forms.invokes('<invoke name="', _MINIMAX_END, xml.INVOKE))}
_GEMMA = {"<|tool_call>": Block("<tool_call|>", None)}
_MISTRAL = {"[TOOL_CALLS]": Block("", forms.mistral)}
_BRACKET = {"[Calling tool:": Block(")]", forms.bracketed)}
_GRANITE = Envelope(type_is_name=True)
_QWEN = _tag(forms.tagged(xml.FUNCTION)) | _function(xml.FUNCTION)
_SPACED = _tag(forms.tagged(xml.FUNCTION_SPACED)) | _function(xml.FUNCTION_SPACED)

SYNTAXES: dict[str, Syntax] = {
    "hermes": Syntax(_SPACED, bare=_BARE),
    "qwen": Syntax(_QWEN | _BRACKET),
    "qwen3_xml": Syntax(_QWEN),
    "nemotron": Syntax(_SPACED),
    "step3p5": Syntax(_QWEN),
    "glm47": Syntax(_tag(forms.tagged(xml.FUNCTION, xml.KEYS)), _ARG_TAGS),
    "poolside_v1": Syntax(_tag(forms.tagged(xml.FUNCTION, xml.KEYS_EXACT)), _ARG_TAGS),
    "mistral": Syntax(_MISTRAL, ("[ARGS]", "[CALL_ID]"), short_ids=True),
    "llama": Syntax(
        {"<|python_tag|>": Block("", forms.several(Envelope()))} | _function(xml.FUNCTION_SPACED), bare=_BARE
    ),
    "deepseek": Syntax(_DEEPSEEK, ("<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<｜tool▁call▁end｜>")),
    "deepseek_v4": Syntax(_DSML),
    "kimi": Syntax(_KIMI, ("<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>")),
    "granite": Syntax(
        {
            "<|tool_call|>": Block("", forms.listed(_GRANITE)),
            "<tool_call>": Block("", forms.listed(_GRANITE)),
        },
        bare=Envelope(bare=True, type_is_name=True),
    ),
    "gemma4": Syntax(_GEMMA, ('<|"|>',)),
    "minimax": Syntax(_MINIMAX),
    "functionary": Syntax(
        {
            "<|from|>": Block("", forms.functionary(from_=True)),
            "<|recipient|>": Block("", forms.functionary(from_=False)),
        }
        | _function(xml.FUNCTION_SPACED),
        ("<|content|>",),
        bare=_BARE,
    ),
    "xlam": Syntax(_MISTRAL | {"```json": Block("```", forms.fenced), "```": Block("```", forms.fenced)}, bare=_BARE),
    "harmony": Syntax({}),
    "auto": Syntax(
        _tag(forms.tagged(xml.FUNCTION_SPACED, xml.KEYS))
        | _function(xml.FUNCTION_SPACED)
        | _BRACKET
        | _GEMMA
        | _DSML
        | _MISTRAL,
        ('<|"|>', "[ARGS]", "[CALL_ID]", *_ARG_TAGS),
        bare=_BARE,
    ),
}

JSON_LINES = Syntax({}, bare=_BARE)
"""Calls a grammar makes of a model whose own syntax has none: objects without markers, one a line."""

_ALPHANUMERIC = string.ascii_letters + string.digits


def call_id() -> str:
    return f"call_{uuid.uuid4().hex[:24]}"


def short_call_id() -> str:
    return "".join(secrets.choice(_ALPHANUMERIC) for _ in range(9))
