"""``docs/anthropic.md`` tells of every parameter, block, rule and error."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel

from inference.protocols.anthropic.requests import NO_EFFECT, REFUSED, CountRequest, MessageRequest

DOCS = (Path(__file__).resolve().parents[2] / "docs" / "anthropic.md").read_text(encoding="utf-8")


def section(heading: str) -> str:
    return DOCS.split(f"## `{heading}`", 1)[1].split("\n## ", 1)[0]


@pytest.mark.parametrize(
    ("heading", "model"), [("POST /v1/messages", MessageRequest), ("POST /v1/messages/count_tokens", CountRequest)]
)
def test_every_parameter_is_documented(heading: str, model: type[BaseModel]) -> None:
    text = section(heading)
    assert {name for name in model.model_fields if f"`{name}`" not in text} == set()


def test_every_rule_is_documented() -> None:
    text = section("POST /v1/messages")
    assert {name for name in NO_EFFECT | set(REFUSED) if f"`{name}`" not in text} == set()
