"""What may be set for one model: names, types, bounds and words for people. The one table that all others are made of.

The API's schema, the page's form, ``lmx set`` and ``model_settings`` of config.yaml come from it.
``inference.model_settings_checks`` judges values by it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from inference.catalog import ModelKind

Kind = Literal["boolean", "integer", "number", "string", "strings", "object", "choice", "seconds"]
Group = Literal["names", "loading", "answers", "thinking"]

MAX_INT = 2**31 - 1
MAX_PROMPT = 65_536
MAX_TEMPLATE_BYTES = 16_384
LONGEST_TTL_S = 31_536_000
NEVER = "never"
"""In place of a time to live: the model stays."""

TOOL_PARSERS = (
    *("auto", "deepseek", "deepseek_r1", "deepseek_v3", "deepseek_v4", "dsml", "functionary", "gemma4", "generic"),
    *("glm4", "glm47", "gpt-oss", "granite", "granite3", "harmony", "hermes", "kimi", "kimi_k2", "llama", "llama3"),
    *("llama4", "meetkai", "minimax", "minimax_m2", "mistral", "moonshot", "nemotron", "nemotron3", "nous"),
    *("poolside_v1", "qwen", "qwen3", "qwen3.5", "qwen3_coder", "qwen3_xml", "step", "step3p5", "xlam"),
)
REASONING_PARSERS = (
    *("deepseek_r1", "deepseek_v4", "gemma4", "glm4", "gpt_oss", "harmony", "mistral", "poolside_v1", "qwen3"),
    "step3p5",
)
"""Those that the worker knows, which is asked by a test: it alone may import the engine."""

RESERVED_TEMPLATE_KWARGS = frozenset(
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
"""Arguments of the call that renders a template: nobody else may set them."""


@dataclass(frozen=True, slots=True)
class Field:
    """One setting. ``reload``: it holds from the next load of the model on. ``above``: greater than, not equal.

    ``minimum``, ``maximum`` bound a number, ``most`` the characters of a text or the texts of a list.
    ``standard`` is what holds when nobody says anything, None where that is the model's or the server's own.
    """

    name: str
    kind: Kind
    group: Group
    label: str
    help: str
    minimum: float | None = None
    maximum: float | None = None
    above: bool = False
    most: int | None = None
    choices: tuple[str, ...] = ()
    reload: bool = False
    standard: Any = None
    embeddings: bool = False

    def fits(self, kind: ModelKind) -> bool:
        """Whether it means anything for a model of that kind."""
        return kind == "llm" or self.embeddings

    def described(self) -> dict[str, Any]:
        """For programs that make a form of it; what does not apply is null."""
        bound = None if self.minimum is None or not self.above else self.minimum
        return {
            "name": self.name,
            "type": self.kind,
            "group": self.group,
            "label": self.label,
            "help": self.help,
            "minimum": None if self.above else self.minimum,
            "exclusive_minimum": bound,
            "maximum": self.maximum,
            "max_length": self.most,
            "choices": list(self.choices) or None,
            "reload": self.reload,
        }


def _fields() -> tuple[Field, ...]:
    return (*_NAMES, *_LOADING, *_ANSWERS, *_THINKING)


_NAMES = (
    Field(
        *("aliases", "strings", "names", "Aliases", "Further names that the model answers to."),
        most=32,
        standard=(),
        embeddings=True,
    ),
    Field(
        *("pinned", "boolean", "names", "Pinned", "Once loaded it is never unloaded to make room or for being idle."),
        standard=False,
        embeddings=True,
    ),
)
_LOADING = (
    Field(
        *("context", "integer", "loading", "Context", "Most tokens of prompt and answer together."),
        minimum=1,
        maximum=MAX_INT,
        reload=True,
        embeddings=True,
    ),
    Field(
        *("slots", "integer", "loading", "Slots", "Requests that are decoded at once."),
        minimum=1,
        maximum=1024,
        reload=True,
        embeddings=True,
    ),
    Field(
        *("ttl", "seconds", "loading", "Idle limit", "Unload after so many seconds without a request, or never."),
        minimum=1,
        maximum=LONGEST_TTL_S,
        embeddings=True,
    ),
    Field(
        *("prefix_cache_mb", "integer", "loading", "Prefix cache", "Most MiB of memory for prompts already read."),
        minimum=0,
        maximum=100_000_000,
    ),
    Field(
        *("tool_parser", "choice", "loading", "Tool parser", "How tool calls are written, where it is not found out."),
        choices=TOOL_PARSERS,
        reload=True,
    ),
    Field(
        *("reasoning_parser", "choice", "loading", "Reasoning parser", "How reasoning is told from the answer."),
        choices=REASONING_PARSERS,
        reload=True,
    ),
)
_ANSWERS = (
    Field(
        *(
            "system_prompt",
            "string",
            "answers",
            "System prompt",
            "Goes first where a conversation has none of its own.",
        ),
        most=MAX_PROMPT,
        standard="",
    ),
    Field(
        *("temperature", "number", "answers", "Temperature", "0 is always the likeliest token."),
        minimum=0,
        maximum=2,
        standard=1.0,
    ),
    Field(
        *("top_p", "number", "answers", "Top p", "Choose among the likeliest tokens of that probability together."),
        minimum=0,
        above=True,
        maximum=1,
        standard=1.0,
    ),
    Field(
        *("top_k", "integer", "answers", "Top k", "Choose among so many of the likeliest tokens; 0 is off."),
        minimum=0,
        maximum=MAX_INT,
        standard=0,
    ),
    Field(
        *("min_p", "number", "answers", "Min p", "Leave out tokens below that share of the likeliest one's."),
        minimum=0,
        maximum=1,
        standard=0.0,
    ),
    Field(
        *(
            "repetition_penalty",
            "number",
            "answers",
            "Repetition penalty",
            "Above 1 against words said before; 1 is off.",
        ),
        minimum=0.01,
        maximum=10,
        standard=1.0,
    ),
    Field(
        *("presence_penalty", "number", "answers", "Presence penalty", "Against tokens that the answer has; 0 is off."),
        minimum=-2,
        maximum=2,
        standard=0.0,
    ),
    Field(
        *(
            "frequency_penalty",
            "number",
            "answers",
            "Frequency penalty",
            "The same, the more often the more; 0 is off.",
        ),
        minimum=-2,
        maximum=2,
        standard=0.0,
    ),
    Field(
        *("max_tokens", "integer", "answers", "Longest answer", "Most tokens of an answer."),
        minimum=1,
        maximum=MAX_INT,
    ),
    Field(
        *("seed", "integer", "answers", "Seed", "The same answer to the same request, each time."),
        minimum=-(2**63),
        maximum=2**63 - 1,
    ),
    Field(
        *("stop", "strings", "answers", "Stop texts", "An answer ends before the first of them."),
        most=16,
        standard=(),
    ),
)
_THINKING = (
    Field(
        *("enable_thinking", "boolean", "thinking", "Thinking", "Whether the model thinks before it answers."),
    ),
    Field(
        *(
            "chat_template_kwargs",
            "object",
            "thinking",
            "Template variables",
            "Variables for the chat template, as JSON.",
        ),
        most=MAX_TEMPLATE_BYTES,
    ),
)

FIELDS: dict[str, Field] = {field.name: field for field in _fields()}
