"""The default backend: vllm-mlx loads the model and parses its answers, our own core steps it.

A model that the core cannot run is stepped by vllm-mlx's own engine instead (``vllm_compat.whole``).

Threads, beside those of ``base.Backend``: the stepping thread (``run``) only steps and hands its events on; the
``text`` thread (``text.answers``) detokenises, parses, finds stop strings and emits one frame per step.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NoReturn, Protocol

import numpy as np

from inference import ipc
from inference.errors import ModelUnavailable, Unsupported
from inference.worker.backends.base import Emit
from inference.worker.backends.prefix_files import PrefixFiles
from inference.worker.constraints.guide import Compiler
from inference.worker.core.core import Core
from inference.worker.core.types import CoreEvent, CoreRequest, CoreStats, RequestFailed
from inference.worker.logs import one_line
from inference.worker.text.answers import Answer, Answers
from inference.worker.text.chat import ChatTemplate
from inference.worker.text.detok import TokenTable
from inference.worker.text.dialect import Dialect, detect
from inference.worker.text.prompts import Ready, TextModel
from inference.worker.vllm_compat import loading, memory
from inference.worker.vllm_compat.whole import WholeModel, refuse_unsupported

_SLOWEST_RATE_WINDOW_S = 0.2
_SHARE_OF_LIMIT = 4


@dataclass
class _Rates:
    """The last totals of the core and the rates between the two before, for ``stats``."""

    at: float = 0.0
    tokens: int = 0
    prefilled: int = 0
    tokens_per_second: float = 0.0
    prefill_per_second: float = 0.0

    def update(self, stats: CoreStats) -> None:
        now = time.monotonic()
        passed = now - self.at
        if self.at and passed >= _SLOWEST_RATE_WINDOW_S:
            self.tokens_per_second = (stats.tokens - self.tokens) / passed
            self.prefill_per_second = (stats.prefilled - self.prefilled) / passed
        if not self.at or passed >= _SLOWEST_RATE_WINDOW_S:
            self.at, self.tokens, self.prefilled = now, stats.tokens, stats.prefilled


class Stepper(Protocol):
    """What this backend asks of ``core.Core`` and ``whole.WholeModel`` alike; see there."""

    vocab_size: int
    batching: bool
    kv_bytes_per_token: int

    def submit(self, request: CoreRequest) -> None: ...

    def cancel(self, key: str, choice: int | None = None) -> None: ...

    def set_slots(self, slots: int) -> None: ...

    def wake(self) -> None: ...

    def stats(self) -> CoreStats: ...

    def wait_for_work(self, timeout: float | None = None) -> bool: ...

    def step(self) -> list[CoreEvent]: ...


class VllmMlxBackend:
    """See ``base.Backend``. Usable after ``load`` has returned."""

    name = "vllm_mlx"

    def __init__(self) -> None:
        self._core: Stepper
        self._text: TextModel
        self._answers: Answers
        self._emit: Emit
        self._ready: dict[str, Ready] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._rates = _Rates()
        self._files: PrefixFiles | None = None

    # ------------------------------------------------------------------------------------------------ main thread

    def load(self, command: ipc.Load, emit: Emit) -> ipc.Loaded:
        began = time.monotonic()
        self._emit = emit
        memory.set_limits(command.memory_limit_bytes, command.cache_limit_bytes)

        def progress(phase: str, done: int = 0, total: int = 0) -> None:
            emit([ipc.LoadProgress(phase, done, total)])

        progress("import")
        loaded = loading.load(
            Path(command.path), command.model_id, trust_remote_code=command.trust_remote_code, progress=progress
        )
        progress("warmup")
        loading.check_forward(loaded.model, min(loaded.eos, default=0))
        self._core = self._stepper(loaded, command)
        self._files = self._prefix_files(command)
        progress("tokenizer")
        self._text = _text_model(loaded, command, self._core.vocab_size)
        self._answers = Answers(emit, self._core.cancel)
        return self._loaded(loaded, command, time.monotonic() - began)

    def run(self) -> None:
        self._answers.start()
        if self._files is not None:
            self._files.start()
        try:
            while not self._stopping.is_set():
                if self._core.wait_for_work():
                    events = self._core.step()
                    if events:
                        self._answers.put(events)
        finally:
            if isinstance(self._core, WholeModel):
                self._core.close()
            if self._files is not None:
                self._files.close()
            self._answers.close()

    # -------------------------------------------------------------------------------------------------- CPU thread

    def prepare(self, request: str, body: ipc.GenerateRequest) -> ipc.Prepared:
        if self._is_whole:
            refuse_unsupported(body)
        ready = self._text.ready(request, body)
        with self._lock:
            self._ready[request] = ready
        return ipc.Prepared(request, prompt_tokens=len(ready.prompt.tokens), cached_estimate=self._cached(ready.core))

    def tokenize(self, text: str, add_special_tokens: bool) -> list[int]:
        tokens: list[int] = self._text.tokenizer.encode(text, add_special_tokens=add_special_tokens)
        return tokens

    def detokenize(self, token_ids: list[int]) -> str:
        table = self._text.table
        return table.decode(token_ids, visible=table.special)

    def count(self, body: ipc.GenerateRequest) -> int:
        return len(self.prompt_tokens(body))

    def prompt_tokens(self, body: ipc.GenerateRequest) -> list[int]:
        return self._text.prompt(body).tokens

    def embed(self, request: str, inputs: list[str | list[int]], dimensions: int | None) -> NoReturn:
        raise Unsupported("this model generates text; it makes no embeddings", param="model")

    def save_cache(self, directory: str, seconds: float | None) -> int:
        if self._files is None:
            raise Unsupported("this model's prefixes are not cached", param="model")
        try:
            return self._files.save(Path(directory) if directory else None, seconds)
        except ValueError as error:
            raise Unsupported("there is no directory for cached prefixes", param="directory") from error

    # -------------------------------------------------------------------------------------------------- any thread

    def start(self, request: str, max_tokens: int) -> None:
        with self._lock:
            ready = self._ready.pop(request, None)
        if ready is None or self._stopping.is_set():
            code = "invalid_request" if ready is None else "model_unavailable"
            reason = "the request was not prepared" if ready is None else "the model is being unloaded"
            self._emit([ipc.Failed(request, code, reason)])
            return
        tokens = len(ready.prompt.tokens)
        core = replace(ready.core, max_tokens=max(1, min(max_tokens, self._text.context - tokens)))
        self._answers.open(request, Answer(ready.plan, tokens, core.n, ready.echo, core.prompt_logprobs is not None))
        if self._files is None or core.prompt_logprobs is not None:
            self._core.submit(core)
        else:
            self._files.submit(request, np.asarray(core.prompt, np.int32), partial(self._core.submit, core))

    def cancel(self, request: str) -> None:
        with self._lock:
            waiting = self._ready.pop(request, None)
        if waiting is None:
            if self._files is not None:
                self._files.give_up(request)
            self._core.cancel(request)

    def set_limits(self, limits: ipc.SetLimits) -> None:
        memory.set_limits(limits.memory_limit_bytes, limits.cache_limit_bytes)
        if limits.slots is not None:
            self._core.set_slots(limits.slots)
        if limits.prefix_cache_bytes is not None and isinstance(self._core, Core) and self._core.prefixes is not None:
            self._core.prefixes.limit = limits.prefix_cache_bytes
            self._core.call(self._core.prefixes.trim)

    def stats(self) -> ipc.Stats:
        core = self._core.stats()
        self._rates.update(core)
        prefixes = self._core.prefixes if isinstance(self._core, Core) else None
        return ipc.Stats(
            prefix_bytes=prefixes.nbytes if prefixes is not None else 0,
            prefix_entries=prefixes.tree.entries if prefixes is not None else 0,
            prefix_disk_bytes=self._files.nbytes if self._files is not None else 0,
            prefix_tokens_asked=prefixes.asked if prefixes is not None else 0,
            prefix_tokens_found=prefixes.found if prefixes is not None else 0,
            active_bytes=memory.active_bytes(),
            cache_bytes=memory.cache_bytes(),
            peak_bytes=memory.peak_bytes(),
            kv_bytes=core.kv_bytes,
            running=core.running,
            queued=core.queued,
            step=core.step,
            tokens_per_second=self._rates.tokens_per_second,
            prefill_tokens_per_second=self._rates.prefill_per_second,
        )

    def step_number(self) -> int:
        return self._core.stats().step

    def busy(self) -> bool:
        return self._answers.busy()

    def stop(self) -> None:
        self._stopping.set()
        self._core.wake()

    # ----------------------------------------------------------------------------------------------------- helpers

    @property
    def _is_whole(self) -> bool:
        return isinstance(self._core, WholeModel)

    def _cached(self, request: CoreRequest) -> int:
        """How many of its prompt's tokens memory or disk has now."""
        if self._files is None or request.prompt_logprobs is not None:
            return 0
        return self._files.match(np.asarray(request.prompt, np.int32))

    def _prefix_files(self, command: ipc.Load) -> PrefixFiles | None:
        """Where the core keeps prefixes: those of them that are on disk."""
        if not isinstance(self._core, Core) or self._core.prefixes is None:
            return None
        files = PrefixFiles(self._core, self._core.prefixes, Path(command.path))
        if command.prefix_disk_dir is not None:
            files.open(Path(command.prefix_disk_dir), command.prefix_disk_bytes)
        return files

    def _stepper(self, loaded: loading.LoadedModel, command: ipc.Load) -> Stepper:
        """Our core; for a model that it cannot run, vllm-mlx's engine. Building either runs the model a few times."""
        limit = command.prefix_cache_bytes
        if limit is None:
            limit = (command.memory_limit_bytes or 0) // _SHARE_OF_LIMIT
        try:
            core = Core(loaded.model, slots=command.slots, weight_bytes=loaded.weight_bytes, prefix_cache_bytes=limit)
            return _tried(core, min(loaded.eos, default=0))
        except Exception as error:
            reason = f"one request at a time, through vllm-mlx's own engine: {one_line(error)}"
            self._emit([ipc.Log("warning", reason)])
            return self._whole(loaded, error)

    def _whole(self, loaded: loading.LoadedModel, core: Exception | None) -> WholeModel:
        """vllm-mlx's engine; ``core`` is what our own core had against the model."""
        try:
            return WholeModel(loaded.engine, loading.check_forward(loaded.model, 0))
        except ModelUnavailable:
            raise
        except Exception as error:
            kind = loaded.config.get("model_type")
            reason = f"models of the kind {kind!r} cannot be stepped here: {one_line(core or error)}"
            raise ModelUnavailable(f"{reason}; nor by vllm-mlx: {one_line(error)}" if core else reason) from error

    def _loaded(self, loaded: loading.LoadedModel, command: ipc.Load, seconds: float) -> ipc.Loaded:
        text = self._text
        capabilities = ipc.Capabilities(
            chat=text.template.available,
            completion=True,
            tools=text.template.tools,
            reasoning=text.dialect.reasoning_parser is not None,
            json_schema=text.compiler.available and not self._is_whole,
            logprobs=not self._is_whole,
            prefix_cache=self._files is not None,
            batching=self._core.batching,
            tool_parser=text.dialect.tool_parser,
            reasoning_parser=text.dialect.reasoning_parser,
        )
        return ipc.Loaded(
            capabilities=capabilities,
            context=text.context,
            slots=command.slots if self._core.batching else 1,
            vocab_size=text.vocabulary,
            weight_bytes=loaded.weight_bytes,
            kv_bytes_per_token=self._core.kv_bytes_per_token,
            seconds=seconds,
            backend="vllm_engine" if self._is_whole else self.name,
        )


def _tried(core: Core, token: int) -> Core:
    """A first short answer, thrown away. The core's probe compares numbers; a cache may lack what its steps need."""
    greedy = ipc.Sampling(temperature=0.0)
    core.submit(CoreRequest("trial", [token] * 3, 2, sampling=greedy))
    while core.busy:
        for event in core.step():
            if isinstance(event, RequestFailed):
                raise RuntimeError(event.message)
    return core


def _text_model(loaded: loading.LoadedModel, command: ipc.Load, vocabulary: int) -> TextModel:
    wrapper = loaded.tokenizer
    tokenizer = getattr(wrapper, "_tokenizer", wrapper)
    template = ChatTemplate(wrapper)
    ids: dict[str, int] = tokenizer.get_vocab()
    return TextModel(
        tokenizer=tokenizer,
        template=template,
        table=TokenTable(tokenizer),
        dialect=_dialect(template, ids, loaded, command),
        compiler=Compiler(tokenizer, vocabulary, loaded.eos),
        vocabulary=vocabulary,
        context=min(loaded.context, command.context or loaded.context),
        eos=loaded.eos,
        ids=ids,
    )


def _dialect(template: ChatTemplate, ids: dict[str, int], loaded: loading.LoadedModel, command: ipc.Load) -> Dialect:
    try:
        return detect(
            template.source,
            ids,
            loaded.config,
            tools=template.tools,
            tool_parser=command.tool_parser,
            reasoning_parser=command.reasoning_parser,
        )
    except ValueError as error:
        raise ModelUnavailable(str(error)) from error


def open_backend() -> VllmMlxBackend:
    """A fresh backend, for the worker process."""
    return VllmMlxBackend()
