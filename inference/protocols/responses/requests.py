"""The request of ``POST /v1/responses``, and the rules for its parameters.

As everywhere: what would change the answer and cannot be honoured is refused by name, what cannot change it is
accepted, and an unknown parameter is accepted and reported.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from inference.protocols.openai.params import MAX_INT, Penalty, Probability, Repetition
from inference.protocols.responses.items import InputItem
from inference.protocols.responses.tools import TextConfig, Tool, ToolChoice
from inference.protocols.validation import WireModel, refuse, unknown_fields

MAX_METADATA = 16
MAX_METADATA_KEY, MAX_METADATA_VALUE = 64, 512

LOGPROBS = "message.output_text.logprobs"
ENCRYPTED = "reasoning.encrypted_content"
Include = Literal[
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "message.input_image.image_url",
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
    "web_search_call.action.sources",
    "web_search_call.results",
]

# Accepted whatever their value: they label or speed up, but do not change the answer. Nothing here uses them.
NO_EFFECT = frozenset({"access_programs", "background_options", "image", "prompt_cache_options"})

# They would change the answer and are not honoured: refused, but for the values that mean "off".
REFUSED: dict[str, tuple[Any, ...]] = {
    "best_of": (None, 1),
    "choice": (None, []),
    "context_management": (None, []),
    "conversation": (None,),
    "functions": (None, []),
    "grammar": (None, ""),
    "guided_choice": (None, []),
    "guided_grammar": (None,),
    "guided_json": (None,),
    "guided_regex": (None,),
    "max_completion_tokens": (None,),
    "max_tokens": (None,),
    "messages": (None, []),
    "moderation": (None,),
    "n": (None, 1),
    "prompt": (None,),
    "regex": (None, ""),
    "response_format": (None,),
    "structured_outputs": (None,),
    "verbosity": (None,),
}
_INSTEAD = {
    "conversation": "use previous_response_id",
    "max_completion_tokens": "its name is max_output_tokens here",
    "max_tokens": "its name is max_output_tokens here",
    "messages": "its name is input here",
    "prompt": "templates of prompts are not kept here; use instructions and input",
    "response_format": "its name is text.format here",
    "verbosity": "its name is text.verbosity here",
}


class Reasoning(WireModel):
    """``effort`` is handed to the model's chat template. The reasoning is given whole; no summary is made of it."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None
    context: Literal["auto", "current_turn", "all_turns"] | None = None
    mode: str | None = None


class StreamOptions(WireModel):
    """Obfuscation is accepted and not done."""

    include_obfuscation: bool | None = None


class ResponsesRequest(WireModel):
    """``POST /v1/responses``. Null means the default everywhere."""

    model: str | None = Field(
        None, max_length=512, description="Name, alias or unambiguous short name; empty: the default model."
    )
    input: str | Annotated[list[InputItem], Field(fail_fast=True)] | None = Field(
        None, description="A text or a list of items; may be left out only with previous_response_id."
    )
    instructions: str | None = Field(None, description="Goes first; not carried over by previous_response_id.")
    previous_response_id: str | None = Field(None, max_length=256, description="Go on from this stored response.")
    store: bool | None = Field(None, description="Default true: the response can be fetched and gone on from.")
    background: bool | None = Field(None, description="Answer at once with status queued; fetch it later.")
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    tools: Annotated[list[Tool], Field(fail_fast=True)] | None = None
    tool_choice: str | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    max_tool_calls: Annotated[int, Field(ge=1, le=MAX_INT)] | None = Field(
        None, description="Counts calls of built-in tools, of which there are none."
    )
    text: TextConfig | None = None
    reasoning: Reasoning | None = None
    include: Annotated[list[Include], Field(fail_fast=True)] | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=MAX_INT)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = Field(None, description="Default 1; 0 is greedy.")
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = Field(None, description=f"Needs include: [{LOGPROBS}].")
    truncation: Literal["auto", "disabled"] | None = Field(
        None, description="auto: the oldest items are left out until the rest fits into the context."
    )
    metadata: dict[str, str] | None = Field(None, description=f"Up to {MAX_METADATA} pairs, kept with the response.")
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: Literal["in_memory", "24h"] | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast", "ultrafast"] | None = None
    # Beyond OpenAI's, as chat completions have them.
    top_k: Annotated[int, Field(ge=-1, le=MAX_INT)] | None = None
    min_p: Probability | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: str | Annotated[list[str], Field(fail_fast=True)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Repetition | None = None
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    enable_thinking: bool | None = None
    thinking_token_budget: Annotated[int, Field(ge=-1, le=MAX_INT)] | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    ttl: Annotated[float, Field(gt=0, le=MAX_INT)] | None = None

    @property
    def included(self) -> frozenset[str]:
        return frozenset(self.include or ())

    @property
    def stored(self) -> bool:
        return self.store is not False


def check(params: ResponsesRequest) -> None:
    """Rules that no single field can tell; ``InvalidRequest`` names the parameter."""
    if params.stream_options is not None and not params.stream:
        raise refuse("stream_options", "is only allowed when stream is true")
    if params.top_logprobs and LOGPROBS not in params.included:
        raise refuse("top_logprobs", f"needs include to have {LOGPROBS!r}")
    if params.background and not params.stored:
        raise refuse("background", "needs store to be true: a background response is fetched later")
    if params.input is None and params.previous_response_id is None:
        raise refuse("input", "is required", code="missing_required_parameter")
    if params.input == [] and params.previous_response_id is None:
        raise refuse("input", "must not be empty")
    _check_reasoning(params.reasoning)
    _check_metadata(params.metadata or {})


def ignored(params: ResponsesRequest, *, strict: bool) -> list[str]:
    """Names of what was accepted without being known. Refuses what would change the answer."""
    names: list[str] = []
    for name in dict.fromkeys(unknown_fields(params)):
        if name in REFUSED:
            _check_neutral(name, (params.model_extra or {})[name])
        elif name not in NO_EFFECT:
            names.append(name)
    if strict and names:
        raise refuse(names[0], "is not a parameter this server knows (server.strict is on)", code="unknown_parameter")
    return names


def _check_neutral(name: str, value: Any) -> None:
    if not any(value == neutral and isinstance(value, bool) == isinstance(neutral, bool) for neutral in REFUSED[name]):
        instead = _INSTEAD.get(name, "leave it out")
        raise refuse(name, f"would change the answer and is not supported; {instead}", code="unsupported_parameter")


def _check_reasoning(reasoning: Reasoning | None) -> None:
    if reasoning is None:
        return
    if reasoning.context not in (None, "auto"):
        message = "can only be 'auto': the model's chat template decides which earlier reasoning it shows"
        raise refuse("reasoning.context", message, code="unsupported_parameter")
    if reasoning.mode not in (None, "standard"):
        raise refuse("reasoning.mode", "can only be 'standard'", code="unsupported_parameter")


def _check_metadata(metadata: dict[str, str]) -> None:
    if len(metadata) > MAX_METADATA:
        raise refuse("metadata", f"must have at most {MAX_METADATA} pairs, not {len(metadata)}")
    for key, value in metadata.items():
        if len(key) > MAX_METADATA_KEY:
            raise refuse("metadata", f"must have keys of at most {MAX_METADATA_KEY} characters")
        if len(value) > MAX_METADATA_VALUE:
            raise refuse(f"metadata.{key}", f"must have at most {MAX_METADATA_VALUE} characters")
