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

from inference.catalog import ModelKind
from inference.embedding_files import is_embedding_model, read_embedding_files
from inference.model_files import (
    Incomplete,
    Unusable,
    context_length,
    integer,
    printable,
    read_json,
    read_weights,
    reason,
    text_part,
    weight_names,
)
from inference.safetensors import BadSafetensors, Header, read_header
from models_admin.about import Template, licence, parameters, read_template, special_tokens, text_capabilities
from models_admin.architectures import supported_architectures, unreadable_quantization
from models_admin.kv_size import kv_bytes_per_token
from models_admin.stamp import stamp_of

MAX_FILES = 10_000
MAX_DEPTH = 4
"""How deep the folders of a model are looked into."""

_TOKENIZERS = {"tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "tiktoken.model"}
_FLOATS = {"F64": ("f64", 8), "F32": ("f32", 4), "F16": ("f16", 2), "BF16": ("bf16", 2), "F8_E4M3": ("fp8", 2)}


@dataclass(frozen=True, slots=True)
class FileFact:
    """A file of the model: name relative to the directory, bytes, modification time in nanoseconds."""

    name: str
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Facts:
    """Sizes in bytes; ``context_length`` in tokens, 0 when unknown; ``problem`` None when nothing speaks against it.

    ``parameters``: how many, 0 when unknown. ``capabilities`` by the names of ``inference.ipc.Capabilities``, as far as
    files tell them. ``template_sha256`` is that of the chat template's text. ``incomplete``: the problem is one of
    weights that are not all there.
    """

    architecture: str = ""
    quantization: str | None = None
    weight_bytes: int = 0
    total_bytes: int = 0
    context_length: int = 0
    kv_bytes_per_token: int = 0
    has_chat_template: bool = False
    files: tuple[FileFact, ...] = field(default=())
    problem: str | None = None
    incomplete: bool = False
    kind: ModelKind = "llm"
    parameters: int = 0
    capabilities: tuple[str, ...] = ()
    licence: str = ""
    template_sha256: str = ""

    @property
    def names(self) -> frozenset[str]:
        """Of the files that lie directly in the directory."""
        return frozenset(file.name for file in self.files if "/" not in file.name)


def is_hidden(name: str) -> bool:
    """Whether a file, or a folder that it lies in, is hidden: such are no part of a model."""
    return any(part.startswith(".") for part in name.split("/"))


def list_files(directory: Path) -> tuple[FileFact, ...]:
    """The regular files in ``directory`` and in the folders below it, sorted by name; links to files are followed.

    Links to folders are not, nor are hidden folders looked into. Raises ``OSError``.
    """
    found: list[FileFact] = []
    _collect(directory, "", found)
    return tuple(sorted(found, key=lambda file: file.name))


def _collect(directory: Path, prefix: str, found: list[FileFact]) -> None:
    folders: list[str] = []
    with os.scandir(directory) as entries:
        for entry in entries:
            try:
                status, is_folder = entry.stat(), entry.is_dir(follow_symlinks=False)
            except OSError:
                continue  # a dangling link; what needs the file will say that it is missing
            if stat.S_ISREG(status.st_mode):
                name = (prefix + entry.name).encode(errors="surrogateescape").decode(errors="replace")
                found.append(FileFact(name, *stamp_of(status)))
            elif is_folder and not entry.name.startswith(".") and prefix.count("/") < MAX_DEPTH:
                folders.append(entry.name)
            if len(found) > MAX_FILES:
                raise OSError(f"more than {MAX_FILES} files")
    for name in folders:
        _collect(directory / name, f"{prefix}{name}/", found)


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
        return Facts(problem=f"the directory cannot be read: {reason(error)}")
    facts = Facts(files=files, total_bytes=sum(file.size for file in files), weight_bytes=_weight_bytes(files))
    names = set(facts.names)
    try:
        _stays_inside(directory, files, root)
        config = read_json(directory / "config.json", "config.json")
    except Unusable as problem:
        return replace(facts, problem=str(problem))
    facts = _from_config(facts, config, licence(directory, names, config))
    if is_embedding_model(directory, names, config, os.path.relpath(directory, root)):
        return _embedding_facts(facts, directory, root, config)
    template = read_template(directory, names)
    facts = _with_template(facts, template, directory, names)
    try:
        headers = read_weights(directory, names)
    except Unusable as problem:
        return replace(facts, problem=str(problem), incomplete=isinstance(problem, Incomplete))
    facts = _from_headers(facts, config, headers)
    return replace(facts, problem=_obstacle(config, facts))


def _embedding_facts(facts: Facts, directory: Path, root: Path, config: Mapping[str, Any]) -> Facts:
    """The facts of a model that makes vectors; it keeps nothing between its inputs, so no token costs KV."""
    facts = replace(facts, kind="embeddings", has_chat_template=False, capabilities=("embeddings",))
    try:
        _folders_stay_inside(directory, root)
        headers = read_weights(directory, set(facts.names))
        facts = replace(_from_headers(facts, config, headers), kv_bytes_per_token=0)
        found = read_embedding_files(directory, config)
        dense = [read_header(step.weights) for step in found.steps if step.weights is not None]
    except Unusable as problem:
        return replace(facts, problem=str(problem), incomplete=isinstance(problem, Incomplete))
    except (BadSafetensors, OSError) as problem:
        return replace(facts, problem=f"the weights of a layer behind the pooling are broken: {problem}")
    size = facts.weight_bytes + sum(header.data_bytes for header in dense)
    facts = replace(facts, weight_bytes=size, parameters=facts.parameters + parameters(dense, {}))
    return replace(facts, context_length=found.context, problem=_no_tokenizer(facts))


def _folders_stay_inside(directory: Path, root: Path) -> None:
    """The same of the folders that sentence-transformers makes (``1_Pooling``, ...), and of what is in them."""
    allowed = os.path.realpath(root)
    for path in (*directory.glob("[0-9]_*"), *directory.glob("[0-9]_*/*")):
        if os.path.commonpath((allowed, os.path.realpath(path))) != allowed:
            raise Unusable(f"{printable(path.name)} is a link to a place outside {root}")


def _from_config(facts: Facts, config: Mapping[str, Any], licensed: str) -> Facts:
    text = text_part(config)
    architecture = config.get("model_type")
    return replace(
        facts,
        architecture=printable(architecture) if isinstance(architecture, str) else "",
        context_length=context_length(text),
        licence=licensed,
    )


def _with_template(facts: Facts, template: Template, directory: Path, names: set[str]) -> Facts:
    tokens = special_tokens(directory, names)
    return replace(
        facts,
        has_chat_template=bool(template.text),
        template_sha256=template.sha256,
        capabilities=text_capabilities(template, tokens, facts.architecture),
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
        quantization=quantization_of(config) or label,
        kv_bytes_per_token=kv_bytes_per_token(text_part(config), width),
        parameters=parameters(headers, config),
    )


def quantization_of(config: Mapping[str, Any]) -> str | None:
    """What a model's config calls its quantization, such as ``4bit`` or ``mxfp4``; None for one that has none."""
    for name in ("quantization", "quantization_config"):
        entry = config.get(name)
        if not isinstance(entry, dict):
            continue
        mode, method = entry.get("mode"), entry.get("quant_method")
        if isinstance(mode, str) and mode not in ("", "affine"):
            return printable(mode)[:32]
        if 0 < (bits := integer(entry, "bits")) <= 16:
            return f"{bits}bit"
        if isinstance(method, str) and method:
            return printable(method)[:32]
    return None


def _weight_bytes(files: tuple[FileFact, ...]) -> int:
    wanted = set(weight_names({file.name for file in files if "/" not in file.name}))
    return sum(file.size for file in files if file.name in wanted)


def _stays_inside(directory: Path, files: tuple[FileFact, ...], root: Path) -> None:
    """Refuse a directory or file that is a symlink to a place outside ``root`` (inside is how the Hub cache works)."""
    allowed = os.path.realpath(root)
    for path in (directory, *(directory / file.name for file in files)):
        if os.path.commonpath((allowed, os.path.realpath(path))) != allowed:
            raise Unusable(f"{printable(path.name)} is a link to a place outside {root}")


def _obstacle(config: Mapping[str, Any], facts: Facts) -> str | None:
    """A reason why a whole directory still cannot be loaded."""
    architecture = config.get("model_type")
    if not isinstance(architecture, str) or not architecture:
        return "config.json does not name an architecture (model_type)"
    supported = supported_architectures()
    if supported is not None and architecture not in supported:
        return f"the installed mlx-lm does not know the architecture {printable(architecture)!r}"
    return unreadable_quantization(config) or _no_tokenizer(facts)


def _no_tokenizer(facts: Facts) -> str | None:
    """What is wrong with the files of the tokenizer, and with the small ones beside them."""
    files, names = facts.files, facts.names
    if not names & _TOKENIZERS and not any(name.endswith(".tiktoken") for name in names):
        return "there is no tokenizer (tokenizer.json or tokenizer.model)"
    empty = sorted(file.name for file in files if not file.size and (file.name in _TOKENIZERS or _is_json(file.name)))
    return f"{empty[0]} is empty" if empty else None


def _is_json(name: str) -> bool:
    return name in ("tokenizer_config.json", "generation_config.json")
