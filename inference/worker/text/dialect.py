"""How one model marks its reasoning and its tool calls, found from its template, vocabulary and kind."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from inference.template_habits import reasoning_parser as reasoning_habit
from inference.worker.constraints.calls import SYNTAXES as CALL_SYNTAXES
from inference.worker.constraints.calls import CallSyntax
from inference.worker.constraints.gate import Reasoning
from inference.worker.text import harmony
from inference.worker.text.chat import opens_reasoning
from inference.worker.text.split import Plain, Splitter, Tags
from inference.worker.text.tools import SYNTAXES, Syntax
from inference.worker.vllm_compat.parsers import (
    CANONICAL,
    reasoning_parser_names,
    reasoning_tags,
    tool_parser_names,
)

HARMONY_REASONING = ("gpt_oss", "harmony")
_ANALYSIS = ("<|channel|>analysis<|message|>", "<|end|>")

_TOOL_MARKERS = (
    ("<|call|>", "harmony"),
    ("<|tool_call>", "gemma4"),
    ("<minimax:tool_call>", "minimax"),
    ("<arg_key>", "glm47"),
    ("<|tool_calls_section_begin|>", "kimi"),
    ("｜DSML｜", "deepseek_v4"),
    ("<｜tool▁calls▁begin｜>", "deepseek"),
    ("[TOOL_CALLS]", "mistral"),
    ("<function=", "qwen3_xml"),
    ("<|tool_call|>", "granite"),
    ("<|recipient|>", "functionary"),
    ("<tool_call>", "hermes"),
    ("<|python_tag|>", "llama"),
    ('"parameters": dictionary of argument', "llama"),
)
"""What a template says about the calls it expects, the most telling first."""

_BY_MODEL_TYPE = (
    ("step3p", "step3p5"),
    ("nemotron", "nemotron"),
    ("poolside", "poolside_v1"),
    ("laguna", "poolside_v1"),
)


@dataclass(frozen=True)
class Dialect:
    """The parsers of one model by vllm-mlx's names; None where it has no such habit.

    ``call_form`` says which of the ways that one parser reads is this model's own, as ``calls.SYNTAXES`` names it.
    """

    tool_parser: str | None = None
    reasoning_parser: str | None = None
    call_form: str = ""

    @property
    def channels(self) -> bool:
        return self.reasoning_parser in HARMONY_REASONING or self.tool_parser == "harmony"

    @property
    def tags(self) -> tuple[str, str] | None:
        if self.channels or self.reasoning_parser is None:
            return None
        return reasoning_tags(self.reasoning_parser)

    @property
    def syntax(self) -> Syntax | None:
        if self.tool_parser is None or self.channels:
            return None
        return SYNTAXES[CANONICAL.get(self.tool_parser, self.tool_parser)]

    def splitter(self, prompt: str, *, tools: bool, begun: str = "", held: bool = False) -> Splitter:
        """A fresh one for a choice whose prompt is ``prompt``, which ends with ``begun``.

        ``held`` says that a grammar describes the answer, in which a marker is then nothing but text.
        """
        if self.channels:
            return harmony.Channels(tools=tools)
        tags = self.tags
        if tags is None:
            return Plain()
        opened = opens_reasoning(prompt, tags[0]) or begun.rfind(tags[0]) > begun.rfind(tags[1])
        return Tags(*tags, opened=opened, once=held)

    def markers(self, *, tools: bool) -> frozenset[str]:
        """Texts that the parsers must see, also where a special token makes the whole or a part of one."""
        seen: set[str] = set(self.tags or ())
        if self.channels:
            seen |= set(harmony.MARKERS)
        if tools and self.syntax is not None:
            seen |= set(self.syntax.markers)
        return frozenset(seen)

    @property
    def forms(self) -> tuple[CallSyntax, ...]:
        """The ways in which a grammar can write this model's calls."""
        name = self.call_form or CANONICAL.get(self.tool_parser or "", self.tool_parser or "")
        return CALL_SYNTAXES.get(name, ())

    @property
    def bare_calls(self) -> bool:
        """Whether this model writes its calls without a marker."""
        return self.tool_parser is not None and CANONICAL.get(self.tool_parser, self.tool_parser) == "llama"

    def reasoning(self, prompt: str, vocabulary: Mapping[str, int], begun: str = "") -> Reasoning | None:
        """How the answer to this prompt separates its reasoning; None if this model does not reason.

        ``begun`` is the text of the answer that the prompt has already.
        """
        if self.channels:
            return None if begun else Reasoning(*_ANALYSIS, open=False, within=True)
        if (tags := self.tags) is None:
            return None
        if opens_reasoning(prompt, tags[0]) or begun.rfind(tags[0]) > begun.rfind(tags[1]):
            return Reasoning(*tags)
        ended = prompt.rstrip().endswith(tags[1]) or tags[1] in begun
        return Reasoning(*tags, open=False, start_token=None if ended or begun else vocabulary.get(tags[0]))


def detect(
    template: str,
    vocabulary: Collection[str],
    config: Mapping[str, Any],
    *,
    tools: bool,
    tool_parser: str | None = None,
    reasoning_parser: str | None = None,
) -> Dialect:
    """``tools`` says whether the template shows tools; where it does not, they are spelled out as Hermes writes them.

    The two parsers are the owner's choice and win if given.

    Raises ``ValueError`` that lists the known names when a given one is unknown.
    """
    _known(tool_parser, tool_parser_names(), "tool_parser")
    _known(reasoning_parser, reasoning_parser_names(), "reasoning_parser")
    kind = str(config.get("model_type", "")).lower()
    told = _tool_parser(template, kind) if tools else "hermes" if template else None
    calls = tool_parser or told
    return Dialect(
        calls,
        reasoning_parser or reasoning_habit(template, vocabulary, kind),
        _mistral_form(template) if calls == "mistral" else "",
    )


def _mistral_form(template: str) -> str:
    """Three generations of one family, told apart by what the template writes of earlier calls."""
    if "[ARGS]" in template:
        return "mistral_args"
    return "mistral_list" if re.search(r"\[TOOL_CALLS\]\s*\[", template) else ""


def _known(name: str | None, names: Collection[str], option: str) -> None:
    if name is not None and name not in names:
        raise ValueError(f"{option} {name!r} is unknown; it can be one of {', '.join(sorted(names))}")


def _tool_parser(template: str, kind: str) -> str:
    for prefix, name in _BY_MODEL_TYPE:
        if kind.startswith(prefix) and "<tool_call>" in template:
            return name
    for marker, name in _TOOL_MARKERS:
        if marker in template:
            return name
    return "auto"
