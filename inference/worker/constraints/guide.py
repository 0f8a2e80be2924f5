"""Compiles an ``OutputFormat`` into a token mask, with llguidance, and holds one answer to it.

Compiling happens in ``prepare`` on a CPU thread of its own, masks on the stepping thread. Both are bounded: llguidance
counts the work of building a grammar and of every single mask, and a grammar that needs more is an error of its request
alone (``LIMITS``). Only the tokens of the vocabulary that keep the text within the grammar are allowed; the tokens
that end an answer only where the text may end. Nothing is ever repaired afterwards.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from llguidance.hf import from_tokenizer
from transformers import PreTrainedTokenizerFast

from inference.errors import InvalidRequest, Unsupported
from inference.ipc import OutputFormat
from inference.worker.core.types import Bitmask, ConstraintError

MAX_SOURCE_CHARACTERS = 1_000_000
WHITESPACE = r"[ \n\r\t]{0,64}"
"""Between the parts of a JSON text. Bounded, because small models otherwise go on with newlines for ever."""

LIMITS: dict[str, Any] = {
    "max_grammar_size": 500_000,
    "max_items_in_row": 2_000,
    "max_lexer_states": 250_000,
    "initial_lexer_fuel": 1_000_000,
    "step_lexer_fuel": 200_000,
    "step_max_items": 50_000,
    "verbose_errors": False,
}
_CACHED_GRAMMARS = 16
_WORD_BITS = 32


class Guide:
    """One answer under one grammar; a ``Constraint`` of the core. Not shared between choices."""

    def __init__(self, matcher: LLMatcher, vocabulary: int) -> None:
        self._matcher = matcher
        self._words: Bitmask = np.zeros((vocabulary + _WORD_BITS - 1) // _WORD_BITS, np.uint32)

    def mask(self, out: Bitmask) -> bool:
        self._matcher.unsafe_compute_mask_ptr(self._words.ctypes.data, self._words.nbytes)
        self._check()
        count = min(out.size, self._words.size)
        out[:count] = self._words[:count]
        return True

    def advance(self, token: int) -> None:
        if not self._matcher.consume_token(token):
            self._check()
            raise RuntimeError(f"token {token} is not allowed here")

    @property
    def finished(self) -> bool:
        return bool(self._matcher.is_stopped()) and not self._matcher.is_error()

    def _check(self) -> None:
        """The grammar may not go on: too much work for one token, or a contradiction that only decoding showed."""
        if self._matcher.is_error():
            raise ConstraintError(_first_line(self._matcher.get_error()))


class Compiler:
    """Grammars for one model. ``vocabulary`` is the width of its logits, ``eos`` the tokens that end an answer."""

    def __init__(self, tokenizer: Any, vocabulary: int, eos: Collection[int]) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = max(vocabulary, len(tokenizer))
        self._eos = sorted(token for token in eos if 0 <= token < self._vocabulary)
        self._tokens: LLTokenizer | None = None
        self._compiled: OrderedDict[tuple[str, str], LLMatcher] = OrderedDict()

    @property
    def available(self) -> bool:
        """Whether this model's tokenizer can be constrained at all."""
        return isinstance(self._tokenizer, PreTrainedTokenizerFast)

    def compile(self, output_format: OutputFormat) -> Callable[[], Guide]:
        """A maker of fresh guides. Raises ``InvalidRequest`` that says what is wrong with schema or grammar."""
        key = (output_format.kind, _source(output_format))
        matcher = self._compiled.get(key)
        if matcher is None:
            matcher = self._build(*key)
            self._compiled[key] = matcher
            if len(self._compiled) > _CACHED_GRAMMARS:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(key)
        return lambda: Guide(matcher.deep_copy(), self._vocabulary)

    def _build(self, kind: str, source: str) -> LLMatcher:
        if len(source) > MAX_SOURCE_CHARACTERS:
            raise _refuse(kind, f"it is longer than {MAX_SOURCE_CHARACTERS} characters")
        try:
            grammar = _GRAMMARS[kind](source)
        except ValueError as error:
            raise _refuse(kind, str(error)) from error
        matcher = LLMatcher(self._ll_tokenizer(), grammar, log_level=0, limits=LLParserLimits(**LIMITS))
        trial = matcher.deep_copy()
        if not trial.is_error():
            trial.compute_bitmask()  # some contradictions show only here
        if trial.is_error():
            raise _refuse(kind, _first_line(trial.get_error()))
        return matcher

    def _ll_tokenizer(self) -> LLTokenizer:
        """Made when first needed: it takes about a second for a large vocabulary."""
        if self._tokens is None:
            try:
                self._tokens = from_tokenizer(self._tokenizer, n_vocab=self._vocabulary, eos_token=self._eos)
            except ValueError as error:
                raise Unsupported(
                    f"Constrained output needs a fast tokenizer, which this model does not have: {error}",
                    param="response_format",
                ) from error
        return self._tokens


def _source(output_format: OutputFormat) -> str:
    if output_format.kind == "json_schema":
        return json.dumps(output_format.schema if output_format.schema is not None else {}, sort_keys=False)
    if output_format.kind == "choice":
        return json.dumps(output_format.choices)
    return output_format.text or ""


def _json_grammar(schema: str) -> str:
    grammar: str = LLMatcher.grammar_from_json_schema(schema, overrides={"whitespace_pattern": WHITESPACE})
    return grammar


def _regex_grammar(regex: str) -> str:
    grammar: str = LLMatcher.grammar_from_regex(regex)
    return grammar


def _lark_grammar(lark: str) -> str:
    grammar: str = LLMatcher.grammar_from_lark(lark)
    return grammar


def _choice_grammar(source: str) -> str:
    choices = json.loads(source)
    if not choices or "" in choices:
        raise ValueError("choices must be a list of texts, none of them empty")
    return _lark_grammar("start: " + " | ".join(json.dumps(choice, ensure_ascii=False) for choice in choices))


_GRAMMARS: dict[str, Callable[[str], str]] = {
    "json_object": lambda _: _json_grammar('{"type": "object"}'),
    "json_schema": _json_grammar,
    "regex": _regex_grammar,
    "grammar": _lark_grammar,
    "choice": _choice_grammar,
}


def _refuse(kind: str, reason: str) -> InvalidRequest:
    return InvalidRequest(f"The {kind} of response_format cannot be enforced: {reason}", param="response_format")


_WORDS = {"NoExtensionBias": "it allows no text at all, because a definition in it refers to itself without end"}
"""For those of llguidance's messages that say nothing to people."""


def _first_line(message: str) -> str:
    """llguidance appends its inner state after ``<state>``; regex errors need their following lines."""
    for sign, words in _WORDS.items():
        if sign in message:
            return words
    return " ".join(message.split("<state>")[0].split())[:500] or "unknown error"
