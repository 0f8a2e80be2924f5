"""OpenAI's chat completions and text completions."""

from __future__ import annotations

from inference.protocols.openai.calls import chat_call, completion_call

__all__ = ["chat_call", "completion_call"]
