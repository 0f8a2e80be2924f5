"""What is asked of a model, independent of the wire protocol it came by."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct


class Sampling(Struct, omit_defaults=True, frozen=True):
    """How one request turns logits into tokens. Every field is at its neutral value by default.

    ``temperature`` 0 is greedy. ``top_k`` 0, ``top_p`` 1, ``min_p`` 0 switch the filter off. ``repetition_penalty``
    divides positive and multiplies negative logits of tokens seen in prompt or answer (CTRL, 1 is off);
    ``presence_penalty`` and ``frequency_penalty`` count tokens of the answer only, as OpenAI defines them.
    ``logit_bias`` maps token id to an additive bias. ``seed`` None means a fresh random one.
    ``top_logprobs`` None means no logprobs at all, 0 only the chosen token's.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: dict[int, float] = {}
    top_logprobs: int | None = None


class OutputFormat(Struct, omit_defaults=True, frozen=True):
    """A constraint on the decoded text, enforced while decoding. ``schema`` is JSON Schema for ``json_schema``."""

    kind: Literal["text", "json_object", "json_schema", "regex", "grammar", "choice"] = "text"
    schema: dict[str, Any] | None = None
    text: str | None = None
    choices: list[str] = []


class GenerateRequest(Struct, omit_defaults=True, frozen=True):
    """One generation, independent of the wire protocol it came by.

    Either ``messages`` (chat: the worker applies the model's template) or ``prompt`` (text or token ids). ``n``
    choices share one prefill. ``stop`` strings end the text before themselves. ``max_tokens`` None means up to the
    model's context.

    ``tool_names`` are the tools that may be called, empty for all of them; ``tool_choice`` ``required`` with one name
    is a call of that one. A tool whose function has ``strict`` true gets arguments that validate. ``thinking_budget``
    is the most tokens of reasoning, 0 for none. ``continue_final`` goes on with the last message, the assistant's,
    instead of opening a new one. ``prompt_logprobs`` asks for the prompt's own logprobs (``PromptLogprobs``) with that
    many alternatives.
    """

    messages: list[dict[str, Any]] | None = None
    prompt: str | list[int] | None = None
    n: int = 1
    max_tokens: int | None = None
    stop: list[str] = []
    ignore_eos: bool = False
    echo: bool = False
    sampling: Sampling = Sampling()
    output_format: OutputFormat = OutputFormat()
    tools: list[dict[str, Any]] = []
    tool_choice: Literal["auto", "none", "required"] = "auto"
    tool_names: list[str] = []
    parallel_tool_calls: bool = True
    template_kwargs: dict[str, Any] = {}
    thinking_budget: int | None = None
    continue_final: bool = False
    prompt_logprobs: int | None = None
