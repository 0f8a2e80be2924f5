"""What a client called the things that the worker knows by one name, so that a refusal names what was sent."""

from __future__ import annotations

import re

from inference.protocols.openai.constraints import asked_format
from inference.protocols.openai.reasoning import asked_budget
from inference.protocols.openai.requests import ChatRequest, CompletionRequest

_FUNCTION = re.compile(r"^tools\[(\d+)\]\.function\b")


def client_name(params: ChatRequest | CompletionRequest, param: str) -> str:
    """The client's name of the worker's ``param``, a path whose beginning may have another name."""
    names = _names(params)
    if "tools" in names:
        param = _FUNCTION.sub(r"functions[\1]", param)
    head = re.split(r"[.\[]", param, maxsplit=1)[0]
    return names[head] + param[len(head) :] if head in names else param


def _names(params: ChatRequest | CompletionRequest) -> dict[str, str]:
    """From the worker's name of a parameter to the client's, where they differ."""
    names = {"prompt_logprobs": "logprobs", "continue_final": "continue_final_message"}
    if (asked := asked_format(params)) is not None:
        names["response_format"] = asked[0]
    if isinstance(params, ChatRequest):
        if (budget := asked_budget(params)) is not None:
            names["thinking_budget"] = budget[0]
        if params.functions:
            names |= {"tools": "functions", "tool_choice": "function_call"}
    return names
