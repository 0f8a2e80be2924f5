"""Byte-level BPE tokenizers generated from a rule, so that they are the same on every machine.

Ids 0 to 2 are ``<|endoftext|>``, ``<|im_start|>`` and ``<|im_end|>``, 3 to 258 the 256 bytes, the rest merges: pairs
of common characters first, then pairs of pairs. Any text encodes and comes back unchanged.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CHAT_TEMPLATE = """\
{%- if tools %}<|im_start|>system
You may call a tool: <tool_call>{"name": ..., "arguments": ...}</tool_call>
<tools>
{%- for tool in tools %}
{{ tool | tojson }}
{%- endfor %}
</tools><|im_end|>
{% endif %}
{%- for message in messages %}<|im_start|>{{ message.role }}
{% if message.content is string %}{{ message.content }}
{%- elif message.content %}
{%- for part in message.content %}{{ part.text if part.type == 'text' else '' }}{% endfor %}
{%- endif %}
{%- for call in message.tool_calls or [] %}
<tool_call>{{ call.function | tojson }}</tool_call>
{%- endfor %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
_BY_USE = "etaoinshrdlucmfwypvbgkjqxz"


def write_tokenizer(directory: Path, vocab_size: int) -> None:
    """Write tokenizer.json and tokenizer_config.json with exactly ``vocab_size`` entries."""
    vocab, merges = _vocabulary(vocab_size)
    document: dict[str, Any] = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(index, text) for index, text in enumerate(SPECIAL)],
        "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": vocab,
            "merges": merges,
        },
    }
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SPECIAL[1],
        "eos_token": SPECIAL[2],
        "pad_token": SPECIAL[2],
        "unk_token": SPECIAL[0],
        "clean_up_tokenization_spaces": False,
        "model_max_length": 2048,
        "chat_template": CHAT_TEMPLATE,
    }
    (directory / "tokenizer.json").write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")


def _added(index: int, text: str) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": index, "content": text, **flags}


def _vocabulary(size: int) -> tuple[dict[str, int], list[list[str]]]:
    tokens = {text: index for index, text in enumerate([*SPECIAL, *_byte_characters()])}
    merges: list[list[str]] = []
    for left, right in _pairs():
        if len(tokens) == size:
            break
        if left + right not in tokens:
            tokens[left + right] = len(tokens)
            merges.append([left, right])
    if len(tokens) != size:
        raise ValueError(f"the rule gives {len(tokens)} entries, not {size}")
    return tokens, merges


def _pairs() -> Iterator[tuple[str, str]]:
    """Merges in order of rank: letter pairs (a leading space is ``\u0120``), other ASCII pairs, pairs of pairs."""
    yield from (("\u0120", letter) for letter in _BY_USE)
    letters = list(itertools.product(_BY_USE, _BY_USE))
    yield from letters
    yield from (("\u0120" + left, right) for left, right in letters)
    printable = [chr(code) for code in range(33, 127)]
    yield from itertools.product(printable, printable)
    words = [left + right for left, right in letters]
    yield from (("\u0120" + left, right) for left, right in itertools.product(words[:40], words))
    yield from itertools.product(words, words[:60])


def _byte_characters() -> list[str]:
    """The visible character that stands for each byte in byte-level BPE: itself, or one from U+0100 on."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    stand_in = itertools.count(256)
    return [chr(byte) if byte in visible else chr(next(stand_in)) for byte in range(256)]
