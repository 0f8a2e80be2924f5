"""The nano model's tokenizer, and what is made of it."""

from __future__ import annotations

from functools import cache
from typing import Any

from transformers import AutoTokenizer

from inference.worker.text.detok import TokenTable
from inference.worker.text.output import OutputPlan
from tests.material import EOS_TOKEN_ID, nano_model


@cache
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(nano_model())


@cache
def table() -> TokenTable:
    return TokenTable(tokenizer())


def encode(text: str) -> list[int]:
    return list(tokenizer().encode(text, add_special_tokens=False))


def plan(request: str = "r", **options: Any) -> OutputPlan:
    return OutputPlan(request, table(), eos=frozenset({EOS_TOKEN_ID}), **options)
