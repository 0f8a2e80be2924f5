"""What chat and text completions have in common: sampling parameters and the rules for all others.

A parameter that would change the answer and cannot be honoured is refused by name, unless it is at its neutral value;
one that cannot change it is accepted; an unknown one is accepted and reported (``x-lmx-ignored``), or refused in
strict mode.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Annotated, Any

from pydantic import Field

from inference.ipc import Sampling
from inference.protocols.validation import WireModel, refuse, unknown_fields

MAX_CHOICES = 16
MAX_STOPS = 16
MAX_INT = 2**31 - 1

# Accepted whatever their value: they label, store, schedule or speed up, but do not change the answer.
NO_EFFECT = frozenset(
    {
        "cache_prompt",
        "cache_salt",
        "draft_model",
        "guided_decoding_backend",
        "id_slot",
        "metadata",
        "mirostat_eta",
        "mirostat_tau",
        "num_draft_tokens",
        "prediction",
        "priority",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "request_id",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
        "xtc_threshold",
    }
)

# They would change the answer and are not honoured: refused, but for the values that mean "off".
REFUSED: dict[str, tuple[Any, ...]] = {
    "adapter": (None,),
    "allowed_token_ids": (None, []),
    "audio": (None,),
    "bad_words": (None, []),
    "best_of": (None, 1),
    "chat_template": (None,),
    "documents": (None, []),
    "dry_multiplier": (None, 0),
    "dynatemp_range": (None, 0),
    "guided_whitespace_pattern": (None,),
    "include_stop_str_in_output": (None, False),
    "length_penalty": (None, 1),
    "logits_processors": (None, []),
    "min_tokens": (None, 0),
    "mirostat": (None, 0),
    "mirostat_mode": (None, 0),
    "modalities": (None, ["text"]),
    "moderation": (None,),
    "n_predict": (None, -1),
    "n_probs": (None, 0),
    "prompt_logprobs": (None,),
    "return_token_ids": (None, False),
    "return_tokens_as_token_ids": (None, False),
    "samplers": (None,),
    "skip_special_tokens": (None, True),
    "stop_token_ids": (None, []),
    "structural_tag": (None,),
    "suffix": (None, ""),
    "tfs_z": (None, 1),
    "truncate_prompt_tokens": (None,),
    "typical_p": (None, 1),
    "use_beam_search": (None, False),
    "verbosity": (None, "medium"),
    "web_search_options": (None,),
    "xtc_probability": (None, 0),
}

Probability = Annotated[float, Field(ge=0, le=1)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
# Logits are divided by it: nearer to zero they would no longer be numbers.
Repetition = Annotated[float, Field(ge=0.01, le=10)]


class StreamOptions(WireModel):
    """``include_usage`` adds a last chunk with the usage, ``continuous_usage_stats`` (vLLM's) the usage so far to every
    chunk; obfuscation is accepted and not done."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None
    include_obfuscation: bool | None = None


class CommonParams(WireModel):
    """Parameters that both endpoints share. Null means the default everywhere."""

    model: str | None = Field(
        None, max_length=512, description="Name, alias or unambiguous short name; empty: the default model."
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=-1, le=MAX_INT)] | None = Field(
        None, description="Most tokens to generate; -1 means up to the context, as LM Studio has it."
    )
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = Field(None, description="Default 1; 0 is greedy.")
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=MAX_INT)] | None = Field(None, description="0 or -1: off.")
    min_p: Probability | None = None
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: str | Annotated[list[str], Field(fail_fast=True)] | None = Field(
        None, description=f"One string or up to {MAX_STOPS}."
    )
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Repetition | None = None
    repeat_penalty: Repetition | None = Field(None, description="LM Studio's name for repetition_penalty.")
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = Field(
        None, description="Token id (as text) to bias."
    )
    ignore_eos: bool | None = Field(None, description="Go on to max_tokens past the end-of-text token.")
    ttl: Annotated[float, Field(gt=0, le=MAX_INT)] | None = Field(
        None, description="If this request loads the model: idle seconds after which it is unloaded."
    )


def sampling(params: CommonParams, top_logprobs: int | None) -> Sampling:
    """The sampling part of a request."""
    return Sampling(
        temperature=_or(params.temperature, 1.0),
        top_p=_or(params.top_p, 1.0),
        top_k=max(0, params.top_k or 0),
        min_p=_or(params.min_p, 0.0),
        seed=params.seed,
        presence_penalty=_or(params.presence_penalty, 0.0),
        frequency_penalty=_or(params.frequency_penalty, 0.0),
        repetition_penalty=_repetition_penalty(params),
        logit_bias=_logit_bias(params.logit_bias or {}),
        top_logprobs=top_logprobs,
    )


def stops(stop: str | list[str] | None) -> list[str]:
    """The stop strings; null and an empty list mean none."""
    listed = [stop] if isinstance(stop, str) else stop or []
    if len(listed) > MAX_STOPS:
        raise refuse("stop", f"must have at most {MAX_STOPS} strings, not {len(listed)}")
    for position, text in enumerate(listed):
        if not text:
            raise refuse("stop" if isinstance(stop, str) else f"stop[{position}]", "must not be an empty string")
    return listed


def one_of(named: Mapping[str, Any], what: str) -> tuple[str, Any] | None:
    """The one value among parameters that mean the same, with its name; None where all are None.

    ``InvalidRequest`` names the second of two that differ.
    """
    given = [(name, value) for name, value in named.items() if value is not None]
    for name, value in given[1:]:
        if value != given[0][1]:
            raise refuse(name, f"and {given[0][0]} are two names of {what} and differ")
    return given[0] if given else None


def max_tokens(value: int | None, param: str = "max_tokens") -> int | None:
    """The bound on the answer; None and -1 are no bound but the context."""
    if value == 0:
        raise refuse(param, "must be at least 1, not 0")
    return None if value == -1 else value


def check_common(params: CommonParams) -> None:
    """Rules that no single field can tell."""
    if params.stream_options is not None and not params.stream:
        raise refuse("stream_options", "is only allowed when stream is true")


def ignored(
    params: WireModel,
    *,
    strict: bool,
    refused: Mapping[str, tuple[Any, ...]] = REFUSED,
    no_effect: Collection[str] = NO_EFFECT,
) -> list[str]:
    """Names of what was accepted without being known. Refuses what would change the answer."""
    names: list[str] = []
    for name in dict.fromkeys(unknown_fields(params)):
        if name in refused:
            _check_neutral(name, (params.model_extra or {})[name], refused[name])
        elif name not in no_effect:
            names.append(name)
    if strict and names:
        raise refuse(names[0], "is not a parameter this server knows (server.strict is on)", code="unknown_parameter")
    return names


def _check_neutral(name: str, value: Any, neutral: tuple[Any, ...]) -> None:
    if not any(value == off and isinstance(value, bool) == isinstance(off, bool) for off in neutral):
        raise refuse(name, "would change the answer and is not supported; leave it out", code="unsupported_parameter")


def _or(value: float | None, default: float) -> float:
    return default if value is None else float(value)


def _repetition_penalty(params: CommonParams) -> float:
    names = {"repetition_penalty": params.repetition_penalty, "repeat_penalty": params.repeat_penalty}
    given = one_of(names, "one parameter")
    return 1.0 if given is None else float(given[1])


_TOKEN_ID = re.compile(r"[0-9]{1,10}")


def _logit_bias(bias: dict[str, float]) -> dict[int, float]:
    found: dict[int, float] = {}
    for key, value in bias.items():
        if not _TOKEN_ID.fullmatch(key) or int(key) > MAX_INT:
            raise refuse("logit_bias", f'must have token ids as keys, such as "42", not {key[:40]!r}')
        found[int(key)] = float(value)
    return found
