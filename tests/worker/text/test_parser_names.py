"""The names of parsers that may be set are those that the worker knows."""

from __future__ import annotations

from inference.model_settings_fields import REASONING_PARSERS, TOOL_PARSERS
from inference.worker.vllm_compat.parsers import reasoning_parser_names, tool_parser_names


def test_they_are_the_workers() -> None:
    assert list(TOOL_PARSERS) == sorted(tool_parser_names())
    assert list(REASONING_PARSERS) == sorted(reasoning_parser_names())
