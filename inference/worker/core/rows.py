"""What the core remembers of a request and of each of its choices while they run."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from inference.worker.core.rng import row_seed
from inference.worker.core.scoring import PromptScores
from inference.worker.core.types import Constraint, CoreRequest, RowRef


@dataclass(slots=True, eq=False)
class Row:
    """One choice. ``start`` is the batch clock at which it joined, so that no counter is kept per step.

    ``drawn`` are the tokens delivered so far, where a prefix cache may want them.
    """

    ref: RowRef
    owner: Running
    seed: int
    constraint: Constraint | None
    start: int = 0
    alive: bool = True
    drawn: list[int] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Running:
    """One request from its submission to its last event. ``open_rows`` counts the choices without a last event.

    ``failed``: what the device computed for it must not be used again. ``scores`` are there while the log probabilities
    of the prompt are asked for and not delivered.
    """

    request: CoreRequest
    prompt: NDArray[np.int32]
    rows: list[Row] = field(default_factory=list)
    open_rows: int = 0
    failed: bool = False
    scores: PromptScores | None = None

    @classmethod
    def of(cls, request: CoreRequest, prompt: NDArray[np.int32]) -> Running:
        """A request with a fresh row for each of its choices."""
        running = cls(request, prompt)
        for choice in range(request.n):
            constraint = request.constraints[choice] if request.constraints else None
            seed = row_seed(request.sampling.seed, choice)
            running.rows.append(Row(RowRef(request.key, choice), running, seed, constraint))
        running.open_rows = request.n
        if request.prompt_logprobs is not None:
            running.scores = PromptScores(prompt, request.prompt_logprobs)
        return running
