"""Pieces of OpenAI's answers that chat and text completions share."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import orjson

from inference.errors import LmxError
from inference.ipc import TokenLogprob, Usage
from inference.protocols.errors import error_bytes

DONE = b"data: [DONE]\n\n"
_LOWEST = -9999.0


def usage_object(usage: Usage) -> dict[str, Any]:
    """``usage`` with OpenAI's names; kinds of token that do not exist here are 0."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def usage_so_far(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    """``usage`` of a chunk before the last."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def fingerprint(model: str) -> str:
    """``system_fingerprint``: the same for as long as the same model is served."""
    return "fp_" + hashlib.blake2s(model.encode(), digest_size=5).hexdigest()


def frame(value: dict[str, Any]) -> bytes:
    """One server-sent frame."""
    return b"data: " + orjson.dumps(value) + b"\n\n"


def error_frames(error: LmxError, path: str) -> bytes:
    """The error as a frame and the regular end, so that no client waits for more."""
    return b"data: " + error_bytes(error, path) + b"\n\n" + DONE


def finite(logprob: float) -> float:
    """JSON has no infinity: OpenAI writes -9999 for a token that cannot come."""
    return logprob if math.isfinite(logprob) else _LOWEST


def chat_logprobs(tokens: list[TokenLogprob]) -> dict[str, Any]:
    """``logprobs`` of a chat choice: one entry per token."""
    return {"content": [_chat_token(token) for token in tokens], "refusal": None}


def _chat_token(token: TokenLogprob) -> dict[str, Any]:
    top = [{"token": other.text, "logprob": finite(other.logprob), "bytes": list(other.raw)} for other in token.top]
    return {
        "token": token.text,
        "logprob": finite(token.logprob),
        "bytes": list(token.raw),
        "top_logprobs": top,
    }
