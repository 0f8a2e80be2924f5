"""Whether, how long and how visibly a model thinks; and the signature under what it thought.

Thoughts come back in the history of the next request, where clients keep them as they were: the signature that the
protocol demands is a hash, and is not checked, so that a conversation begun with another model can go on here.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from inference.protocols.validation import WireModel, refuse

MAX_INT = 2**31 - 1
Visibility = Literal["shown", "signed", "hidden"]


class Thinking(WireModel):
    """``enabled`` with the most tokens of it, ``adaptive`` without a bound, ``disabled``."""

    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: Annotated[int, Field(ge=0, le=MAX_INT)] | None = None
    display: Literal["summarized", "omitted"] | None = None


@dataclass(frozen=True, slots=True)
class Thoughts:
    """``template`` are variables for the chat template; ``budget`` as ``GenerateRequest.thinking_budget``.

    ``visibility``: ``signed`` thoughts are a block with a signature and no text, ``hidden`` ones are left out.
    """

    template: dict[str, Any] = field(default_factory=dict)
    budget: int | None = None
    visibility: Visibility = "shown"


def thoughts(thinking: Thinking | None) -> Thoughts:
    """What is asked of the model's thinking. Left out, it is left to the model."""
    if thinking is None:
        return Thoughts()
    if thinking.type == "between_tools":
        message = "is 'between_tools', which is not supported; use 'adaptive', 'enabled' or 'disabled'"
        raise refuse("thinking.type", message, code="unsupported_parameter")
    if thinking.type == "disabled":
        return Thoughts({"enable_thinking": False}, visibility="hidden")
    budget = thinking.budget_tokens if thinking.type == "enabled" else None
    visibility: Visibility = "signed" if thinking.display == "omitted" else "shown"
    return Thoughts({"enable_thinking": True}, budget, visibility)


class Signature:
    """Signs a thought that comes in pieces."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256(b"lmx:thinking:")

    def add(self, text: str) -> None:
        self._hash.update(text.encode("utf-8", "surrogatepass"))

    def text(self) -> str:
        return base64.b64encode(self._hash.digest()).decode()
