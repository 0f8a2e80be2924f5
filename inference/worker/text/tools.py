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
    """``end`` is the marker that ends it, "" where there is none. Without a machine it is read as a whole.

    ``known``: it may well be no call, as other things begin so too, and counts only for functions of the request.
    """

    end: str
    machine: forms.Machine | None
    known: bool = False


@dataclass(frozen=True)
class Syntax:
    """How one family writes calls: what each start marker begins.

    ``inner`` are further special tokens that stand inside a block. ``bare`` says how a call without marker is written,
    None if it is not. ``short_ids`` are Mistral's, nine letters and digits, which its templates insist on. ``special``:
    all markers are special tokens, which are no text wherever they stand.
    """

    blocks: dict[str, Block]
    inner: tuple[str, ...] = ()
    bare: Envelope | None = None
    short_ids: bool = False
    special: bool = False

    @property
    def markers(self) -> tuple[str, ...]:
        return (*self.blocks, *(block.end for block in self.blocks.values() if block.end), *self.inner)


_BARE = Envelope(bare=True)


def _tag(machine: forms.Machine) -> dict[str, Block]:
    return {"<tool_call>": Block("</tool_call>", machine)}


def _function(form: xml.Form) -> dict[str, Block]:
    return {"<function=": Block("</function>", forms.function_call(form))}


_ARG_TAGS = ("<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>")
# In each of these the last block is a call that stands without the markers around all calls.
_KIMI = {
    "<|tool_calls_section_begin|>": Block("<|tool_calls_section_end|>", forms.kimi(begun=False)),
    "<|tool_call_section_begin|>": Block("<|tool_call_section_end|>", forms.kimi(begun=False)),
    "<|tool_call_begin|>": Block("<|tool_call_end|>", forms.kimi(begun=True)),
}
_DEEPSEEK = {
    "<｜tool▁calls▁begin｜>": Block("<｜tool▁calls▁end｜>", forms.deepseek(begun=False)),
    "<｜tool▁call▁begin｜>": Block("<｜tool▁call▁end｜>", forms.deepseek(begun=True)),
}
_DSML_END, _DSML_CALL = "</｜DSML｜tool_calls>", '<｜DSML｜invoke name="'
_DSML = {
    "<｜DSML｜tool_calls>": Block(_DSML_END, forms.invokes(_DSML_CALL, _DSML_END, xml.DSML)),
    _DSML_CALL: Block("</｜DSML｜invoke>", forms.invokes(_DSML_CALL, _DSML_END, xml.DSML, begun=True)),
}
_MINIMAX_END, _MINIMAX_CALL = "</minimax:tool_call>", '<invoke name="'
_MINIMAX = {
    "<minimax:tool_call>": Block(_MINIMAX_END, forms.invokes(_MINIMAX_CALL, _MINIMAX_END, xml.INVOKE)),
    _MINIMAX_CALL: Block(
        "</invoke>", forms.invokes(_MINIMAX_CALL, _MINIMAX_END, xml.INVOKE, begun=True, known=True), known=True
    ),
}
_GEMMA = {"<|tool_call>": Block("<tool_call|>", None)}
_MISTRAL = {"[TOOL_CALLS]": Block("", forms.mistral)}
_BRACKET = {"[Calling tool:": Block(")]", forms.bracketed)}
_FENCE = {start: Block("```", forms.fenced, known=True) for start in ("```json", "```")}
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
    "deepseek": Syntax(_DEEPSEEK, ("<｜tool▁sep｜>",), special=True),
    "deepseek_v4": Syntax(_DSML, (_DSML_END,)),
    "kimi": Syntax(_KIMI, ("<|tool_call_argument_begin|>",), special=True),
    "granite": Syntax(
        {
            "<|tool_call|>": Block("", forms.listed(_GRANITE)),
            "<tool_call>": Block("", forms.listed(_GRANITE)),
        },
        bare=Envelope(bare=True, type_is_name=True),
    ),
    "gemma4": Syntax(_GEMMA, ('<|"|>',)),
    "minimax": Syntax(_MINIMAX, (_MINIMAX_END,)),
    "functionary": Syntax(
        {
            "<|from|>": Block("", forms.functionary(from_=True)),
            "<|recipient|>": Block("", forms.functionary(from_=False)),
        }
        | _function(xml.FUNCTION_SPACED),
        ("<|content|>",),
        bare=_BARE,
    ),
    "xlam": Syntax(_MISTRAL | _FENCE, bare=_BARE),
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
