"""The response object before anything is written into it: what was asked for, as OpenAI repeats it."""

from __future__ import annotations

import time
from typing import Any

from inference.protocols.responses.requests import ResponsesRequest
from inference.protocols.responses.tools import shown_choice, shown_text, shown_tools


def new_response(params: ResponsesRequest, response_id: str) -> dict[str, Any]:
    """A response in progress, with the effective value of everything that was left out."""
    effort = params.reasoning.effort if params.reasoning is not None else None
    return {
        "id": response_id,
        "object": "response",
        "created_at": int(time.time()),
        "status": "in_progress",
        "background": bool(params.background),
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "instructions": params.instructions,
        "max_output_tokens": params.max_output_tokens,
        "max_tool_calls": params.max_tool_calls,
        "metadata": params.metadata or {},
        "model": params.model or "",
        "output": [],
        "parallel_tool_calls": params.parallel_tool_calls is not False,
        "previous_response_id": params.previous_response_id,
        "prompt_cache_key": params.prompt_cache_key,
        "prompt_cache_retention": params.prompt_cache_retention,
        "reasoning": {"effort": effort, "summary": None},
        "safety_identifier": params.safety_identifier,
        "service_tier": "default",
        "temperature": 1.0 if params.temperature is None else params.temperature,
        "text": shown_text(params.text),
        "tool_choice": shown_choice(params.tool_choice),
        "tools": shown_tools(params.tools),
        "top_logprobs": params.top_logprobs or 0,
        "top_p": 1.0 if params.top_p is None else params.top_p,
        "truncation": params.truncation or "disabled",
        "usage": None,
        "user": params.user,
    }
