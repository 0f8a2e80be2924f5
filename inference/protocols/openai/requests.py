"""Request schemas of chat and text completions, and their conversion to what a worker understands."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import structs
from pydantic import Field

from inference.ipc import GenerateRequest
from inference.protocols.openai.constraints import ConstraintParams, output_format
from inference.protocols.openai.messages import Message, normalised
from inference.protocols.openai.params import (
    MAX_CHOICES,
    MAX_INT,
    CommonParams,
    check_common,
    max_tokens,
    sampling,
    stops,
)
from inference.protocols.openai.reasoning import ReasoningParams, thoughts
from inference.protocols.openai.tools import (
    ChosenFunction,
    FunctionSpec,
    Mode,
    NamedChoice,
    Tool,
    function_call,
    function_list,
    tool_choice,
    tool_list,
)
from inference.protocols.validation import refuse

COMPLETION_DEFAULT_TOKENS = 16
MAX_PROMPTS = 1024
"""Prompts of one text completion, and choices that it answers with, all together."""

# Lists fail at their first fault: a body of millions of wrong items must not become millions of errors.
TokenIds = Annotated[list[Annotated[int, Field(ge=0, le=MAX_INT)]], Field(fail_fast=True)]
Strings = Annotated[list[str], Field(fail_fast=True)]
Texts = str | Strings | TokenIds | Annotated[list[TokenIds], Field(fail_fast=True)]
"""One text, one list of token ids, or a list of either."""


class ChatRequest(CommonParams, ConstraintParams, ReasoningParams):
    """``POST /v1/chat/completions``."""

    messages: Annotated[list[Message], Field(fail_fast=True)] = Field(min_length=1)
    max_completion_tokens: Annotated[int, Field(ge=-1, le=MAX_INT)] | None = Field(
        None, description="Today's name of max_tokens."
    )
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = Field(None, description="Needs logprobs: true.")
    tools: Annotated[list[Tool], Field(fail_fast=True)] | None = None
    tool_choice: str | NamedChoice | None = None
    parallel_tool_calls: bool | None = None
    functions: Annotated[list[FunctionSpec], Field(fail_fast=True)] | None = Field(
        None, description="The name of tools before there were others than functions."
    )
    function_call: str | ChosenFunction | None = Field(None, description="tool_choice for functions.")
    continue_final_message: bool | None = Field(None, description="Go on with the last message, the assistant's.")
    add_generation_prompt: bool | None = Field(None, description="false only together with continue_final_message.")


class CompletionRequest(CommonParams, ConstraintParams):
    """``POST /v1/completions``. ``prompt`` is one text or one list of token ids, or a list of either."""

    prompt: Texts
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    best_of: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = Field(
        None,
        description="Choices made for each prompt, of which the n with the highest mean log probability are given.",
    )


def chat_request(chat: ChatRequest) -> GenerateRequest:
    """What the worker is to do; ``InvalidRequest`` names what it cannot."""
    check_common(chat)
    if chat.top_logprobs and not chat.logprobs:
        raise refuse("top_logprobs", "needs logprobs to be true")
    tools, (mode, names) = _tools(chat)
    messages = normalised(chat.messages)
    reasoning = thoughts(chat)
    return GenerateRequest(
        messages=messages,
        n=chat.n or 1,
        max_tokens=_chat_max_tokens(chat),
        stop=stops(chat.stop),
        ignore_eos=bool(chat.ignore_eos),
        sampling=sampling(chat, (chat.top_logprobs or 0) if chat.logprobs else None),
        output_format=output_format(chat),
        tools=tools,
        tool_choice=mode,
        tool_names=names,
        parallel_tool_calls=not tools or (chat.parallel_tool_calls is not False and not chat.functions),
        template_kwargs=reasoning.template,
        thinking_budget=reasoning.budget,
        continue_final=continues(chat.continue_final_message, chat.add_generation_prompt, messages),
    )


def completion_requests(completion: CompletionRequest) -> list[GenerateRequest]:
    """What the worker is to do, one request for each prompt; ``InvalidRequest`` names what it cannot.

    Each makes ``best_of`` choices where that is given, with their log probabilities.
    """
    check_common(completion)
    prompts = several(completion.prompt, "prompt", most=MAX_PROMPTS)
    made = _made_choices(completion, len(prompts))
    logprobs = completion.logprobs
    if logprobs is None and made > (completion.n or 1):
        logprobs = 0
    bound = COMPLETION_DEFAULT_TOKENS if completion.max_tokens is None else _completion_max_tokens(completion)
    shared = GenerateRequest(
        prompt="",
        n=made,
        max_tokens=bound,
        stop=stops(completion.stop),
        ignore_eos=bool(completion.ignore_eos),
        echo=bool(completion.echo),
        sampling=sampling(completion, logprobs),
        output_format=output_format(completion),
        prompt_logprobs=completion.logprobs if completion.echo else None,
    )
    return [structs.replace(shared, prompt=prompt) for prompt in prompts]


def several(given: str | list[str] | list[int] | list[list[int]], param: str, *, most: int) -> list[str | list[int]]:
    """A parameter of type ``Texts`` as a list of texts and lists of token ids, at most ``most`` of them."""
    if isinstance(given, str):
        return [given]
    if not given:
        raise refuse(param, "must not be empty")
    if isinstance(given[0], int):
        return [[*given]]
    if len(given) > most:
        raise refuse(param, f"must have at most {most} items, not {len(given)}")
    found: list[str | list[int]] = []
    for position, one in enumerate(given):
        if isinstance(one, list) and not one:
            raise refuse(f"{param}[{position}]", "must not be empty")
        if isinstance(one, str | list):
            found.append(one)
    return found


def continues(goes_on: bool | None, add_generation_prompt: bool | None, messages: list[dict[str, Any]]) -> bool:
    """Whether the answer goes on with the last of ``messages``; these two parameters together tell it."""
    if not goes_on:
        if add_generation_prompt is False:
            raise refuse(
                "add_generation_prompt", "can be false only with continue_final_message", code="unsupported_parameter"
            )
        return False
    if add_generation_prompt:
        raise refuse("add_generation_prompt", "cannot be true together with continue_final_message")
    last = messages[-1]
    if last["role"] != "assistant" or not last["content"] or last.get("tool_calls"):
        raise refuse("continue_final_message", "needs a last message that is the assistant's, with content")
    return True


def _made_choices(completion: CompletionRequest, prompts: int) -> int:
    """Choices to make for each prompt: ``best_of``, else ``n``."""
    n = completion.n or 1
    best_of = completion.best_of or n
    if best_of < n:
        raise refuse("best_of", f"must be at least n ({n}), not {best_of}")
    if best_of > n and completion.stream:
        raise refuse("best_of", "cannot be streamed: which choices are the best is known at the end")
    if prompts * best_of > MAX_PROMPTS:
        name = "n" if completion.best_of is None else "best_of"
        raise refuse(name, f"times {prompts} prompts is more than {MAX_PROMPTS} choices in one request")
    return best_of


def _tools(chat: ChatRequest) -> tuple[list[dict[str, Any]], tuple[Mode, list[str]]]:
    if not chat.functions:
        tools = tool_list(chat.tools)
        function_call(chat.function_call, [])
        return tools, tool_choice(chat.tool_choice, tools)
    if chat.tools:
        raise refuse("functions", "is the old name of tools; send one of them")
    functions = function_list(chat.functions)
    return functions, function_call(chat.function_call, functions)


def _chat_max_tokens(chat: ChatRequest) -> int | None:
    old, new = chat.max_tokens, chat.max_completion_tokens
    if old is not None and new is not None and old != new:
        raise refuse("max_tokens", f"({old}) and max_completion_tokens ({new}) are one limit and differ")
    return max_tokens(old) if new is None else max_tokens(new, "max_completion_tokens")


def _completion_max_tokens(completion: CompletionRequest) -> int | None:
    """0 is of use with ``echo`` alone: the prompt's own log probabilities, and nothing new."""
    if completion.max_tokens == 0 and completion.echo:
        return 0
    return max_tokens(completion.max_tokens)
