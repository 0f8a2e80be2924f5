"""What the audit log keeps of a request's parameters."""

from __future__ import annotations

from typing import Any

import pytest

from lmx_site.audit_shown import shown, text_of


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
        ("stop", ["SECRET"], "hidden"),
        (
            "settings",
            {"chat_template_kwargs": {"persona": "p"}, "top_k": 3},
            {"chat_template_kwargs": "hidden", "top_k": 3},
        ),
        ("path", "https://user:hunter2@host/x", "https://hidden@host/x"),
        ("path", "use hf_ABCDEFGHIJKLMNOP please", "use hidden please"),
    ],
)
def test_it_works(name: str, value: Any, kept: Any) -> None:
    assert shown({name: value}) == {name[:64]: kept}


def test_many_fields_are_cut() -> None:
    assert len(shown({str(number): number for number in range(999)})) == 40


def test_what_is_too_long_in_all_is_named_alone() -> None:
    found = shown({str(number): ["x" * 200] * 40 for number in range(40)})
    assert found == {"too_long": [str(number) for number in range(40)]}


def test_a_subject_hides_secrets() -> None:
    assert text_of("https://user:hf_SECRETTOKEN12@huggingface.co/org/name") == "https://hidden@huggingface.co/org/name"
    assert text_of("org/name") == "org/name"
    assert len(text_of("x" * 9999)) == 512
