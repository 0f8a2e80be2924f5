"""vllm-mlx's parsers of tool calls and reasoning, made fit for one request each.

Defects of vllm-mlx 0.6.0 that are worked round here; ``tests/worker/text/test_vllm_parsers.py`` fails when one is gone.

1. ``extract_tool_calls_streaming`` lets the beginning of a split marker out as content (hermes, mistral, auto) and
   then finds no call (mistral, auto). We never call it: ``text.call_gate.ToolGate`` streams with machines of its own
   and gives what these do not know to ``extract_tool_calls``, a whole block at a time.
2. ``extract_tool_calls`` of several parsers first deletes everything up to a ``</think>``, also one within an
   argument. Reasoning is separated before, so the deletion is switched off.
3. Parsers raise on some malformed calls. That ends no request: such a block is text.
4. The expressions of hermes, qwen, gemma4, deepseek, auto and others need quadratic time or worse on a text with
   thousands of start markers, as a model that repeats itself writes it, and hold the interpreter for seconds, and
   with it the stepping thread. Over ``MAX_STARTS`` start markers a text is no call.

Importing this module loads neither MLX nor torch.
"""

from __future__ import annotations

import logging
from typing import Any

from vllm_mlx.reasoning import BaseThinkingReasoningParser, get_parser, list_parsers
from vllm_mlx.tool_parsers import ToolParserManager

from inference.worker.text.split import Call

log = logging.getLogger(__name__)

CANONICAL = {
    "generic": "auto",
    "deepseek_r1": "deepseek",
    "deepseek_v3": "deepseek",
    "dsml": "deepseek_v4",
    "meetkai": "functionary",
    "glm4": "glm47",
    "granite3": "granite",
    "gpt-oss": "harmony",
    "nous": "hermes",
    "kimi_k2": "kimi",
    "moonshot": "kimi",
    "llama3": "llama",
    "llama4": "llama",
    "minimax_m2": "minimax",
    "nemotron3": "nemotron",
    "qwen3": "qwen",
    "qwen3.5": "qwen3_xml",
    "qwen3_coder": "qwen3_xml",
    "step": "step3p5",
}
"""Second names of vllm-mlx's tool parsers."""

_START_TAGS = {"gemma4": "<|channel>thought"}
"""Where the parser's own start token is not the whole marker that must not be seen."""


MAX_STARTS = 128
_QUADRATIC_STARTS = (
    "<tool_call",
    "<function=",
    "<parameter=",
    "[Calling tool:",
    "<|tool_call>",
    "<｜tool▁call▁begin｜>",
    "<minimax:tool_call>",
    "<invoke ",
)
_GEMMA_CALL = "call:"


def tool_parser_names() -> list[str]:
    return list(ToolParserManager.list_registered())


def reasoning_parser_names() -> list[str]:
    return list(list_parsers())


def reasoning_tags(name: str) -> tuple[str, str] | None:
    """Start and end marker of a reasoning parser, None for those that are not a pair of tags (gpt-oss)."""
    parser = get_parser(name)
    if not issubclass(parser, BaseThinkingReasoningParser):
        return None
    made = parser(None)
    return _START_TAGS.get(name, str(made.start_token)), str(made.end_token)


def parse_calls(name: str, text: str, tools: list[dict[str, Any]]) -> list[Call]:
    """The calls in ``text``, by a fresh parser; [] also when the parser gives up. ``tools`` decide argument types."""
    starts = (*_QUADRATIC_STARTS, _GEMMA_CALL) if name in ("gemma4", "auto") else _QUADRATIC_STARTS
    if sum(map(text.count, starts)) > MAX_STARTS:
        return []
    try:
        parser = ToolParserManager.get_tool_parser(name)(None)
        parser.strip_think_tags = _unchanged
        found = parser.extract_tool_calls(text, {"tools": tools})
        if not found.tools_called:
            return []
        if not all(isinstance(call["name"], str) and call["name"].isprintable() for call in found.tool_calls):
            return []
        return [Call(str(call["id"]), call["name"], _encodable(call["arguments"])) for call in found.tool_calls]
    except Exception as error:
        log.warning("the %s parser failed on a tool call: %s", name, type(error).__name__)
        return []


def _encodable(arguments: Any) -> str:
    """Half a surrogate pair, which JSON can escape, has no UTF-8."""
    return str(arguments).encode("utf-8", "replace").decode()


def _unchanged(text: str) -> str:
    return text
