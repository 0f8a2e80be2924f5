"""What the audit log keeps of a request's parameters."""

from __future__ import annotations

from typing import Any

import pytest

from lmx_site.audit import shown


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("max_tokens", "512", "512"),
        ("max_tokens", 512, 512),
        ("tokenizer", "x", "x"),
        ("hf_token", "hf_abc", "hidden"),
        ("api_key", ["a"], "hidden"),
        ("X-Token", {"a": 1}, "hidden"),
        ("system_prompt", "Be kind.", "8 characters"),
        ("messages", [{"role": "user"}], "hidden"),
        ("deep", {"a": {"password": "p", "b": {"c": {"d": 1}}}}, {"a": {"password": "hidden", "b": {"c": "hidden"}}}),
        ("long", "x" * 999, "x" * 200),
        ("large", 2**70, str(2**70)),
        ("nothing", None, None),
    ],
)
def test_it_works(name: str, value: Any, kept: Any) -> None:
    assert shown({name: value}) == {name[:64]: kept}


def test_many_fields_are_cut() -> None:
    assert len(shown({str(number): number for number in range(999)})) == 40
