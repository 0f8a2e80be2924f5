"""One word about the engine and the reasons for it, from heartbeats and the last real answers."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from inference.engine.contract import MemoryReading
from inference.engine.generation import RunningGeneration
from inference.engine.runs import ModelRun
from inference.engine.words import duration, gigabytes

Word = Literal["healthy", "degraded", "error"]
_WORRYING_MISSES = 3
_FAULTS = {
    "internal_error": "an error inside the server, see its log",
    "worker_died": "its process died",
    "timeout": "it took too long and was ended",
    "overloaded": "its client read too slowly",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the last finished answer of a model ended; ``code`` None is well. ``at`` in monotonic seconds."""

    code: str | None
    at: float


class Outcomes:
    """The last outcome per model. Refusals of a client's own making do not count."""

    def __init__(self) -> None:
        self.by_model: dict[str, Outcome] = {}

    def note(self, generation: RunningGeneration) -> None:
        failure = generation.failure
        if failure is not None and failure.code not in _FAULTS:
            return
        if failure is None and generation.record.finish_reason == "cancelled":
            return
        self.by_model[generation.record.model] = Outcome(failure.code if failure else None, time.monotonic())


def judge(
    runs: Iterable[ModelRun],
    outcomes: Outcomes,
    standing_still: list[str],
    reading: MemoryReading,
    oom_percent: float,
) -> tuple[Word, list[str]]:
    """``error`` when models are loaded or stopped after crashes and none can answer; ``degraded``: something is wrong.

    A model that failed to load never makes an ``error``: whoever may ask for a model could make one.
    """
    reasons: list[str] = []
    able = unable = 0
    for run in runs:
        problems = list(_problems(run, outcomes.by_model.get(run.id), standing_still))
        reasons += problems
        unable += bool(problems) and run.state != "failed"
        able += run.state == "ready" and not problems
    if reading.total and reading.used > reading.total * oom_percent / 100:
        reasons.append(f"memory is short: {gigabytes(reading.used)} of {gigabytes(reading.total)} in use")
    if not reasons:
        return "healthy", []
    return ("error" if unable and not able else "degraded"), reasons


def _problems(run: ModelRun, outcome: Outcome | None, standing_still: list[str]) -> Iterable[str]:
    if run.state in ("failed", "stopped-after-crashes"):
        yield f"{run.id}: {run.reason}"
        return
    if run.client is not None and run.client.child.missed >= _WORRYING_MISSES:
        yield f"{run.id}: no heartbeat for {run.client.child.missed} beats"
    if run.id in standing_still:
        yield f"{run.id}: it does not step"
    if run.state == "ready" and outcome is not None and outcome.code is not None:
        yield f"{run.id}: its last answer failed {duration(time.monotonic() - outcome.at)} ago: {_FAULTS[outcome.code]}"
