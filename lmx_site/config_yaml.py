"""Reads a YAML file into plain values together with the line of every key, within bounds.

Nothing in the file is ever constructed beyond text, numbers, booleans, null, lists and mappings. Aliases are
followed, but only as far as ``MAX_NODES`` values in all; duplicate keys are problems, not overrides.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

MAX_BYTES = 1024 * 1024
MAX_NODES = 20_000
MAX_DEPTH = 12

KeyPath = tuple[str, ...]
_PLAIN_TAGS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null"))
_BROKEN = object()


@dataclass(slots=True)
class Document:
    """``values`` is the mapping of the file, ``lines`` the 1-based line of each key path, ``problems`` (line, text)."""

    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[KeyPath, int] = field(default_factory=dict)
    problems: list[tuple[int, str]] = field(default_factory=list)


def read_document(file: Path) -> Document:
    """The file's content. Never raises for what is in it; raises ``OSError`` when it cannot be read."""
    with file.open("rb") as stream:
        data = stream.read(MAX_BYTES + 1)
    document = Document()
    if len(data) > MAX_BYTES:
        document.problems.append((1, f"the file is larger than {MAX_BYTES:,} bytes: this is not a configuration"))
        return document
    loader = None
    try:
        loader = yaml.SafeLoader(data)
        root = loader.get_single_node()
        _Reader(loader, document).read_root(root)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        what = getattr(error, "problem", None) or str(error).replace("\n", " ")
        document.problems.append((mark.line + 1 if mark else 1, f"this is not YAML: {what}"))
    except RecursionError:
        document.problems.append((1, "the file is nested too deeply"))
    finally:
        if loader is not None:
            loader.dispose()
    return document


def parse_scalar(text: str) -> Any:
    """One value as YAML reads it (for environment variables); text that is not YAML stays text."""
    try:
        value = yaml.safe_load(text) if len(text) <= MAX_BYTES and "&" not in text else text
    except (yaml.YAMLError, RecursionError, ValueError):
        return text
    return value


class _Reader:
    def __init__(self, loader: yaml.SafeLoader, document: Document) -> None:
        self._loader = loader
        self._document = document
        self._nodes = 0

    def read_root(self, root: yaml.Node | None) -> None:
        if root is None or root.tag == "tag:yaml.org,2002:null":
            return
        if not isinstance(root, yaml.MappingNode):
            self._problem(root, "expected sections such as 'server:' at the top")
            return
        values = self._mapping(root, ())
        if isinstance(values, dict):
            self._document.values = values

    def _value(self, node: yaml.Node, path: KeyPath) -> Any:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise yaml.YAMLError(f"more than {MAX_NODES:,} values, aliases included")
        if len(path) > MAX_DEPTH:
            self._problem(node, "is nested too deeply")
            return _BROKEN
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            items = [self._value(child, self._noted((*path, str(n)), child)) for n, child in enumerate(node.value)]
            return [item for item in items if item is not _BROKEN]
        return self._scalar(node)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> Any:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node)
            if key is None:
                continue
            if key in found:
                first = self._document.lines[(*path, key)]
                self._problem(key_node, f"{'.'.join((*path, key))} stands here a second time (first in line {first})")
                continue
            value = self._value(value_node, self._noted((*path, key), key_node))
            if value is not _BROKEN:
                found[key] = value
        return found

    def _key(self, node: yaml.Node) -> str | None:
        if isinstance(node, yaml.ScalarNode) and node.tag != "tag:yaml.org,2002:null":
            return str(node.value)
        self._problem(node, "a key must be a plain word")
        return None

    def _scalar(self, node: yaml.Node) -> Any:
        if node.tag not in _PLAIN_TAGS:
            # Dates and the like are only text that looks special; a foreign tag asks for an object.
            if node.tag.startswith("tag:yaml.org,2002:") and not node.tag.startswith("tag:yaml.org,2002:python"):
                return str(node.value)
            self._problem(node, f"the tag {node.tag} is not allowed here")
            return _BROKEN
        try:
            return self._loader.construct_object(node)
        except (yaml.YAMLError, ValueError, OverflowError):
            self._problem(node, f"{node.value!r} cannot be read")
            return _BROKEN

    def _noted(self, path: KeyPath, node: yaml.Node) -> KeyPath:
        self._document.lines.setdefault(path, node.start_mark.line + 1)
        return path

    def _problem(self, node: yaml.Node, text: str) -> None:
        self._document.problems.append((node.start_mark.line + 1, text))
