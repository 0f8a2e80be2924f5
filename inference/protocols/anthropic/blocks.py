"""Content blocks as clients send them, and their text.

One schema serves every kind of block: a union of all would answer a wrong field with the complaints of each. Which kind
may stand where is told by whoever reads it; a kind that this server cannot give to a model is refused by its name.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import Field

from inference.errors import InvalidRequest
from inference.protocols.validation import WireModel, refuse

_KINDS = {
    "image": "images",
    "container_upload": "uploads to containers",
    "server_tool_use": "tools that a server runs",
    "mcp_tool_use": "tools that a server runs",
    "mcp_tool_result": "tools that a server runs",
    "compaction": "compaction",
}
_SOURCES = {
    "base64": "PDFs and other binary files",
    "url": "addresses to fetch from",
    "file": "uploaded files",
}


class Source(WireModel):
    """Where a document or an image is. ``text`` has ``data``, ``content`` has ``content``."""

    type: str
    data: str | None = None
    content: Content | None = None
    media_type: Any = None
    url: Any = None
    file_id: Any = None


class Block(WireModel):
    """One block, whatever its ``type``; ``cache_control`` and the like are known and change nothing."""

    type: str
    text: str | None = None
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    tool_use_id: str | None = None
    content: Content | None = None
    is_error: bool | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    source: Source | str | None = None
    title: str | None = None
    context: str | None = None
    tool_name: str | None = None
    citations: Any = None
    cache_control: Any = None
    caller: Any = None
    toolset_name: Any = None
    transformations: Any = None


Content = str | Annotated[list[Block], Field(fail_fast=True)]
Source.model_rebuild()
Block.model_rebuild()

Placed = tuple[Block, str]
"""A block, and its path in the request."""


def blocks_of(content: Content, path: str) -> list[Placed]:
    """The blocks of a ``content`` that may be a mere text."""
    if isinstance(content, str):
        return [(Block(type="text", text=content), path)]
    return [(block, f"{path}[{position}]") for position, block in enumerate(content)]


def text_of(block: Block, path: str) -> str:
    """The text of a block that is one: ``text``, or a ``document`` or ``search_result`` of text."""
    if block.type == "text":
        return needed(block.text, f"{path}.text")
    if block.type == "document":
        _check_citations(block, path)
        return "\n".join(part for part in (block.title, block.context, _document(block, path)) if part)
    if block.type == "search_result":
        _check_citations(block, path)
        source = block.source if isinstance(block.source, str) else None
        return "\n".join(part for part in (block.title, source, joined(block.content or "", f"{path}.content")) if part)
    if block.type == "tool_reference":
        return needed(block.tool_name, f"{path}.tool_name")
    raise misplaced(block, path)


def joined(content: Content, path: str) -> str:
    """The text of a ``content`` in which only text may stand; blocks are joined by a line feed."""
    return "\n".join(text for text in _texts(content, path) if text)


def misplaced(block: Block, path: str) -> InvalidRequest:
    """The refusal of a block that cannot be read, or not there."""
    what = _KINDS.get(block.type)
    if what is None and block.type.endswith("_tool_result"):
        what = "tools that a server runs"
    if what is not None:
        return refuse(f"{path}.type", f"is {block.type!r}: this server takes no {what}", code="unsupported_content")
    return refuse(f"{path}.type", f"is {block.type[:40]!r}, which cannot stand here")


def needed(value: str | None, path: str) -> str:
    if value is None:
        raise refuse(path, "is required", code="missing_required_parameter")
    return value


def _texts(content: Content, path: str) -> Iterator[str]:
    for block, place in blocks_of(content, path):
        yield text_of(block, place)


def _document(block: Block, path: str) -> str:
    source = block.source
    if not isinstance(source, Source):
        raise refuse(f"{path}.source", "is required", code="missing_required_parameter")
    if source.type in _SOURCES:
        message = f"is {source.type!r}: this server takes no {_SOURCES[source.type]}; send the document as text"
        raise refuse(f"{path}.source.type", message, code="unsupported_content")
    if source.type == "text":
        return needed(source.data, f"{path}.source.data")
    if source.type == "content":
        return joined(source.content or "", f"{path}.source.content")
    raise refuse(f"{path}.source.type", f"must be 'text' or 'content', not {source.type[:40]!r}")


def _check_citations(block: Block, path: str) -> None:
    """On a document they are a wish for the answer, which no local model can be held to."""
    if isinstance(block.citations, dict) and block.citations.get("enabled"):
        message = "would change the answer and is not supported; leave it out"
        raise refuse(f"{path}.citations.enabled", message, code="unsupported_parameter")
