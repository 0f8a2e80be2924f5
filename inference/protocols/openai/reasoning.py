"""Whether, how hard, how long and how visibly a model thinks, under the names that clients have for it.

``reasoning_effort`` is OpenAI's, ``enable_thinking`` and ``thinking_token_budget`` are vLLM's, ``reasoning`` is
OpenRouter's, ``thinking`` Anthropic's. What the model can be told is told through its chat template; the budget is kept
while decoding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from inference.model_settings_fields import RESERVED_TEMPLATE_KWARGS
from inference.protocols.openai.params import MAX_INT, one_of
from inference.protocols.validation import WireModel, refuse

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Budget = Annotated[int, Field(ge=0, le=MAX_INT)]


class Reasoning(WireModel):
    """OpenRouter's object. ``exclude`` leaves the reasoning out of the answer."""

    effort: Effort | None = None
    max_tokens: Budget | None = None
    enabled: bool | None = None
    exclude: bool | None = None


class Thinking(WireModel):
    """Anthropic's object. ``adaptive`` and ``auto`` leave it to the model."""

    type: Literal["enabled", "disabled", "adaptive", "auto"]
    budget_tokens: Budget | None = None


class ReasoningParams(WireModel):
    """The parameters themselves; several may be used as long as they do not contradict each other."""

    reasoning_effort: Effort | None = Field(None, description="Handed to the model's chat template.")
    enable_thinking: bool | None = Field(None, description="Handed to the model's chat template.")
    thinking_token_budget: Annotated[int, Field(ge=-1, le=MAX_INT)] | None = Field(
        None, description="Most tokens of reasoning; -1: no bound."
    )
    reasoning: Reasoning | None = None
    thinking: Thinking | None = None
    include_reasoning: bool | None = Field(None, description="false leaves the reasoning out of the answer.")
    chat_template_kwargs: dict[str, Any] | None = Field(None, description="Variables for the model's chat template.")


@dataclass(frozen=True, slots=True)
class Thoughts:
    """``template`` are variables for the chat template; ``budget`` as ``GenerateRequest.thinking_budget``."""

    template: dict[str, Any]
    budget: int | None
    shown: bool


def thoughts(params: ReasoningParams) -> Thoughts:
    """What is asked of the model's reasoning; ``InvalidRequest`` names the second of two that contradict each other."""
    reasoning, thinking = params.reasoning or Reasoning(), params.thinking
    effort = one_of({"reasoning_effort": params.reasoning_effort, "reasoning.effort": reasoning.effort}, "one effort")
    switches = {
        "enable_thinking": params.enable_thinking,
        "reasoning.enabled": reasoning.enabled,
        "thinking.type": {"enabled": True, "disabled": False}.get(thinking.type) if thinking else None,
    }
    given = one_of(switches, "one switch")
    enabled = None if given is None else bool(given[1])
    template = template_kwargs(params.chat_template_kwargs)
    if effort is not None:
        template.setdefault("reasoning_effort", effort[1])
        if effort[1] == "none" and enabled is None:
            template.setdefault("enable_thinking", False)
            enabled = False
    if given is not None:
        template["enable_thinking"] = enabled
    hidden = reasoning.exclude is True or params.include_reasoning is False
    # No budget where it shall not think: the template sees to that, and a budget costs every token a look.
    return Thoughts(template, None if enabled is False else _budget(params), not hidden)


def template_kwargs(wanted: dict[str, Any] | None) -> dict[str, Any]:
    """A copy of the client's template variables; ``InvalidRequest`` for those that the server sets."""
    kwargs = dict(wanted or {})
    for name in kwargs:
        if name in RESERVED_TEMPLATE_KWARGS:
            raise refuse(f"chat_template_kwargs.{name}", "is set by the server")
    return kwargs


def _budget(params: ReasoningParams) -> int | None:
    given = asked_budget(params)
    return None if given is None or given[1] < 0 else given[1]


def asked_budget(params: ReasoningParams) -> tuple[str, int] | None:
    """The most tokens of reasoning, below 0 for no bound, with the name of the parameter that says so."""
    names = {
        "thinking_token_budget": params.thinking_token_budget,
        "reasoning.max_tokens": params.reasoning.max_tokens if params.reasoning else None,
        "thinking.budget_tokens": params.thinking.budget_tokens if params.thinking else None,
    }
    return one_of(names, "one budget")
