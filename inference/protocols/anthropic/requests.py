"""Request schemas of messages and token counts, and their conversion to what a worker understands."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from inference.ipc import GenerateRequest, OutputFormat, Sampling
from inference.protocols.anthropic.blocks import Content
from inference.protocols.anthropic.context import ContextManagement, manage
from inference.protocols.anthropic.messages import Turns, conversation
from inference.protocols.anthropic.thinking import MAX_INT, Thinking, thoughts
from inference.protocols.anthropic.tools import ToolChoice, Tools, tool_choice, tool_list
from inference.protocols.validation import WireModel, refuse

MAX_STOPS = 16

# Accepted whatever their value: they label, bill, schedule or cache, but do not change the answer.
NO_EFFECT = frozenset(
    {
        "anthropic_beta",
        "anthropic_version",
        "betas",
        "billing_policy",
        "cache_control",
        "diagnostics",
        "fallback_credit_token",
        "fallbacks",
        "inference_geo",
        "metadata",
        "service_tier",
        "speed",
        "user_profile_id",
        "workspace_id",
    }
)

# They would change the answer and are not honoured: refused, but for the values that mean "off".
REFUSED: dict[str, tuple[Any, ...]] = {
    "compaction": (None,),
    "container": (None,),
    "mcp_servers": (None, []),
}


class JsonFormat(WireModel):
    type: Literal["json_schema"]
    schema_: dict[str, Any] = Field(alias="schema")


class OutputConfig(WireModel):
    """``effort`` is handed to the model's chat template; ``format`` is enforced while decoding."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: JsonFormat | None = None


class CountRequest(WireModel):
    """``POST /v1/messages/count_tokens``: what a message is asked with, without how it is answered."""

    model: str | None = Field(None, max_length=512, description="Name or alias; empty: the default model.")
    messages: Turns = Field(min_length=1)
    system: Content | None = Field(None, description="A text, or text blocks.")
    tools: Tools | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    output_format: JsonFormat | None = Field(None, description="The beta's name of output_config.format.")
    context_management: ContextManagement | None = Field(None, description="clear_thinking_20251015 only.")


class MessageRequest(CountRequest):
    """``POST /v1/messages``."""

    max_tokens: Annotated[int, Field(ge=1, le=MAX_INT)]
    stop_sequences: Annotated[list[str], Field(fail_fast=True)] | None = None
    stream: bool | None = None
    thread: dict[str, Any] | None = Field(None, description="Refused, in the words that clients know.")
    temperature: Annotated[float, Field(ge=0, le=1)] | None = Field(None, description="Default 1; 0 is greedy.")
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=MAX_INT)] | None = Field(None, description="0: off.")
    ttl: Annotated[float, Field(gt=0, le=MAX_INT)] | None = Field(
        None, description="If this request loads the model: idle seconds after which it is unloaded."
    )


def generate_request(params: CountRequest) -> GenerateRequest:
    """What the worker is to do; ``InvalidRequest`` names what it cannot."""
    talk = conversation(params.system, params.messages)
    manage(params.context_management, talk.messages)
    tools = tool_list(params.tools)
    mode, names = tool_choice(params.tool_choice, tools)
    thinking = thoughts(params.thinking)
    choice = params.tool_choice
    more = _answering(params) if isinstance(params, MessageRequest) else {}
    return GenerateRequest(
        messages=talk.messages,
        output_format=_output_format(params),
        tools=tools,
        tool_choice=mode,
        tool_names=names,
        parallel_tool_calls=not (choice and choice.disable_parallel_tool_use),
        template_kwargs=thinking.template | _effort(params),
        thinking_budget=thinking.budget,
        continue_final=talk.continues,
        **more,
    )


def _answering(params: MessageRequest) -> dict[str, Any]:
    if params.thread is not None:
        # By this code Anthropic's client knows that it must go on by itself: its tool runner asks for a thread first.
        message = "is not supported: no conversation is kept here; send the whole of it without a thread"
        raise refuse("thread", message, code="thread_unsupported_request")
    return {
        "max_tokens": params.max_tokens,
        "stop": _stops(params.stop_sequences or []),
        "sampling": Sampling(
            temperature=1.0 if params.temperature is None else float(params.temperature),
            top_p=1.0 if params.top_p is None else float(params.top_p),
            top_k=params.top_k or 0,
        ),
    }


def _stops(stops: list[str]) -> list[str]:
    if len(stops) > MAX_STOPS:
        raise refuse("stop_sequences", f"must have at most {MAX_STOPS} texts, not {len(stops)}")
    for position, text in enumerate(stops):
        if not text:
            raise refuse(f"stop_sequences[{position}]", "must not be an empty text")
    return stops


def _effort(params: CountRequest) -> dict[str, Any]:
    effort = params.output_config.effort if params.output_config else None
    return {} if effort is None else {"reasoning_effort": effort}


def _output_format(params: CountRequest) -> OutputFormat:
    wanted = params.output_config.format if params.output_config else None
    old = params.output_format
    if wanted is not None and old is not None and wanted.schema_ != old.schema_:
        raise refuse("output_format", "and output_config.format are two names of one format and differ")
    chosen = wanted or old
    return OutputFormat() if chosen is None else OutputFormat("json_schema", schema=chosen.schema_)
