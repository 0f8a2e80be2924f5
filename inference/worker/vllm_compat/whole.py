"""Steps a model through vllm-mlx's own engine, one request at a time, with the face of our core.

``MLXLanguageModel.stream_generate`` is what vllm-mlx's ``SimpleEngine`` drives for text; it is used here directly,
because ``SimpleEngine`` gives accumulated text without token ids, takes no token ids, and steps on a thread of its own.
The prompt is read in chunks before, into the ``prompt_cache`` that it accepts: so a cancel takes effect between chunks.

For models that ``core.Core`` cannot run, whose caches or layers are unlike those it knows. What it cannot do is
refused by ``refuse_unsupported``. ``top_p``, ``min_p`` and ``top_k`` are mlx-lm's, which applies them before the
temperature.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import make_prompt_cache

from inference import ipc
from inference.errors import InvalidRequest
from inference.ipc import Sampling
from inference.worker.constraints.needs import holds_calls
from inference.worker.core.types import (
    ChoiceFinished,
    CoreEvent,
    CoreRequest,
    CoreStats,
    FinishReason,
    PrefillProgress,
    RequestFailed,
    RowRef,
    Started,
    Tokens,
)
from inference.worker.logs import place_of

log = logging.getLogger(__name__)

PREFILL_CHUNK = 512


def refuse_unsupported(body: ipc.GenerateRequest) -> None:
    """Raise ``InvalidRequest`` that names the first parameter this engine cannot honour."""
    sampling, neutral = body.sampling, Sampling()
    asked = (
        ("n", body.n != 1),
        ("response_format", body.output_format.kind != "text"),
        ("tool_choice", holds_calls(body) and (body.tool_choice == "required" or bool(body.tool_names))),
        ("tools", holds_calls(body)),
        ("thinking_budget", body.thinking_budget is not None),
        ("logprobs", sampling.top_logprobs is not None),
        ("prompt_logprobs", body.prompt_logprobs is not None),
        ("seed", sampling.seed is not None),
        ("logit_bias", bool(sampling.logit_bias)),
        ("presence_penalty", sampling.presence_penalty != neutral.presence_penalty),
        ("frequency_penalty", sampling.frequency_penalty != neutral.frequency_penalty),
        ("repetition_penalty", sampling.repetition_penalty != neutral.repetition_penalty),
        ("ignore_eos", body.ignore_eos),
    )
    for name, is_asked in asked:
        if is_asked:
            raise InvalidRequest(
                f"{name} is not available for this model: it runs one request at a time through vllm-mlx's own engine",
                param=name,
            )


@dataclass(eq=False)
class _Run:
    """One request. ``left`` are the prompt tokens not yet read, ``tokens`` those delivered."""

    request: CoreRequest
    row: RowRef
    left: list[int]
    cache: list[Any] = field(default_factory=list)
    answer: Iterator[Any] | None = None
    tokens: int = 0

    @property
    def key(self) -> str:
        return self.request.key


class WholeModel:
    """See the module. ``engine`` is a loaded ``MLXLanguageModel``, ``vocab_size`` the width of its logits.

    ``submit``, ``cancel``, ``wake`` and ``stats`` are for any thread, the rest is for the stepping thread alone.
    Construction generates a token, and raises what the model raises.
    """

    batching = False
    kv_bytes_per_token = 0

    def __init__(self, engine: Any, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self._engine = engine
        self._inbox: deque[CoreRequest | str] = deque()
        self._queue: deque[_Run] = deque()
        self._current: _Run | None = None
        self._events: list[CoreEvent] = []
        self._wake = threading.Event()
        self._stats = CoreStats()
        self._warm_up()

    # ------------------------------------------------------------------------------------------------ any thread

    def submit(self, request: CoreRequest) -> None:
        self._inbox.append(request)
        self._wake.set()

    def cancel(self, key: str, choice: int | None = None) -> None:
        """End a request; there is only one choice."""
        self._inbox.append(key)
        self._wake.set()

    def set_slots(self, slots: int) -> None:
        """One at a time, whatever is wished."""

    def wake(self) -> None:
        self._wake.set()

    def stats(self) -> CoreStats:
        return self._stats

    # ------------------------------------------------------------------------------------------- stepping thread

    def wait_for_work(self, timeout: float | None = None) -> bool:
        """Block until there is something to do (True), ``wake`` is called or ``timeout`` seconds are over."""
        if not (self._inbox or self._queue or self._current):
            self._wake.wait(timeout)
        self._wake.clear()
        return bool(self._inbox or self._queue or self._current)

    def step(self) -> list[CoreEvent]:
        """Read the inbox, then one chunk of a prompt or one token of an answer."""
        events = self._events = []
        while self._inbox:
            self._read(self._inbox.popleft())
        if self._current is None and self._queue:
            self._current = self._queue.popleft()
            events.append(Started(self._current.key))
        if self._current is not None:
            self._advance(self._current)
        self._account()
        return events

    def close(self) -> None:
        """Let go of the answer under way: mlx-lm's generators must end on the thread that began them."""
        if self._current is not None:
            self._drop(self._current)

    def _read(self, message: CoreRequest | str) -> None:
        if isinstance(message, CoreRequest):
            self._queue.append(_Run(message, RowRef(message.key, 0), list(map(int, message.prompt))))
            return
        for run in (*self._queue, *([self._current] if self._current is not None else [])):
            if run.key == message:
                self._finish(run, "cancelled")

    def _advance(self, run: _Run) -> None:
        try:
            if run.answer is None:
                self._prefill(run)
            else:
                self._decode(run, run.answer)
        except Exception as error:
            log.error("vllm-mlx's engine failed: %s", place_of(error))
            self._events.append(
                RequestFailed(run.key, "internal_error", f"the model's engine failed: {place_of(error)}")
            )
            self._drop(run)

    def _prefill(self, run: _Run) -> None:
        """Read a chunk; the last token of the prompt is left for ``stream_generate``, which needs one."""
        if not run.cache:
            run.cache = make_prompt_cache(self._engine.model)
        chunk, total = run.left[:-1][:PREFILL_CHUNK], len(run.request.prompt)
        if chunk:
            self._engine.model(mx.array([chunk]), cache=run.cache)
            mx.eval([cache.state for cache in run.cache])
            mx.clear_cache()
            run.left = run.left[len(chunk) :]
            self._stats.prefilled += len(chunk)
        if len(run.left) == 1:
            run.answer = self._answer(run)
        self._events.append(PrefillProgress(run.key, total if run.answer else total - len(run.left), total))

    def _answer(self, run: _Run) -> Iterator[Any]:
        sampling = run.request.sampling
        answer: Iterator[Any] = self._engine.stream_generate(
            run.left,
            max_tokens=run.request.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            prompt_cache=run.cache,
        )
        return answer

    def _decode(self, run: _Run, answer: Iterator[Any]) -> None:
        said = next(answer, None)
        if said is None:
            self._finish(run, "stop")
            return
        run.tokens += 1
        self._stats.tokens += 1
        self._events.append(Tokens([run.row], [int(said.token)]))
        if said.token in run.request.eos:
            self._finish(run, "stop")
        elif run.tokens >= run.request.max_tokens:
            self._finish(run, "length")

    def _finish(self, run: _Run, reason: FinishReason) -> None:
        self._events.append(ChoiceFinished(run.key, 0, reason, len(run.request.prompt), run.tokens))
        self._drop(run)

    def _drop(self, run: _Run) -> None:
        close = getattr(run.answer, "close", None)
        if close is not None:
            close()
        if run is self._current:
            self._current = None
            mx.clear_cache()
        else:
            with contextlib.suppress(ValueError):
                self._queue.remove(run)

    def _account(self) -> None:
        run = self._current
        self._stats.step += 1
        self._stats.running = self._stats.rows = int(run is not None)
        self._stats.queued = len(self._queue)
        self._stats.kv_bytes = sum(int(getattr(cache, "nbytes", 0)) for cache in run.cache) if run is not None else 0

    def _warm_up(self) -> None:
        """Two tokens read and one generated: a model that cannot do that does not load."""
        greedy = Sampling(temperature=0.0)
        run = _Run(CoreRequest("warm-up", [0, 0], 1, sampling=greedy), RowRef("warm-up", 0), [0, 0])
        self._prefill(run)
        assert run.answer is not None
        for _ in run.answer:
            pass
        self._events, self._stats = [], CoreStats()
