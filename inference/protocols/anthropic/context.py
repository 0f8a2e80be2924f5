"""``context_management``: what is to be taken out of a conversation before the model reads it.

Clearing old thoughts is done. Clearing tool results and compaction depend on counts of tokens and on a model that
summarises; they are refused by name, as what the model would read is not what the client counts on.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from inference.protocols.anthropic.messages import Message, forget_thoughts
from inference.protocols.validation import WireModel, refuse

_CLEAR_THINKING = "clear_thinking_20251015"


class Turns(WireModel):
    type: Literal["thinking_turns", "all"]
    value: Annotated[int, Field(ge=1)] | None = None


class Edit(WireModel):
    """``keep`` is the number of the last thinking turns whose thoughts stay; one if it is left out."""

    type: str
    keep: Turns | Literal["all"] | None = None


class ContextManagement(WireModel):
    edits: Annotated[list[Edit], Field(fail_fast=True)] | None = None


def manage(context: ContextManagement | None, messages: list[Message]) -> None:
    """Apply the edits; ``InvalidRequest`` names one that cannot be."""
    for position, edit in enumerate((context and context.edits) or []):
        if edit.type != _CLEAR_THINKING:
            message = f"is {edit.type[:64]!r}, which is not supported"
            path = f"context_management.edits[{position}].type"
            raise refuse(path, message, code="unsupported_parameter")
        if (kept := _kept(edit.keep)) is not None:
            forget_thoughts(messages, kept)


def _kept(keep: Any) -> int | None:
    """None for all of them."""
    if keep is None:
        return 1
    return None if keep == "all" or keep.type == "all" else keep.value or 1
