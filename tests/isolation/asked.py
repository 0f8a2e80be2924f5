"""A request of a mix as a client of each protocol writes it; what a protocol has no name for is left out."""

from __future__ import annotations

from typing import Any

from inference.ipc import GenerateRequest, OutputFormat
from tests.isolation.plans import Ask

PATHS = {
    "chat": "/v1/chat/completions",
    "completions": "/v1/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
}
_SAMPLING = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "seed",
)
_FORMATS = {"regex": "guided_regex", "choice": "guided_choice", "grammar": "guided_grammar"}


def body(ask: Ask, model: str) -> dict[str, Any]:
    """The JSON of ``ask``, for its protocol's path."""
    makers = {"chat": _chat, "completions": _completion, "responses": _response, "messages": _message}
    return {"model": model, "stream": ask.stream, **makers[ask.protocol](ask)}


def is_fixed(ask: Ask) -> bool:
    """Whether it gives the same each time: greedy or with a seed, which messages have none of."""
    sampling = ask.request.sampling
    return sampling.temperature == 0 or (sampling.seed is not None and ask.protocol != "messages")


def _common(request: GenerateRequest) -> dict[str, Any]:
    sampling = request.sampling
    found: dict[str, Any] = {name: getattr(sampling, name) for name in _SAMPLING}
    return found | {
        "logit_bias": {str(token): bias for token, bias in sampling.logit_bias.items()},
        "stop": request.stop,
    }


def _openai(ask: Ask) -> dict[str, Any]:
    request = ask.request
    found = _common(request) | {"n": request.n, "max_tokens": request.max_tokens, "ignore_eos": request.ignore_eos}
    if ask.stream:
        found["stream_options"] = {"include_usage": True}
    wanted = request.output_format
    if wanted.kind in _FORMATS:
        found[_FORMATS[wanted.kind]] = wanted.text or wanted.choices
    elif wanted.kind != "text":
        found["response_format"] = _response_format(wanted)
    return found


def _response_format(wanted: OutputFormat) -> dict[str, Any]:
    if wanted.kind == "json_object":
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": wanted.schema}}


def _chat(ask: Ask) -> dict[str, Any]:
    request = ask.request
    found = _openai(ask) | {
        "messages": request.messages,
        "chat_template_kwargs": request.template_kwargs,
        "continue_final_message": request.continue_final,
        "add_generation_prompt": not request.continue_final,
    }
    if request.sampling.top_logprobs is not None:
        found |= {"logprobs": True, "top_logprobs": request.sampling.top_logprobs}
    if request.thinking_budget is not None:
        found["thinking_token_budget"] = request.thinking_budget
    if request.tools:
        found |= {"tools": request.tools, "parallel_tool_calls": request.parallel_tool_calls}
        found["tool_choice"] = request.tool_choice
        if name := _only_tool(request):
            found["tool_choice"] = {"type": "function", "function": {"name": name}}
    return found


def _only_tool(request: GenerateRequest) -> str | None:
    """The one tool that must be called."""
    return request.tool_names[0] if request.tool_names and request.tool_choice == "required" else None


def _completion(ask: Ask) -> dict[str, Any]:
    """Echo with log probabilities is those of the prompt too."""
    prompt = ask.request.prompt
    found = _openai(ask) | {"prompt": [prompt, *ask.more] if ask.more else prompt, "echo": ask.request.echo}
    if ask.request.sampling.top_logprobs is not None:
        found["logprobs"] = ask.request.sampling.top_logprobs
    return found


def _response(ask: Ask) -> dict[str, Any]:
    request = ask.request
    found = _common(request) | {
        "input": [{"role": message["role"], "content": message["content"]} for message in request.messages or []],
        "max_output_tokens": request.max_tokens,
        "background": ask.background,
        "chat_template_kwargs": request.template_kwargs,
    }
    if request.sampling.top_logprobs is not None:
        found |= {"include": ["message.output_text.logprobs"], "top_logprobs": request.sampling.top_logprobs}
    wanted = request.output_format
    if wanted.kind == "json_schema":
        found["text"] = {"format": {"type": "json_schema", "name": "answer", "schema": wanted.schema}}
    elif wanted.kind == "json_object":
        found["text"] = {"format": {"type": "json_object"}}
    if request.tools:
        found["tools"] = [{"type": "function", **tool["function"]} for tool in request.tools]
        found |= {"tool_choice": request.tool_choice, "parallel_tool_calls": request.parallel_tool_calls}
        if name := _only_tool(request):
            found["tool_choice"] = {"type": "function", "name": name}
    return found


def _message(ask: Ask) -> dict[str, Any]:
    request, sampling = ask.request, ask.request.sampling
    messages = list(request.messages or [])
    found: dict[str, Any] = {
        "max_tokens": request.max_tokens,
        "temperature": min(1.0, sampling.temperature),
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "stop_sequences": request.stop,
    }
    if messages and messages[0]["role"] == "system":
        found["system"] = messages.pop(0)["content"]
    found["messages"] = messages
    if request.template_kwargs:
        found["thinking"] = {"type": "disabled"}
    elif request.thinking_budget is not None:
        found["thinking"] = {"type": "enabled", "budget_tokens": request.thinking_budget}
    if request.output_format.kind == "json_schema":
        found["output_config"] = {"format": {"type": "json_schema", "schema": request.output_format.schema}}
    if request.tools:
        found["tools"] = [_message_tool(tool["function"]) for tool in request.tools]
        kind = {"auto": "auto", "none": "none", "required": "any"}[request.tool_choice]
        name = _only_tool(request)
        found["tool_choice"] = {"type": "tool", "name": name} if name else {"type": kind}
        if kind != "none":
            found["tool_choice"]["disable_parallel_tool_use"] = not request.parallel_tool_calls
    return found


def _message_tool(function: dict[str, Any]) -> dict[str, Any]:
    return {"name": function["name"], "input_schema": function["parameters"], "strict": function["strict"]}
