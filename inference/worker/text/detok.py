"""Token ids to text, piece by piece, so that no piece ever has to be taken back.

For the two kinds of tokenizer nearly every model has (byte-level BPE, and SentencePiece converted with byte fallback)
a token is a fixed run of bytes, found once per model in ``TokenTable``. An incremental UTF-8 decoder then gives
exactly what the tokenizer's own ``decode`` gives for the whole. One difference is meant: where SentencePiece byte
tokens do not form UTF-8, the tokenizer replaces all bytes of the run, also the good ones before the bad; here only
the bad ones become U+FFFD, because the others are out already. Other tokenizers go through ``decode`` itself.

Special tokens (``<|im_end|>`` and the like) give no text, except those a parser asks to see.
"""

from __future__ import annotations

import codecs
import json
import re
from typing import Any, Protocol

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_SPACE_MARK = "\u2581"
_PROBE = "Hello  world,\n\tthe caf\u00e9 \u4f60\u597d \U0001f600 isn't  'quoted' ."
_SPECIAL_SEPARATORS = {"type": "Replace", "pattern": {"String": _SPACE_MARK}, "content": " "}


class Detokenizer(Protocol):
    """The state of one choice."""

    def add(self, token: int) -> str:
        """Text that is final now; "" while a character is incomplete."""
        ...

    def finish(self) -> str:
        """What is left when no token will follow: U+FFFD for an incomplete character."""
        ...


class TokenTable:
    """What each token id of one tokenizer stands for. ``tokenizer`` is a Hugging Face tokenizer, not a wrapper."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        added = getattr(tokenizer, "added_tokens_decoder", {})
        self.special = frozenset(index for index, token in added.items() if token.special)
        self.special_text = {index: str(added[index].content) for index in self.special}
        decoder = _decoder_of(tokenizer)
        self.leading_spaces = 0
        self.raw: list[bytes] = []
        self.exact = False
        if _is_byte_level(decoder):
            self._fill(_byte_level_bytes)
        elif _is_sentencepiece(decoder):
            self._fill(_sentencepiece_bytes)
            self.leading_spaces = _leading_spaces(decoder)
        self.exact = bool(self.raw) and self._agrees()
        if not self.exact:
            self.leading_spaces = 0
            self.raw = [self._decode([index]).encode() for index in range(len(tokenizer))]
        self.texts = [_valid(raw) for raw in self.raw]

    def raw_of(self, token: int) -> bytes:
        """The bytes of a token, special or not; none for ids that only pad the model's vocabulary."""
        return self.raw[token] if 0 <= token < len(self.raw) else b""

    def detokenizer(self, *, continues: bool = False, visible: frozenset[int] = frozenset()) -> Detokenizer:
        """``continues`` keeps the space before a first word, for text that goes on after a prompt.

        ``visible`` are the special tokens whose text is wanted.
        """
        hidden = self.special - visible
        if self.exact:
            return _ByteDetokenizer(self, hidden, 0 if continues else self.leading_spaces)
        return _WindowDetokenizer(self._decode, hidden)

    def decode(self, tokens: list[int], *, visible: frozenset[int] = frozenset()) -> str:
        detokenizer = self.detokenizer(visible=visible)
        return "".join(map(detokenizer.add, tokens)) + detokenizer.finish()

    def _fill(self, to_bytes: Any) -> None:
        names = self._tokenizer.convert_ids_to_tokens(list(range(len(self._tokenizer))))
        self.raw = [b"" if name is None else to_bytes(name) for name in names]

    def _agrees(self) -> bool:
        """Compare with the tokenizer itself on a text of every sort, so that an unforeseen decoder is found out."""
        tokens = self._tokenizer.encode(_PROBE, add_special_tokens=False)
        self.texts = [_valid(raw) for raw in self.raw]
        detokenizer = _ByteDetokenizer(self, self.special, self.leading_spaces)
        return "".join(map(detokenizer.add, tokens)) + detokenizer.finish() == self._decode(tokens)

    def _decode(self, tokens: list[int]) -> str:
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text


class _ByteDetokenizer:
    def __init__(self, table: TokenTable, hidden: frozenset[int], leading_spaces: int) -> None:
        self._table = table
        self._texts = table.texts
        self._hidden = hidden
        self._strip = leading_spaces
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._clean = True

    def add(self, token: int) -> str:
        if token in self._hidden:
            return ""
        if self._clean and 0 <= token < len(self._texts):
            text = self._texts[token]
            if text is not None:
                return self._stripped(text) if self._strip else text
        text = self._decoder.decode(self._table.raw_of(token))
        self._clean = not self._decoder.getstate()[0]
        return self._stripped(text) if self._strip else text

    def finish(self) -> str:
        return self._stripped(self._decoder.decode(b"", final=True))

    def _stripped(self, text: str) -> str:
        """Drop the first spaces of the whole text, as the tokenizer's ``Strip`` decoder does."""
        while self._strip and text.startswith(" "):
            text = text[1:]
            self._strip -= 1
        if text:
            self._strip = 0
        return text


class _WindowDetokenizer:
    """For any tokenizer: decodes the last tokens together with the new ones and gives the difference."""

    def __init__(self, decode: Any, hidden: frozenset[int]) -> None:
        self._decode = decode
        self._hidden = hidden
        self._window: list[int] = []
        self._settled = 0

    def add(self, token: int) -> str:
        if token in self._hidden:
            return ""
        self._window.append(token)
        before = self._decode(self._window[: self._settled])
        now: str = self._decode(self._window)
        if len(now) <= len(before) or now.endswith("\ufffd"):
            return ""
        del self._window[: self._settled]
        self._settled = len(self._window)
        return now[len(before) :]

    def finish(self) -> str:
        before = self._decode(self._window[: self._settled])
        rest: str = self._decode(self._window)[len(before) :]
        self._window, self._settled = [], 0
        return rest


def _valid(raw: bytes) -> str | None:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


def _decoder_of(tokenizer: Any) -> list[dict[str, Any]]:
    """The decoders of a fast tokenizer in order, as tokenizer.json writes them; empty for any other."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    decoder = getattr(backend, "decoder", None)
    if decoder is None:
        return []
    state = json.loads(decoder.__getstate__())
    return list(state["decoders"]) if state.get("type") == "Sequence" else [state]


def _is_byte_level(decoders: list[dict[str, Any]]) -> bool:
    kinds = [decoder.get("type") for decoder in decoders]
    return "ByteLevel" in kinds and set(kinds) <= {"ByteLevel", "Fuse"}


def _is_sentencepiece(decoders: list[dict[str, Any]]) -> bool:
    kinds = [decoder.get("type") for decoder in decoders]
    known = {"Replace", "ByteFallback", "Fuse", "Strip"}
    replaces = [decoder for decoder in decoders if decoder.get("type") == "Replace"]
    strips = [decoder for decoder in decoders if decoder.get("type") == "Strip"]
    return (
        "Fuse" in kinds
        and set(kinds) <= known
        and replaces == [_SPECIAL_SEPARATORS]
        and all(strip.get("content") == " " and not strip.get("stop") for strip in strips)
    )


def _leading_spaces(decoders: list[dict[str, Any]]) -> int:
    return sum(int(decoder.get("start", 0)) for decoder in decoders if decoder.get("type") == "Strip")


def _byte_characters() -> dict[str, int]:
    """The character that stands for each byte in a byte-level vocabulary: itself if visible, else one from U+0100."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(0x100) if byte not in visible]
    table = {chr(byte): byte for byte in visible}
    return table | {chr(0x100 + index): byte for index, byte in enumerate(others)}


_BYTE_OF = _byte_characters()


def _byte_level_bytes(name: str) -> bytes:
    """A name with any other character (an added token such as ``<\uff5ctool\u2581call\uff5c>``) stands for itself."""
    try:
        return bytes([_BYTE_OF[character] for character in name])
    except KeyError:
        return name.encode()


def _sentencepiece_bytes(name: str) -> bytes:
    byte = _BYTE_TOKEN.fullmatch(name)
    if byte is not None:
        return bytes([int(byte[1], 16)])
    return name.replace(_SPACE_MARK, " ").encode()
