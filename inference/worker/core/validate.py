"""Whether a request can run at all, checked before it comes near the accelerator.

A token id outside the vocabulary reads memory that is not the embedding's and takes the whole process down, so it is
refused here, whoever sent it.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from inference.ipc import Sampling
from inference.worker.core.types import CoreRequest

_MAX_TOP_LOGPROBS = 1024


class Refusal(Exception):
    """The request cannot run. ``param`` names the field at fault."""

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


def checked_prompt(request: CoreRequest, vocab_size: int) -> NDArray[np.int32]:
    """The prompt as an array of token ids, or ``Refusal``."""
    try:
        prompt = np.asarray(request.prompt)
    except ValueError as error:
        raise Refusal("the prompt is not a list of token ids", "prompt") from error
    if prompt.ndim != 1 or prompt.size == 0:
        raise Refusal("the prompt has no tokens", "prompt")
    if not np.issubdtype(prompt.dtype, np.integer):
        raise Refusal("the prompt holds something that is not a token id", "prompt")
    lowest, highest = int(prompt.min()), int(prompt.max())
    if lowest < 0 or highest >= vocab_size:
        outside = lowest if lowest < 0 else highest
        raise Refusal(f"token id {outside} of the prompt is outside the vocabulary of {vocab_size}", "prompt")
    return prompt.astype(np.int32)


def check(request: CoreRequest, vocab_size: int) -> None:
    """Raise ``Refusal`` for a count, sampling parameter or constraint list that cannot be honoured."""
    if request.max_tokens < 1:
        raise Refusal(f"max_tokens must be at least 1, not {request.max_tokens}", "max_tokens")
    if request.n < 1:
        raise Refusal(f"n must be at least 1, not {request.n}", "n")
    if request.constraints and len(request.constraints) != request.n:
        raise Refusal(f"{len(request.constraints)} constraints for {request.n} choices", "response_format")
    if not 0 <= (request.prompt_logprobs or 0) <= _MAX_TOP_LOGPROBS:
        raise Refusal(f"prompt_logprobs must be between 0 and {_MAX_TOP_LOGPROBS}", "prompt_logprobs")
    _check_sampling(request.sampling)
    for token, bias in request.sampling.logit_bias.items():
        if not 0 <= token < vocab_size:
            raise Refusal(f"logit_bias token id {token} is outside the vocabulary of {vocab_size}", "logit_bias")
        if not math.isfinite(bias):
            raise Refusal(f"logit_bias of token id {token} is not a finite number", "logit_bias")


def _check_sampling(sampling: Sampling) -> None:
    """Raise ``Refusal`` for the first parameter outside its range (NaN is outside every range)."""
    top_logprobs = sampling.top_logprobs or 0
    ranges = (
        ("temperature", 0 <= sampling.temperature < math.inf, "a finite number from 0"),
        ("top_p", 0 < sampling.top_p <= 1, "above 0 and at most 1"),
        ("top_k", sampling.top_k >= 0, "0 (off) or more"),
        ("min_p", 0 <= sampling.min_p <= 1, "between 0 and 1"),
        ("repetition_penalty", 0 < sampling.repetition_penalty < math.inf, "a finite number above 0"),
        ("presence_penalty", math.isfinite(sampling.presence_penalty), "a finite number"),
        ("frequency_penalty", math.isfinite(sampling.frequency_penalty), "a finite number"),
        ("top_logprobs", 0 <= top_logprobs <= _MAX_TOP_LOGPROBS, f"between 0 and {_MAX_TOP_LOGPROBS}"),
    )
    for name, holds, wanted in ranges:
        if not holds:
            raise Refusal(f"{name} must be {wanted}, not {getattr(sampling, name)}", name)
