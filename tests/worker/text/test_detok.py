"""Incremental detokenisation equals the tokenizer's own decode of the whole, for each kind of tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import chain
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from inference.worker.text.detok import TokenTable

WORDS = ["hello", "world", "caf\u00e9", "\u4f60\u597d", "a", "b", "\u4f60"]


def fast(backend: Tokenizer) -> PreTrainedTokenizerFast:
    backend.add_special_tokens([AddedToken("<eos>", special=True)])
    backend.add_tokens([AddedToken("<tool_call>", special=False), AddedToken("<\uff5ca\u2581b\uff5c>", special=False)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", clean_up_tokenization_spaces=False)


def byte_level() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={character: index for index, character in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return fast(backend)


def sentencepiece(*, strip: bool) -> PreTrainedTokenizerFast:
    pieces = [
        "<unk>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "\u2581",
        *WORDS,
        *("\u2581" + word for word in WORDS),
    ]
    vocab = [(piece, -float(index > 256)) for index, piece in enumerate(dict.fromkeys(pieces))]
    backend = Tokenizer(models.Unigram(vocab, unk_id=0, byte_fallback=True))
    backend.normalizer = normalizers.Sequence(
        ([normalizers.Prepend("\u2581")] if strip else []) + [normalizers.Replace(" ", "\u2581")]
    )
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence(steps + ([decoders.Strip(" ", 1, 0)] if strip else []))
    return fast(backend)


def word_piece() -> PreTrainedTokenizerFast:
    vocab = {word: index for index, word in enumerate(["[UNK]", *WORDS, "##s", "##a", ",", "."])}
    backend = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.decoder = decoders.WordPiece(cleanup=False)
    return fast(backend)


MAKERS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "byte_level": byte_level,
    "sentencepiece": lambda: sentencepiece(strip=True),
    "sentencepiece_no_strip": lambda: sentencepiece(strip=False),
    "word_piece": word_piece,
}


@cache
def made(kind: str) -> tuple[Any, TokenTable]:
    tokenizer = MAKERS[kind]()
    return tokenizer, TokenTable(tokenizer)


def pieces(table: TokenTable, tokens: list[int], **options: Any) -> list[str]:
    detokenizer = table.detokenizer(**options)
    return [detokenizer.add(token) for token in tokens] + [detokenizer.finish()]


@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece", "sentencepiece_no_strip"])
def test_the_usual_kinds_are_recognised(kind: str) -> None:
    assert made(kind)[1].exact


def test_another_kind_is_not_mistaken() -> None:
    assert not made("word_piece")[1].exact


@pytest.mark.parametrize("kind", ["byte_level", "sentencepiece", "sentencepiece_no_strip"])
@given(text=st.text(max_size=40))
@settings(max_examples=60, deadline=None)
def test_the_pieces_of_any_text_make_the_text(kind: str, text: str) -> None:
    tokenizer, table = made(kind)
    tokens = tokenizer.encode(text, add_special_tokens=False)
    parts = pieces(table, tokens)
    assert "".join(parts) == tokenizer.decode(tokens, clean_up_tokenization_spaces=False)
    assert "\ufffd" in text or all("\ufffd" not in part for part in parts)


@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_any_byte_level_tokens_give_what_decode_gives(data: st.DataObject) -> None:
    tokenizer, table = made("byte_level")
    tokens = data.draw(st.lists(st.integers(0, len(tokenizer) - 1), max_size=30))
    assert "".join(pieces(table, tokens)) == tokenizer.decode(tokens, skip_special_tokens=True)
    everything = pieces(table, tokens, visible=table.special)
    assert "".join(everything) == tokenizer.decode(tokens, skip_special_tokens=False)


@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_any_sentencepiece_tokens_with_whole_characters_give_what_decode_gives(data: st.DataObject) -> None:
    tokenizer, table = made("sentencepiece")
    words = st.integers(257, len(tokenizer) - 1).map(lambda token: [token])
    characters = st.characters(codec="utf-8").map(lambda char: [1 + byte for byte in char.encode()])
    tokens = list(chain.from_iterable(data.draw(st.lists(words | characters, max_size=20))))
    assert "".join(pieces(table, tokens)) == tokenizer.decode(tokens, skip_special_tokens=True)


@given(words=st.lists(st.sampled_from([*WORDS, "as", "as,"]), max_size=10))
@settings(max_examples=40, deadline=None)
def test_other_tokenizers_go_through_decode(words: list[str]) -> None:
    tokenizer, table = made("word_piece")
    tokens = tokenizer.encode(" ".join(words), add_special_tokens=False)
    assert "".join(pieces(table, tokens)) == tokenizer.decode(tokens)


def test_a_character_comes_out_whole() -> None:
    tokenizer, table = made("byte_level")
    tokens = tokenizer.encode("a\U0001f600b", add_special_tokens=False)
    assert pieces(table, tokens) == ["a", "", "", "", "\U0001f600", "b", ""]


def test_an_incomplete_character_becomes_a_replacement_at_the_end_only() -> None:
    tokenizer, table = made("byte_level")
    tokens = tokenizer.encode("\U0001f600", add_special_tokens=False)[:3]
    assert pieces(table, tokens) == ["", "", "", "\ufffd"]


def test_special_tokens_are_hidden_unless_asked_for() -> None:
    tokenizer, table = made("byte_level")
    eos = tokenizer.eos_token_id
    assert pieces(table, [eos]) == ["", ""]
    assert pieces(table, [eos], visible=frozenset({eos})) == ["<eos>", ""]


def test_a_continued_text_keeps_its_first_space() -> None:
    tokenizer, table = made("sentencepiece")
    tokens = tokenizer.encode("hello", add_special_tokens=False)
    assert "".join(pieces(table, tokens)) == "hello"
    assert "".join(pieces(table, tokens, continues=True)) == " hello"


def test_ids_beyond_the_tokenizer_give_no_text() -> None:
    tokenizer, table = made("byte_level")
    assert pieces(table, [len(tokenizer) + 5]) == ["", ""]
    assert table.raw_of(len(tokenizer) + 5) == b""


def test_raw_bytes_are_those_of_the_token() -> None:
    tokenizer, table = made("byte_level")
    tokens = tokenizer.encode("\u4f60<tool_call>", add_special_tokens=False)
    assert [table.raw_of(token) for token in tokens] == [b"\xe4", b"\xbd", b"\xa0", b"<tool_call>"]
    tokenizer, table = made("sentencepiece")
    assert table.raw_of(tokenizer.convert_tokens_to_ids("<0x0A>")) == b"\n"
    assert table.raw_of(tokenizer.convert_tokens_to_ids("\u2581a")) == b" a"
