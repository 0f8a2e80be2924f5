"""Compiles an ``OutputFormat`` into a token mask, with llguidance, and holds one answer to it.

Compiling happens in ``prepare`` on a CPU thread of its own, masks on the stepping thread. Both are bounded: llguidance
counts the work of building a grammar and of every single mask, and a grammar that needs more is an error of its request
alone (``LIMITS``). Only the tokens of the vocabulary that keep the text within the grammar are allowed; the tokens
that end an answer only where the text may end. Nothing is ever repaired afterwards.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from llguidance.hf import from_tokenizer
from transformers import PreTrainedTokenizerFast

from inference.errors import InvalidRequest, Unsupported
from inference.ipc import OutputFormat
from inference.worker.constraints.formats import Grammar, first_line, format_grammar
from inference.worker.core.types import Bitmask, ConstraintError

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

    def begun_with(self, tokens: Sequence[int]) -> bool:
        """Take what the prompt has of the answer already; False if the grammar does not allow it."""
        return bool(self._matcher.try_consume_tokens(list(tokens)) == len(tokens)) and not self._matcher.is_error()

    def _check(self) -> None:
        """The grammar may not go on: too much work for one token, or a contradiction that only decoding showed."""
        if self._matcher.is_error():
            raise ConstraintError(first_line(self._matcher.get_error()))


class Compiler:
    """Grammars for one model. ``vocabulary`` is the width of its logits, ``eos`` the tokens that end an answer."""

    def __init__(self, tokenizer: Any, vocabulary: int, eos: Collection[int]) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = max(vocabulary, len(tokenizer))
        self._eos = sorted(token for token in eos if 0 <= token < self._vocabulary)
        self._compiled: OrderedDict[str, LLMatcher] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def available(self) -> bool:
        """Whether this model's tokenizer can be constrained at all."""
        return isinstance(self._tokenizer, PreTrainedTokenizerFast)

    @cached_property
    def special(self) -> Mapping[str, int]:
        """The tokens that a grammar must name, because no text stands for them, by their text."""
        tokens = self._ll_tokenizer
        added = getattr(self._tokenizer, "added_tokens_decoder", {})
        return {str(token.content): index for index, token in added.items() if tokens.is_special_token(index)}

    def tokens_of(self, text: str) -> list[int]:
        """A text as it stands within an answer."""
        tokens: list[int] = self._ll_tokenizer.tokenize_str(text)
        return tokens

    def compile(self, output_format: OutputFormat) -> Callable[[], Guide]:
        """A maker of fresh guides. Raises ``InvalidRequest`` that says what is wrong with schema or grammar."""
        return self.build([self.format(output_format)], output_format.kind)

    def format(self, output_format: OutputFormat) -> Grammar:
        """The grammar of a format, checked as far as that goes without building it."""
        kind = output_format.kind
        try:
            return format_grammar(output_format)
        except RecursionError:
            raise refuse(kind, "it is nested too deeply") from None
        except ValueError as error:
            raise refuse(kind, str(error)) from error

    def build(self, grammars: Sequence[Grammar], kind: str = "") -> Callable[[], Guide]:
        """A maker of fresh guides under the first of ``grammars``, which may use the others by name.

        ``kind`` is the kind of format that is to blame when llguidance refuses it. Called on CPU threads; of the
        grammars that were used last some are kept.
        """
        source = json.dumps({"grammars": grammars}, ensure_ascii=False)
        with self._lock:
            matcher = self._compiled.get(source)
        if matcher is None:
            matcher = self._matcher(source, kind)
        with self._lock:
            self._compiled[source] = matcher
            self._compiled.move_to_end(source)
            if len(self._compiled) > _CACHED_GRAMMARS:
                self._compiled.popitem(last=False)
        return lambda: Guide(matcher.deep_copy(), self._vocabulary)

    def _matcher(self, source: str, kind: str) -> LLMatcher:
        matcher = LLMatcher(self._ll_tokenizer, source, log_level=0, limits=LLParserLimits(**LIMITS))
        trial = matcher.deep_copy()
        if not trial.is_error():
            trial.compute_bitmask()  # some contradictions show only here
        if trial.is_error():
            raise refuse(kind, first_line(trial.get_error()))
        return matcher

    @cached_property
    def _ll_tokenizer(self) -> LLTokenizer:
        """Made when first needed: it takes about a second for a large vocabulary."""
        try:
            return from_tokenizer(self._tokenizer, n_vocab=self._vocabulary, eos_token=self._eos)
        except ValueError as error:
            raise Unsupported(
                f"Constrained output needs a fast tokenizer, which this model does not have: {error}",
                param="response_format",
            ) from error


def refuse(kind: str, reason: str) -> InvalidRequest:
    """``kind`` of format, or "" for calls."""
    if not kind:
        return InvalidRequest(f"The tools cannot be enforced: {reason}", param="tools")
    return InvalidRequest(f"The {kind} of response_format cannot be enforced: {reason}", param="response_format")
