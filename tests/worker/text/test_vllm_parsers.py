"""Contracts of vllm-mlx's parsers: what we rely on, and each defect we work round. A failure here means upstream moved.

When a defect is gone its work-round in ``vllm_compat/parsers.py`` can go too.
"""

from __future__ import annotations

import time

import pytest
from vllm_mlx.tool_parsers import ToolParserManager

from inference.worker.vllm_compat.parsers import parse_calls, reasoning_parser_names, reasoning_tags

CALL = '<tool_call>{"name": "weather", "arguments": {"city": "Oslo"}}</tool_call>'


def test_defect_the_streaming_half_lets_markers_out() -> None:
    parser = ToolParserManager.get_tool_parser("hermes")(None)
    leaked = ""
    for end in range(3, len(CALL), 3):
        found = parser.extract_tool_calls_streaming(CALL[: end - 3], CALL[:end], CALL[end - 3 : end])
        leaked += (found or {}).get("content") or ""
    assert leaked.startswith("<to")


def test_defect_a_think_tag_within_an_argument_destroys_the_call() -> None:
    text = CALL.replace("Oslo", "a</think>b")
    found = ToolParserManager.get_tool_parser("hermes")(None).extract_tool_calls(text)
    assert not found.tools_called
    assert parse_calls("hermes", text, [])[0].arguments == '{"city": "a</think>b"}'


def test_defect_many_start_markers_cost_quadratic_time() -> None:
    """Twice the text takes four times as long; compared with each other, never with a clock."""

    def seconds(markers: int) -> float:
        text = "<tool_call>{" * markers
        began = time.process_time()
        ToolParserManager.get_tool_parser("hermes")(None).extract_tool_calls(text)
        return time.process_time() - began

    assert seconds(1600) > 8 * seconds(200)
    assert parse_calls("hermes", "<tool_call>{" * 100_000, []) == []


def test_reasoning_parsers_name_their_tags() -> None:
    tags = {name: reasoning_tags(name) for name in reasoning_parser_names()}
    assert tags["qwen3"] == ("<think>", "</think>")
    assert tags["mistral"] == ("[THINK]", "[/THINK]")
    assert tags["gemma4"] == ("<|channel>thought", "<channel|>")
    assert {name for name, pair in tags.items() if pair is None} == {"gpt_oss", "harmony"}


def test_an_unknown_parser_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        ToolParserManager.get_tool_parser("nope")
