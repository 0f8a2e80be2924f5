"""Anthropic's Messages: what a request means, and how its answer is worded, whole or streamed.

The shapes are those of the published ``anthropic`` client. ``calls`` is where a request's bytes come in.
"""

from __future__ import annotations

from inference.protocols.anthropic.calls import CountCall, count_call, message_call

__all__ = ["CountCall", "count_call", "message_call"]
