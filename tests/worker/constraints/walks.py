"""A model that chooses blindly among what a constraint allows, and the answer as a client gets it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from transformers import AutoTokenizer

from inference import ipc
from inference.worker.constraints.guide import Compiler
from inference.worker.core.types import Bitmask, Constraint
from inference.worker.text.chat import ChatTemplate
from inference.worker.text.detok import TokenTable
from inference.worker.text.dialect import Dialect
from inference.worker.text.output import ChoiceOutput
from inference.worker.text.prompts import Ready, TextModel
from tests.material import EOS_TOKEN_ID, nano_model

HI = [{"role": "user", "content": "hi"}]
_CLOSING = {b'"', b"}", b"]", b"<", b"\n", b">"}


@cache
def model(dialect: Dialect | None = None, special: tuple[str, ...] = (), context: int = 4096) -> TextModel:
    """Nano's tokenizer with further special tokens."""
    tokenizer: Any = AutoTokenizer.from_pretrained(nano_model())
    if special:
        tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    eos = frozenset({EOS_TOKEN_ID})
    return TextModel(
        tokenizer=tokenizer,
        template=ChatTemplate(tokenizer),
        table=TokenTable(tokenizer),
        dialect=dialect or Dialect("hermes", None),
        compiler=Compiler(tokenizer, len(tokenizer), eos),
        vocabulary=len(tokenizer),
        context=context,
        eos=eos,
        ids=tokenizer.get_vocab(),
    )


@dataclass
class Answer:
    """``text`` is all that was decoded, special tokens too; ``calls`` are pairs of name and arguments."""

    reason: str = "length"
    text: str = ""
    content: str = ""
    reasoning: str = ""
    calls: list[tuple[str, str]] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)


def allowed(constraint: Constraint | None, vocabulary: int) -> list[int]:
    out: Bitmask = np.zeros((vocabulary + 31) // 32, np.uint32)
    if constraint is None or not constraint.mask(out):
        return list(range(EOS_TOKEN_ID, vocabulary))
    bits = np.unpackbits(out.view(np.uint8), bitorder="little")[:vocabulary]
    return [int(token) for token in np.flatnonzero(bits)]


def said(text_model: TextModel, body: ipc.GenerateRequest, seed: int, *, begin: str = "", limit: int = 500) -> Answer:
    """An answer that begins with ``begin`` and goes on at random, with a liking for what ends things."""
    ready = text_model.ready("r", body)
    constraint = ready.core.constraints[0] if ready.core.constraints else None
    chooser = random.Random(seed)
    waiting = text_model.tokenizer.encode(begin, add_special_tokens=False)
    answer = Answer()
    while len(answer.tokens) < limit:
        options = allowed(constraint, text_model.vocabulary)
        token = waiting.pop(0) if waiting else _chosen(text_model, options, chooser)
        assert token in options, (
            f"{text_model.table.raw_of(token)!r} is not allowed after {_text(text_model, answer)!r}"
        )
        answer.tokens.append(token)
        if token not in ready.core.eos and constraint is not None:
            constraint.advance(token)
        if token in ready.core.eos or (constraint is not None and constraint.finished):
            answer.reason = "stop"
            break
    return _read(text_model, ready, answer)


def takes(text_model: TextModel, body: ipc.GenerateRequest, text: str) -> str:
    """As much of ``text`` as the constraint lets the model say, and ``$`` if the answer may end there."""
    [constraint] = text_model.ready("r", body).core.constraints
    assert constraint is not None
    taken: list[int] = []
    for token in text_model.tokenizer.encode(text, add_special_tokens=False):
        if token not in allowed(constraint, text_model.vocabulary):
            break
        constraint.advance(token)
        taken.append(token)
    ends = constraint.finished or EOS_TOKEN_ID in allowed(constraint, text_model.vocabulary)
    return text_model.table.decode(taken, visible=text_model.table.special) + ("$" if ends else "")


def _chosen(text_model: TextModel, options: Sequence[int], chooser: random.Random) -> int:
    closing = [token for token in options if token == EOS_TOKEN_ID or text_model.table.raw_of(token) in _CLOSING]
    return chooser.choice(closing) if closing and chooser.random() < 0.5 else chooser.choice(options)


def _text(text_model: TextModel, answer: Answer) -> str:
    return text_model.table.decode(answer.tokens, visible=text_model.table.special)


def _read(text_model: TextModel, ready: Ready, answer: Answer) -> Answer:
    output = ChoiceOutput(ready.plan, 0)
    names: dict[int, str] = {}
    arguments: dict[int, str] = {}
    for token in answer.tokens:
        if output.over:
            break
        output.feed(token)
    answer.reason = output.finish("stop" if answer.reason == "stop" else "length")
    delta = output.take()
    if delta is not None:
        answer.content, answer.reasoning = delta.content, delta.reasoning
        for fragment in delta.tools:
            names[fragment.index] = fragment.name or names[fragment.index]
            arguments[fragment.index] = arguments.get(fragment.index, "") + fragment.arguments
    answer.calls = [(names[index], arguments[index]) for index in sorted(names)]
    answer.text = _text(text_model, answer)
    return answer
