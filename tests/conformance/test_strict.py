"""The strict check finds what pydantic would let pass."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion

from tests.conformance.cases import with_param
from tests.conformance.strict import Allowance, check, conforms

ANSWER: dict[str, Any] = {
    "id": "a",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}],
}


def test_it_works() -> None:
    check(ANSWER, ChatCompletion)
    check(with_param(ANSWER, "choices[0].message.reasoning_content", "hm"), ChatCompletion)
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    check(with_param(ANSWER, "choices[0].message.tool_calls", [call]), ChatCompletion)


@pytest.mark.parametrize(
    ("param", "value", "told"),
    [
        ("created", 1.5, ".created"),
        ("created", True, ".created"),
        ("created", "1", ".created"),
        ("object", "chat", ".object"),
        ("banana", 1, ".banana: ChatCompletion has no such field"),
        ("choices[0].index", None, ".choices[0].index"),
        ("choices[0].message.mood", "x", ".choices[0].message.mood"),
        ("choices[0].finish_reason", None, ".choices[0].finish_reason"),
        ("choices[0].message.tool_calls", [{"id": 1}], ".choices[0].message.tool_calls[0]"),
        ("usage", {"prompt_tokens": 1}, ".usage.completion_tokens: required"),
    ],
)
def test_faults_are_named_by_their_place(param: str, value: Any, told: str) -> None:
    with pytest.raises(AssertionError) as caught:
        check(with_param(ANSWER, param, value), ChatCompletion)
    assert told in str(caught.value)


def test_extra_fields_and_nulls_are_allowed_only_by_name() -> None:
    text = {**ANSWER, "object": "text_completion", "choices": [{"index": 0, "text": "x", "finish_reason": None}]}
    assert conforms(text, Completion)
    assert not conforms(text, Completion, Allowance())
    assert not conforms(with_param(ANSWER, "choices[0].message.reasoning", "x"), ChatCompletion, Allowance())
