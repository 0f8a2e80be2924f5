"""The backend of embedding models: vectors, tokens, nothing generated.

``embed`` is called on the ``embed`` thread, which tokenises and queues; the main thread computes batch after batch, in
turns between the requests that wait, and emits a request's vectors when the last of them is there. Between two batches
a cancelled request is dropped. Vectors of one text are the same alone and in a batch, but for the rounding of float32.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import NoReturn, cast

import mlx.core as mx

from inference import ipc
from inference.errors import InvalidRequest, ModelUnavailable, Unsupported
from inference.worker.backends.base import Emit
from inference.worker.embedding import loading
from inference.worker.embedding.tokens import Inputs, load_tokenizer
from inference.worker.embedding.turns import Batch, Job, Turns
from inference.worker.embedding.vectors import shortened
from inference.worker.logs import place_of, print_defect
from inference.worker.vllm_compat import memory

_RATE_WINDOW_S = 1.0


class EmbeddingBackend:
    """See ``base.Backend``. Usable after ``load`` has returned."""

    name = "embeddings"

    def __init__(self) -> None:
        self._model: loading.LoadedEncoder
        self._inputs: Inputs
        self._turns: Turns
        self._emit: Emit
        self._steps = 0
        self._tokens = 0
        self._rate = (time.monotonic(), 0, 0.0)

    # ------------------------------------------------------------------------------------------------ main thread

    def load(self, command: ipc.Load, emit: Emit) -> ipc.Loaded:
        began = time.monotonic()
        self._emit = emit
        memory.set_limits(command.memory_limit_bytes, command.cache_limit_bytes)

        def progress(phase: str, done: int = 0, total: int = 0) -> None:
            emit([ipc.LoadProgress(phase, done, total)])

        progress("import")
        path = Path(command.path)
        self._model = model = loading.load(path, progress)
        if not model.files.pooling_named:
            pooling = " and ".join(model.files.pooling)
            emit([ipc.Log("warning", f"no file says how this model's vectors are pooled; taken for: {pooling}")])
        progress("tokenizer")
        context = min(model.context, command.context or model.context)
        tokenizer = load_tokenizer(path, model.files.architecture)
        self._inputs = Inputs(tokenizer, model.encoder.vocab_size, context, lowercase=model.files.lowercase)
        self._turns = Turns(model.encoder.heads)
        return ipc.Loaded(
            capabilities=ipc.Capabilities(chat=False, completion=False, embeddings=True, batching=True),
            context=context,
            slots=command.slots,
            vocab_size=model.encoder.vocab_size,
            weight_bytes=model.weight_bytes,
            seconds=time.monotonic() - began,
            backend=self.name,
            embedding_dimensions=model.dimensions,
        )

    def run(self) -> None:
        while (batch := self._turns.next()) is not None:
            try:
                vectors = self._compute(batch)
            except Exception as error:
                self._fail(batch, error)
            else:
                self._deliver(batch, vectors)
        self._emit([ipc.Failed.cut_off(request) for request in self._turns.rest()])

    def _compute(self, batch: Batch) -> list[list[float]]:
        rows = [ids for _, _, ids in batch.rows]
        width, padding = len(rows[0]), self._model.encoder.pad_id
        ids = mx.array([row + [padding] * (width - len(row)) for row in rows], dtype=mx.int32)
        lengths = mx.array([len(row) for row in rows])
        made = self._model.head(self._model.encoder(ids, lengths), lengths)
        mx.eval(made)  # without the interpreter's lock, so that pings are answered meanwhile
        vectors = cast("list[list[float]]", made.tolist())
        self._steps += 1
        self._tokens += sum(len(row) for row in rows)
        return vectors

    def _deliver(self, batch: Batch, vectors: list[list[float]]) -> None:
        for (job, place, _), vector in zip(batch.rows, vectors, strict=True):
            job.vectors[place] = shortened(vector, job.dimensions)
            job.left -= 1
            if not job.left and self._turns.forget(job.request):
                self._emit([ipc.Embedded(job.request, [made for made in job.vectors if made], job.prompt_tokens)])

    def _fail(self, batch: Batch, error: Exception) -> None:
        """A defect ends the requests of the batch, and them alone."""
        print_defect("a batch of embeddings failed", error)
        code, reason = "internal_error", f"the model's worker could not embed this request ({place_of(error)})"
        if isinstance(error, MemoryError) or "allocate" in str(error):
            code, reason = "insufficient_memory", "there was not enough memory for a batch of this request's inputs"
        for request in {job.request for job, _, _ in batch.rows}:
            if self._turns.forget(request):
                self._emit([ipc.Failed(request, code, reason)])

    # -------------------------------------------------------------------------------------------------- CPU threads

    def embed(self, request: str, inputs: list[str | list[int]], dimensions: int | None) -> None:
        most = self._model.dimensions
        if dimensions is not None and not 1 <= dimensions <= most:
            raise InvalidRequest(f"dimensions must be from 1 to {most}, the length of this model's", param="dimensions")
        if not inputs:
            raise InvalidRequest("input must not be empty", param="input")
        if not self._turns.put(Job.of(request, self._inputs.all(inputs), dimensions)):
            raise ModelUnavailable("the model is being unloaded")

    def save_cache(self, directory: str, seconds: float | None) -> int:
        raise Unsupported("an embedding model has no prefix cache", param="model")

    def tokenize(self, text: str, add_special_tokens: bool) -> list[int]:
        return self._inputs.encode(text, add_special_tokens)

    def detokenize(self, token_ids: list[int]) -> str:
        return self._inputs.decode(token_ids)

    def prepare(self, request: str, body: ipc.GenerateRequest) -> NoReturn:
        raise Unsupported("this is an embedding model: it generates no text; ask /v1/embeddings", param="model")

    def count(self, body: ipc.GenerateRequest) -> int:
        return len(self.prompt_tokens(body))

    def prompt_tokens(self, body: ipc.GenerateRequest) -> list[int]:
        """Of a plain prompt; an embedding model has no template for messages."""
        if body.messages is not None or body.prompt is None:
            raise Unsupported("this is an embedding model: it has no template for messages", param="messages")
        return self._inputs.encode(body.prompt) if isinstance(body.prompt, str) else list(body.prompt)

    # --------------------------------------------------------------------------------------------------- any thread

    def start(self, request: str, max_tokens: int) -> None:
        self._emit([ipc.Failed(request, "unsupported", "this is an embedding model: it generates no text", "model")])

    def cancel(self, request: str) -> None:
        self._turns.forget(request)

    def set_limits(self, limits: ipc.SetLimits) -> None:
        memory.set_limits(limits.memory_limit_bytes, limits.cache_limit_bytes)

    def stats(self) -> ipc.Stats:
        return ipc.Stats(
            active_bytes=memory.active_bytes(),
            cache_bytes=memory.cache_bytes(),
            peak_bytes=memory.peak_bytes(),
            running=self._turns.open(),
            step=self._steps,
            prefill_tokens_per_second=self._tokens_per_second(),
        )

    def _tokens_per_second(self) -> float:
        at, tokens, rate = self._rate
        now, made = time.monotonic(), self._tokens
        if now - at >= _RATE_WINDOW_S:
            rate = (made - tokens) / (now - at)
            self._rate = (now, made, rate)
        return rate

    def step_number(self) -> int:
        return self._steps

    def busy(self) -> bool:
        return self._turns.open() > 0

    def stop(self) -> None:
        self._turns.close()


def open_backend() -> EmbeddingBackend:
    """A fresh backend, for the worker process."""
    return EmbeddingBackend()
