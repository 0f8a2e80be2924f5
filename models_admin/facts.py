"""What the files of a model directory say, read without MLX.

``read_facts`` never raises for what it finds on disk: a hostile or broken directory gives ``Facts`` whose ``problem``
is a sentence for people. Only the names below are opened, only regular files, only up to a size.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from models_admin.architectures import supported_architectures
from models_admin.kv_size import integer, kv_bytes_per_token
from models_admin.safetensors import BadSafetensors, Header, read_header

MAX_JSON_BYTES = 32 * 1024 * 1024
MAX_FILES = 10_000
_INDEX = "model.safetensors.index.json"
_TOKENIZERS = {"tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "tiktoken.model"}
_TEMPLATES = {"chat_template.jinja", "chat_template.json"}
_FLOATS = {"F64": ("f64", 8), "F32": ("f32", 4), "F16": ("f16", 2), "BF16": ("bf16", 2), "F8_E4M3": ("fp8", 2)}


class Unusable(Exception):
    """The directory cannot be loaded; the message is the sentence to show."""


@dataclass(frozen=True, slots=True)
class FileFact:
    """A file of the model: name relative to the directory, bytes, modification time in nanoseconds."""

    name: str
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Facts:
    """Sizes in bytes; ``context_length`` in tokens, 0 when unknown; ``problem`` None when nothing speaks against it."""

    architecture: str = ""
    quantization: str | None = None
    weight_bytes: int = 0
    total_bytes: int = 0
    context_length: int = 0
    kv_bytes_per_token: int = 0
    has_chat_template: bool = False
    files: tuple[FileFact, ...] = field(default=())
    problem: str | None = None


def list_files(directory: Path) -> tuple[FileFact, ...]:
    """The regular files directly in ``directory``, sorted by name, symlinks followed. Raises ``OSError``."""
    found: list[FileFact] = []
    with os.scandir(directory) as entries:
        for entry in entries:
            try:
                status = entry.stat()
            except OSError:
                continue  # a dangling link; what needs the file will say that it is missing
            if stat.S_ISREG(status.st_mode):
                name = entry.name.encode(errors="surrogateescape").decode(errors="replace")
                found.append(FileFact(name, status.st_size, status.st_mtime_ns))
            if len(found) > MAX_FILES:
                raise OSError(f"more than {MAX_FILES} files")
    return tuple(sorted(found, key=lambda file: file.name))


def fingerprint(files: tuple[FileFact, ...]) -> str:
    """Changes when a file appears, vanishes, or changes size or time."""
    digest = hashlib.blake2b(digest_size=16)
    for file in files:
        digest.update(f"{file.name}\0{file.size}\0{file.mtime_ns}\n".encode())
    return digest.hexdigest()


def read_facts(directory: Path, root: Path) -> Facts:
    """Everything the inventory wants to know of ``directory``, which lies in ``root``."""
    try:
        files = list_files(directory)
    except OSError as error:
        return Facts(problem=f"the directory cannot be read: {_reason(error)}")
    facts = Facts(files=files, total_bytes=sum(file.size for file in files), weight_bytes=_weight_bytes(files))
    try:
        _stays_inside(directory, files, root)
        config = read_json(directory / "config.json", "config.json")
    except Unusable as problem:
        return replace(facts, problem=str(problem))
    facts = _from_config(facts, config, _has_template(directory, files))
    try:
        headers = _weights(directory, {file.name for file in files})
    except Unusable as problem:
        return replace(facts, problem=str(problem))
    facts = _from_headers(facts, config, headers)
    return replace(facts, problem=_obstacle(config, files))


def read_json(path: Path, what: str) -> dict[str, Any]:
    """A JSON object from a regular file. Raises ``Unusable`` with a sentence about ``what``."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise Unusable(f"{what} is not a regular file")
        if status.st_size > MAX_JSON_BYTES:
            raise Unusable(f"{what} is {status.st_size} bytes long, which no real one is")
        value = msgspec.json.decode(path.read_bytes())
    except FileNotFoundError:
        raise Unusable(f"{what} is missing") from None
    except OSError as error:
        raise Unusable(f"{what} cannot be read: {_reason(error)}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise Unusable(f"{what} is not valid JSON: {str(error)[:200]}") from error
    if not isinstance(value, dict):
        raise Unusable(f"{what} is not a JSON object")
    return value


def _from_config(facts: Facts, config: Mapping[str, Any], has_template: bool) -> Facts:
    text = text_part(config)
    architecture = config.get("model_type")
    return replace(
        facts,
        architecture=_printable(architecture) if isinstance(architecture, str) else "",
        context_length=_context_length(text),
        has_chat_template=has_template,
    )


def _from_headers(facts: Facts, config: Mapping[str, Any], headers: list[Header]) -> Facts:
    by_dtype: dict[str, int] = {}
    for header in headers:
        for dtype, size in header.bytes_by_dtype.items():
            by_dtype[dtype] = by_dtype.get(dtype, 0) + size
    floating = [(size, dtype) for dtype, size in by_dtype.items() if dtype in _FLOATS]
    label, width = _FLOATS[max(floating)[1]] if floating else (None, 2)
    return replace(
        facts,
        quantization=_quantization(config) or label,
        kv_bytes_per_token=kv_bytes_per_token(text_part(config), width),
    )


def text_part(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The language model's part of a multimodal config, over the outer values; else the config itself."""
    for name in ("text_config", "llm_config", "language_config"):
        inner = config.get(name)
        if isinstance(inner, dict):
            return {**config, **inner}
    return config


def _context_length(config: Mapping[str, Any]) -> int:
    names = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "seq_length", "n_ctx")
    length = integer(config, *names)
    scaling = config.get("rope_scaling")
    if not isinstance(scaling, dict):
        return length
    original, factor = integer(scaling, "original_max_position_embeddings"), scaling.get("factor")
    if original and isinstance(factor, int | float) and 1 <= factor <= 1024:
        length = max(length, int(original * factor))
    return length


def _quantization(config: Mapping[str, Any]) -> str | None:
    for name in ("quantization", "quantization_config"):
        entry = config.get(name)
        if not isinstance(entry, dict):
            continue
        mode, method = entry.get("mode"), entry.get("quant_method")
        if isinstance(mode, str) and mode not in ("", "affine"):
            return _printable(mode)[:32]
        if 0 < (bits := integer(entry, "bits")) <= 16:
            return f"{bits}bit"
        if isinstance(method, str) and method:
            return _printable(method)[:32]
    return None


def _has_template(directory: Path, files: tuple[FileFact, ...]) -> bool:
    names = {file.name for file in files}
    if names & _TEMPLATES:
        return True
    if "tokenizer_config.json" not in names:
        return False
    try:
        return bool(read_json(directory / "tokenizer_config.json", "tokenizer_config.json").get("chat_template"))
    except Unusable:
        return False


def weight_names(names: set[str]) -> list[str]:
    """The files mlx-lm loads: ``model*.safetensors`` (others are adapters, or the same weights once more)."""
    return sorted(name for name in names if name.startswith("model") and name.endswith(".safetensors"))


def _weight_bytes(files: tuple[FileFact, ...]) -> int:
    wanted = set(weight_names({file.name for file in files}))
    return sum(file.size for file in files if file.name in wanted)


def _weights(directory: Path, names: set[str]) -> list[Header]:
    """The headers of all weight files. Raises ``Unusable`` when one is missing or broken."""
    weights = weight_names(names)
    if not weights:
        raise Unusable("there are no weights: no file is named model*.safetensors")
    if _INDEX in names:
        _check_index(read_json(directory / _INDEX, _INDEX), names)
    headers: list[Header] = []
    for name in weights:
        try:
            headers.append(read_header(directory / name))
        except BadSafetensors as error:
            raise Unusable(f"{_printable(name)} {error}") from error
        except OSError as error:
            raise Unusable(f"{_printable(name)} cannot be read: {_reason(error)}") from error
    return headers


def _check_index(index: Mapping[str, Any], names: set[str]) -> None:
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise Unusable(f"{_INDEX} has no usable weight_map")
    wanted = set(weight_map.values())
    if any("/" in name or "\\" in name or name in ("", ".", "..") for name in wanted):
        raise Unusable(f"{_INDEX} names a file outside the model's directory")
    missing = sorted(wanted - names)
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise Unusable(f"a weight file is missing: {_printable(missing[0])}{more} of {len(wanted)}")


def _stays_inside(directory: Path, files: tuple[FileFact, ...], root: Path) -> None:
    """Refuse a directory or file that is a symlink to a place outside ``root`` (inside is how the Hub cache works)."""
    allowed = os.path.realpath(root)
    for path in (directory, *(directory / file.name for file in files)):
        if os.path.commonpath((allowed, os.path.realpath(path))) != allowed:
            raise Unusable(f"{_printable(path.name)} is a link to a place outside {root}")


def _obstacle(config: Mapping[str, Any], files: tuple[FileFact, ...]) -> str | None:
    """A reason why a whole directory still cannot be loaded."""
    architecture = config.get("model_type")
    if not isinstance(architecture, str) or not architecture:
        return "config.json does not name an architecture (model_type)"
    supported = supported_architectures()
    if supported is not None and architecture not in supported:
        return f"the installed mlx-lm does not know the architecture {_printable(architecture)!r}"
    names = {file.name for file in files}
    if not names & _TOKENIZERS and not any(name.endswith(".tiktoken") for name in names):
        return "there is no tokenizer (tokenizer.json or tokenizer.model)"
    empty = sorted(file.name for file in files if not file.size and (file.name in _TOKENIZERS or _is_json(file.name)))
    return f"{empty[0]} is empty" if empty else None


def _is_json(name: str) -> bool:
    return name in ("tokenizer_config.json", "generation_config.json")


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text[:128])


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
