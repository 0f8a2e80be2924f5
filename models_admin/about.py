"""What a model's files tell people of it: how many parameters, what it can do, its licence, its chat template.

Like ``models_admin.facts``, of which it is a part, it never raises for what it finds: what cannot be read is unknown.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from inference.model_files import MAX_JSON_BYTES, Unusable, integer, printable, read_json, read_json_value
from inference.safetensors import Header
from inference.template_habits import names_tools, reasoning_parser

_README_BYTES = 64 * 1024
_LICENCE_CHARACTERS = 64
_FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")
_SCALES = (".scales", ".biases", ".weight_scale", ".weight_scale_inv", ".input_scale")
_KEY = re.compile(r"(?P<key>license|license_name)\s*:\s*(?P<value>.*)")


@dataclass(frozen=True, slots=True)
class Template:
    """A chat template; ``sha256`` of its text, empty where there is none."""

    text: str = ""
    sha256: str = ""


class _Token(msgspec.Struct):
    content: str = ""


class _Tokenizer(msgspec.Struct):
    """Of ``tokenizer.json`` these alone: the vocabulary beside them has megabytes."""

    added_tokens: list[_Token] = []


# ---------------------------------------------------------------------------------------------------------- parameters


def parameters(headers: Iterable[Header], config: Mapping[str, Any]) -> int:
    """How many numbers the weights stand for; quantized ones are counted as what was packed. 0 when nothing is told."""
    tensors = {name: about for header in headers for name, about in header.tensors.items()}
    packing = config.get("quantization") or config.get("quantization_config")
    return sum(_counted(name, tensors, packing if isinstance(packing, dict) else {}) for name in tensors)


def _counted(name: str, tensors: Mapping[str, tuple[str, int]], packing: Mapping[str, Any]) -> int:
    dtype, elements = tensors[name]
    stem = name.rpartition(".")[0]
    if dtype == "U32" and f"{stem}.scales" in tensors:
        return elements * 32 // _bits(stem, packing)
    if dtype == "I32" and name.endswith(".qweight"):
        return elements * 32 // _bits(stem, packing)
    packed = any(tensors.get(f"{stem}.{what}", ("",))[0] in ("U32", "I32") for what in ("weight", "qweight"))
    if dtype not in _FLOATS or (packed and name.endswith((".scales", ".biases"))) or name.endswith(_SCALES[2:]):
        return 0
    return elements


def _bits(layer: str, packing: Mapping[str, Any]) -> int:
    """How wide the numbers of a layer are; some have a width of their own."""
    own = packing.get(layer)
    bits = integer(own, "bits") if isinstance(own, dict) else 0
    bits = bits or integer(packing, "bits")
    return bits if 1 <= bits <= 32 else 4


# ------------------------------------------------------------------------------------------------------------ template


def read_template(directory: Path, names: Collection[str]) -> Template:
    """The chat template, from its own file or the tokenizer's settings; several named ones count as one text."""
    try:
        return _template(directory, names)
    except (Unusable, OSError, ValueError):
        return Template()


def _template(directory: Path, names: Collection[str]) -> Template:
    if "chat_template.jinja" in names:
        raw = _head(directory / "chat_template.jinja", MAX_JSON_BYTES)
        return _hashed(raw.decode(errors="replace"))
    for name in ("chat_template.json", "tokenizer_config.json"):
        found = read_json(directory / name, name).get("chat_template") if name in names else None
        if isinstance(found, str) and found:
            return _hashed(found)
        if found:
            return _hashed(msgspec.json.encode(found, order="sorted").decode())
    return Template()


def _hashed(text: str) -> Template:
    return Template(text, hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()) if text else Template()


def special_tokens(directory: Path, names: Collection[str]) -> frozenset[str]:
    """The texts of the tokens that were added to the vocabulary, among them those that mark reasoning."""
    try:
        if "tokenizer_config.json" in names:
            told = read_json(directory / "tokenizer_config.json", "tokenizer_config.json").get("added_tokens_decoder")
            if isinstance(told, dict):
                texts = (entry.get("content") for entry in told.values() if isinstance(entry, dict))
                return frozenset(text for text in texts if isinstance(text, str))
        if "tokenizer.json" in names:
            raw = _head(directory / "tokenizer.json", MAX_JSON_BYTES)
            return frozenset(token.content for token in msgspec.json.decode(raw, type=_Tokenizer).added_tokens)
        if "added_tokens.json" in names:
            more = read_json_value(directory / "added_tokens.json", "added_tokens.json")
            return frozenset(more) if isinstance(more, dict) else frozenset()
    except (Unusable, OSError, ValueError, msgspec.MsgspecError, RecursionError):
        pass
    return frozenset()


def text_capabilities(template: Template, tokens: Collection[str], architecture: str) -> tuple[str, ...]:
    """What a model that writes text can do, by the names of ``inference.ipc.Capabilities``, as its files say."""
    chats = bool(template.text)
    found = {
        "chat": chats,
        "completion": True,
        "tools": chats and names_tools(template.text),
        "reasoning": reasoning_parser(template.text, tokens, architecture.lower()) is not None,
    }
    return tuple(name for name, has in found.items() if has)


# ------------------------------------------------------------------------------------------------------------- licence


def licence(directory: Path, names: Collection[str], config: Mapping[str, Any]) -> str:
    """The licence that the card's front matter or ``config.json`` names, as it is written there; empty when unknown."""
    found = dict[str, str]()
    if "README.md" in names:
        try:
            found = _front_matter(_head(directory / "README.md", _README_BYTES).decode(errors="replace"))
        except OSError:
            found = {}
    name = found.get("license", "")
    if name.lower() in ("", "other") and found.get("license_name"):
        name = found["license_name"]
    told = config.get("license")
    return name or (printable(told.strip())[:_LICENCE_CHARACTERS] if isinstance(told, str) else "")


def _front_matter(text: str) -> dict[str, str]:
    """The two keys of a card that tell its licence. Not parsed as YAML: a card is a stranger's, and may be anything."""
    lines = text.removeprefix("\ufeff").splitlines()
    found = dict[str, str]()
    if not lines or lines[0].rstrip() != "---":
        return found
    for number, line in enumerate(lines[1:], 1):
        if line.rstrip() in ("---", "..."):
            break
        if (match := _KEY.fullmatch(line.rstrip())) is not None:
            value = _scalar(match["value"])
            found.setdefault(match["key"], value or _items(lines[number + 1 :]))
    return found


def _items(lines: Iterable[str]) -> str:
    """``- apache-2.0`` and so on below a key."""
    values = list[str]()
    for line in lines:
        if not line.strip().startswith("- "):
            break
        values.append(_scalar(line.strip()[2:]))
    return ", ".join(value for value in values if value)[:_LICENCE_CHARACTERS]


def _scalar(text: str) -> str:
    value = text.strip()
    quoted = value[:1] in ("'", '"')
    value = value[1:].partition(value[0])[0] if quoted else value.partition(" #")[0].strip()
    return printable(value.strip("[] "))[:_LICENCE_CHARACTERS]


def _head(path: Path, limit: int) -> bytes:
    """The first bytes of a regular file; a pipe would keep the catalog's only thread for ever."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("not a regular file")
        return file.read(limit)
