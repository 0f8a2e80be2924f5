"""What the worker process asks of an engine.

Threads: ``load`` and ``run`` are called on the main thread, which is the only one to touch the accelerator.
``prepare``, ``tokenize``, ``detokenize`` and ``count`` are called on a CPU thread; ``prepare`` of requests with an
``output_format`` on another, one at a time, at the same time as those. ``start``, ``cancel``,
``set_limits``, ``stats``, ``step_number`` and ``stop`` are called on any thread, return at once and never raise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from inference import ipc

Emit = Callable[[list[ipc.Event]], None]
"""Queues events as one frame. Thread-safe, keeps the order of calls, never blocks."""


class Backend(Protocol):
    """One loaded model. Refusals are ``inference.errors.LmxError``; any other exception is a defect of the backend."""

    name: str

    def load(self, command: ipc.Load, emit: Emit) -> ipc.Loaded:
        """Load and warm up, reporting ``LoadProgress`` through ``emit``; keep ``emit`` for the requests' events."""
        ...

    def prepare(self, request: str, body: ipc.GenerateRequest) -> ipc.Prepared:
        """Template, tokenise, check. Keeps what ``start`` needs until ``start`` or ``cancel``."""
        ...

    def start(self, request: str, max_tokens: int) -> None:
        """Queue a prepared request. Its events go through ``emit``: ``Started``, ``Prefill``, ``Delta``, the last."""
        ...

    def cancel(self, request: str) -> None:
        """End it before its next step or prefill chunk; emits ``Finished(cancelled)`` per choice still open.

        Unknown ids, and prepared requests that were not started, are forgotten silently.
        """
        ...

    def tokenize(self, text: str, add_special_tokens: bool) -> list[int]: ...

    def detokenize(self, token_ids: list[int]) -> str: ...

    def count(self, body: ipc.GenerateRequest) -> int: ...

    def prompt_tokens(self, body: ipc.GenerateRequest) -> list[int]:
        """The tokens of the prompt as the model's template makes it; ``count`` is their number."""
        ...

    def embed(self, request: str, inputs: list[str | list[int]], dimensions: int | None) -> ipc.Embedded | None:
        """The vectors; None when they come later through ``emit``, as ``Embedded`` or ``Failed``.

        Raises ``Unsupported`` where the model is not an embedding model. Called on a thread of its own, which may
        block; the work itself belongs on the main thread. ``cancel`` ends what was put off, without an event.
        """
        ...

    def save_cache(self, directory: str, seconds: float | None) -> int:
        """Write cached prefixes that are only in memory to ``directory``, "" for ``Load.prefix_disk_dir``.

        Those used last come first; ends after ``seconds``. Returns the bytes written. Raises ``Unsupported`` where
        there is nothing to save or nowhere to save it. Called on a thread of its own, which may block, while ``run``
        steps.
        """
        ...

    def set_limits(self, limits: ipc.SetLimits) -> None: ...

    def stats(self) -> ipc.Stats: ...

    def step_number(self) -> int:
        """Grows with every decode step and prefill chunk, never goes back."""
        ...

    def busy(self) -> bool:
        """True while a started request has not had its last event."""
        ...

    def run(self) -> None:
        """Step until ``stop``; sleeps without polling while there is nothing to do."""
        ...

    def stop(self) -> None:
        """Make ``run`` return after the step under way; every request still open is ``Failed(model_unavailable)``."""
        ...
