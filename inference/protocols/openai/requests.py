"""Request schemas of chat and text completions, and their conversion to what a worker understands."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from inference.ipc import GenerateRequest
from inference.protocols.openai.messages import Message, normalised
from inference.protocols.openai.params import (
    MAX_INT,
    CommonParams,
    check_common,
    max_tokens,
    sampling,
    stops,
)
from inference.protocols.openai.tools import (
    NamedChoice,
    ResponseFormat,
    Tool,
    output_format,
    tool_choice,
    tool_list,
)
from inference.protocols.validation import refuse

COMPLETION_DEFAULT_TOKENS = 16

# Arguments of the call that renders a template: a client may not replace them.
_RESERVED_TEMPLATE_KWARGS = frozenset(
    {
        "add_generation_prompt",
        "chat_template",
        "continue_final_message",
        "conversation",
        "documents",
        "max_length",
        "messages",
        "padding",
        "return_assistant_tokens_mask",
        "return_dict",
        "return_tensors",
        "tokenize",
        "tokenizer_kwargs",
        "tools",
        "truncation",
    }
)

# Lists fail at their first fault: a body of millions of wrong items must not become millions of errors.
TokenIds = Annotated[list[Annotated[int, Field(ge=0, le=MAX_INT)]], Field(fail_fast=True)]
Strings = Annotated[list[str], Field(fail_fast=True)]


class ChatRequest(CommonParams):
    """``POST /v1/chat/completions``."""

    messages: Annotated[list[Message], Field(fail_fast=True)] = Field(min_length=1)
    max_completion_tokens: Annotated[int, Field(ge=-1, le=MAX_INT)] | None = Field(
        None, description="Today's name of max_tokens."
    )
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = Field(None, description="Needs logprobs: true.")
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Tool], Field(fail_fast=True)] | None = None
    tool_choice: str | NamedChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = Field(
        None, description="Handed to the model's chat template."
    )
    enable_thinking: bool | None = Field(None, description="Handed to the model's chat template.")
    chat_template_kwargs: dict[str, Any] | None = Field(None, description="Variables for the model's chat template.")


class CompletionRequest(CommonParams):
    """``POST /v1/completions``. ``prompt`` is one text or one list of token ids, also as the only item of a list."""

    prompt: str | Strings | TokenIds | Annotated[list[TokenIds], Field(fail_fast=True)]
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None


def chat_request(chat: ChatRequest) -> GenerateRequest:
    """What the worker is to do; ``InvalidRequest`` names what it cannot."""
    check_common(chat)
    if chat.top_logprobs and not chat.logprobs:
        raise refuse("top_logprobs", "needs logprobs to be true")
    tools = tool_list(chat.tools)
    return GenerateRequest(
        messages=normalised(chat.messages),
        n=chat.n or 1,
        max_tokens=_chat_max_tokens(chat),
        stop=stops(chat.stop),
        ignore_eos=bool(chat.ignore_eos),
        sampling=sampling(chat, (chat.top_logprobs or 0) if chat.logprobs else None),
        output_format=output_format(chat.response_format),
        tools=tools,
        tool_choice=tool_choice(chat.tool_choice, tools),
        parallel_tool_calls=chat.parallel_tool_calls is not False,
        template_kwargs=_template_kwargs(chat),
    )


def completion_request(completion: CompletionRequest) -> GenerateRequest:
    """What the worker is to do; ``InvalidRequest`` names what it cannot."""
    check_common(completion)
    prompt = _single_prompt(completion.prompt)
    if completion.echo and completion.logprobs is not None:
        raise refuse("echo", "cannot be combined with logprobs", code="unsupported_parameter")
    bound = COMPLETION_DEFAULT_TOKENS if completion.max_tokens is None else max_tokens(completion.max_tokens)
    return GenerateRequest(
        prompt=prompt,
        n=completion.n or 1,
        max_tokens=bound,
        stop=stops(completion.stop),
        ignore_eos=bool(completion.ignore_eos),
        echo=bool(completion.echo),
        sampling=sampling(completion, completion.logprobs),
    )


def _chat_max_tokens(chat: ChatRequest) -> int | None:
    old, new = chat.max_tokens, chat.max_completion_tokens
    if old is not None and new is not None and old != new:
        raise refuse("max_tokens", f"({old}) and max_completion_tokens ({new}) are one limit and differ")
    return max_tokens(old) if new is None else max_tokens(new, "max_completion_tokens")


def _template_kwargs(chat: ChatRequest) -> dict[str, Any]:
    kwargs = dict(chat.chat_template_kwargs or {})
    for name in kwargs:
        if name in _RESERVED_TEMPLATE_KWARGS:
            raise refuse(f"chat_template_kwargs.{name}", "is set by the server")
    if chat.reasoning_effort is not None:
        kwargs.setdefault("reasoning_effort", chat.reasoning_effort)
        if chat.reasoning_effort == "none":
            kwargs.setdefault("enable_thinking", False)
    if chat.enable_thinking is not None:
        kwargs["enable_thinking"] = chat.enable_thinking
    return kwargs


def _single_prompt(prompt: str | list[str] | list[int] | list[list[int]]) -> str | list[int]:
    if isinstance(prompt, str):
        return prompt
    if not prompt:
        raise refuse("prompt", "must not be empty")
    first = prompt[0]
    if isinstance(first, int):
        return [token for token in prompt if isinstance(token, int)]
    if len(prompt) > 1:
        raise refuse("prompt", f"holds {len(prompt)} prompts; send one per request", code="unsupported_parameter")
    if not first:
        raise refuse("prompt[0]", "must not be empty")
    return first
