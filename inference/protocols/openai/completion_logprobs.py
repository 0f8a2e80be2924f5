"""``logprobs`` of a text completion: four lists, one entry per token of the text."""

from __future__ import annotations

import codecs
import math
from typing import Any

from inference.ipc import TokenLogprob
from inference.protocols.openai.words import finite


class CompletionLogprobs:
    """Of one choice, whose tokens come in one piece or in several.

    A token begins where the characters that are complete before it end, so the tokens of one character all begin at
    its place. The tokens of a prompt are looked for in its text: those that are not there (the token that begins every
    text, other special ones) take no room in it.
    """

    def __init__(self) -> None:
        self._offset = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def object(self, tokens: list[TokenLogprob], text: str) -> dict[str, Any]:
        """The next tokens, and the ``text`` that came with them. A prompt's first token has no logprob: null."""
        found: dict[str, Any] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        begin = self._offset
        searched = any(math.isnan(token.logprob) for token in tokens)
        for token in tokens:
            first = math.isnan(token.logprob)
            found["tokens"].append(token.text)
            found["token_logprobs"].append(None if first else finite(token.logprob))
            found["top_logprobs"].append(None if first else _alternatives(token))
            found["text_offset"].append(self._offset)
            piece = self._decoder.decode(token.raw)
            self._offset += _room(text, self._offset - begin, piece) if searched else len(piece)
        return found


def _alternatives(token: TokenLogprob) -> dict[str, float]:
    """By text, the token itself among them. Of tokens with one text, as parts of characters have, the most likely."""
    found: dict[str, float] = {}
    for other in token.top:
        found.setdefault(other.text, finite(other.logprob))
    found.setdefault(token.text, finite(token.logprob))
    return found


def _room(text: str, at: int, piece: str) -> int:
    """How many characters of ``text`` from ``at`` on ``piece`` takes, give or take spaces before it; 0 if it is not
    there.
    """
    if text.startswith(piece, at):
        return len(piece)
    bare, begin = piece.lstrip(" "), at
    while text.startswith(" ", begin):
        begin += 1
    return begin + len(bare) - at if bare and text.startswith(bare, begin) else 0
