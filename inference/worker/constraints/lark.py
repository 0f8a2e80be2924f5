"""Pieces of grammars in llguidance's Lark."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from inference.worker.constraints.schemas import Schema


class Lark:
    """Writes texts; ``special`` are the tokens that no text can stand for, by what they are called."""

    def __init__(self, special: Mapping[str, int]) -> None:
        self._special = dict(special)
        texts = sorted((text for text in special if text), key=len, reverse=True)
        self._pattern = re.compile("(" + "|".join(map(re.escape, texts)) + ")") if texts else None

    def literal(self, text: str) -> str:
        """A text as it is, with its special tokens as tokens; "" gives nothing."""
        parts = self._pattern.split(text) if self._pattern is not None else [text]
        return " ".join(self._part(part) for part in parts if part)

    def leading_token(self, text: str) -> int | None:
        """The special token with which ``text`` begins, if it does."""
        if self._pattern is None or (found := self._pattern.match(text)) is None:
            return None
        return self._special[found[0]]

    def _part(self, part: str) -> str:
        return f"<[{self._special[part]}]>" if part in self._special else quoted(part)


def quoted(text: str) -> str:
    """A literal."""
    return json.dumps(text, ensure_ascii=False)


def escaped(text: str) -> str:
    """A text within a regular expression."""
    return re.escape(text).replace("/", "\\/")


def json_rule(schema: Schema, whitespace: str) -> str:
    """The body of a rule for documents under ``schema``."""
    return "%json " + json.dumps(schema | {"x-guidance": {"whitespace_pattern": whitespace}}, ensure_ascii=False)


def document(rules: Mapping[str, str]) -> str:
    """A whole grammar; terminals are the rules in capitals."""
    return "\n".join(["%llguidance {}", *(f"{name}: {body}" for name, body in rules.items())]) + "\n"
