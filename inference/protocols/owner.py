"""What the owner keeps for a model, put where a request says nothing: sampling, bounds, system prompt, thinking.

A request's own word always wins, null being no word. It is done while a request is parsed, when what it said is still
known; everything after it cannot tell the owner's word from the client's, so that counts and usage are exact.
"""

from __future__ import annotations

from typing import Any

from msgspec import structs
from pydantic import BaseModel

from inference.engine import get_engine
from inference.ipc import GenerateRequest
from inference.model_settings import NO_SETTINGS, ModelSettings

Message = dict[str, Any]

_SAMPLING = (
    *("temperature", "top_p", "top_k", "min_p", "seed"),
    *("repetition_penalty", "presence_penalty", "frequency_penalty"),
)
_OTHER_NAMES = {
    "repetition_penalty": ("repeat_penalty",),
    "max_tokens": ("max_completion_tokens", "max_output_tokens"),
    "stop": ("stop_sequences",),
}
_SYSTEM_ROLES = ("system", "developer")


def settings_for(model: str | None) -> ModelSettings:
    """What is kept for the model of that name; nothing where no engine runs."""
    try:
        engine = get_engine()
    except RuntimeError:
        return NO_SETTINGS
    return engine.settings(model or "")


def with_defaults(request: GenerateRequest, params: BaseModel, settings: ModelSettings) -> GenerateRequest:
    """The request with the owner's values for what ``params``, the client's own words, leave open."""
    if settings is NO_SETTINGS:
        return request
    chosen = {name: getattr(settings, name) for name in _SAMPLING if not _said(params, name)}
    sampling = {name: value for name, value in chosen.items() if value is not None}
    changes: dict[str, Any] = {"sampling": structs.replace(request.sampling, **sampling)} if sampling else {}
    if settings.max_tokens is not None and not _said(params, "max_tokens"):
        changes["max_tokens"] = settings.max_tokens
    if settings.stop is not None and not _said(params, "stop"):
        changes["stop"] = list(settings.stop)
    return with_prompt_defaults(structs.replace(request, **changes), settings)


def with_prompt_defaults(request: GenerateRequest, settings: ModelSettings) -> GenerateRequest:
    """The request with the owner's values for what its prompt is made of: system prompt, variables of the template."""
    if settings is NO_SETTINGS or request.messages is None:
        return request
    messages = with_system(request.messages, settings.system_prompt)
    variables = dict(settings.chat_template_kwargs or {})
    # Who says how hard or how long to think has said that it shall be thought.
    is_said = request.thinking_budget is not None or "reasoning_effort" in request.template_kwargs
    if settings.enable_thinking is not None and not is_said:
        variables["enable_thinking"] = settings.enable_thinking
    return structs.replace(request, messages=messages, template_kwargs=variables | request.template_kwargs)


def with_system(messages: list[Message], prompt: str | None) -> list[Message]:
    """The conversation with ``prompt`` before it, where it has no instructions of its own."""
    if not prompt or any(message.get("role") in _SYSTEM_ROLES for message in messages):
        return messages
    return [{"role": "system", "content": prompt}, *messages]


def _said(params: BaseModel, name: str) -> bool:
    return any(getattr(params, one, None) is not None for one in (name, *_OTHER_NAMES.get(name, ())))
