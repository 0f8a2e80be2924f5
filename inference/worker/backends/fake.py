"""A deterministic model without weights, for supervision and protocol tests and for a usable page on any machine.

Its tokens: ids 0-255 are bytes (a prompt is its UTF-8), 256 and up are words. The answer is drawn
from the prompt alone, so the same prompt always gives the same answer; choice *i* gives another one.

Behaviour is set by ``Script`` fields: those of a model in ``fake.json`` in its directory and in
``Load.options["script"]``, those of one request as JSON between ``<<fake`` and ``>>`` anywhere in its prompt. A *gate*
is the path of a file: the fake creates ``<gate>.reached`` and waits until ``<gate>`` exists, so a test can wait for
the first and make the second.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from inference import ipc
from inference.errors import ContextLengthExceeded, InvalidRequest, ModelUnavailable, Unsupported, from_code
from inference.worker.backends.base import Emit
from inference.worker.backends.fake_script import (
    DIRECTIVE,
    FIRST_WORD,
    GATE_POLL_S,
    WORDS,
    Panic,
    Piece,
    Script,
    detokenize,
    die,
    is_open,
    pieces_of,
    reach,
    text_of,
    tokenize,
    vector,
    wait_at,
)


class Row:
    """One running request: where it stands and what it says next. Touched by the stepping thread only."""

    def __init__(self, request: str, body: ipc.GenerateRequest, script: Script, prompt: str) -> None:
        self.request = request
        self.script = script
        self.sampling = body.sampling
        self.prompt_tokens = len(tokenize(prompt))
        self.max_tokens = 0
        self.answers = [pieces_of(body, script, prompt, choice) for choice in range(body.n)]
        self.done = [False] * body.n
        self.at = 0
        self.prefilled = 0
        self.started = False
        self.arrived = time.monotonic()
        self.first_token: float | None = None
        self.due = 0.0

    @property
    def finished(self) -> bool:
        return all(self.done)

    def waits(self, now: float) -> bool:
        """True while a gate or the pace keeps it from its next step."""
        script = self.script
        if not self.started:
            return self._held(script.start_gate)
        if self.prefilled and self.prefilled < self.prompt_tokens and self._held(script.prefill_gate):
            return True
        return now < self.due or (script.hold_after == self.at and self._held(script.gate))

    @staticmethod
    def _held(gate: str | None) -> bool:
        if is_open(gate):
            return False
        if gate is not None and not is_open(gate + ".reached"):
            reach(gate)
        return True

    def step(self, now: float) -> Iterator[ipc.Event]:
        """Its events of one step: start, one prefill chunk, or one token per open choice."""
        self.due = now + self.script.interval_s
        if not self.started:
            self.started = True
            yield ipc.Started(self.request)
        elif self.prefilled < self.prompt_tokens:
            chunk = self.script.prefill_chunk or self.prompt_tokens
            self.prefilled = min(self.prompt_tokens, self.prefilled + chunk)
            yield ipc.Prefill(self.request, self.prefilled, self.prompt_tokens)
        else:
            self._misbehave()
            if self.script.fail_after == self.at:
                self.done = [True] * len(self.done)
                yield ipc.Failed(self.request, self.script.fail_code, "the fake model failed as it was told to")
                return
            yield from self._decode()

    def _misbehave(self) -> None:
        if self.script.die_after == self.at:
            die(self.script.die)
        while self.script.hang_after == self.at:
            time.sleep(3600)

    def _decode(self) -> Iterator[ipc.Event]:
        self.first_token = self.first_token or time.monotonic()
        for choice, (pieces, stop) in enumerate(self.answers):
            if self.done[choice]:
                continue
            if self.at < min(len(pieces), self.max_tokens):
                yield self._delta(choice, pieces[self.at])
            if self.at + 1 >= len(pieces):
                yield self._finish(choice, "tool_calls" if self.script.tools else "stop", len(pieces), stop)
            elif self.at + 1 >= self.max_tokens:
                yield self._finish(choice, "length", self.max_tokens, None)
        self.at += 1

    def _delta(self, choice: int, piece: Piece) -> ipc.Delta:
        tools = [piece.tool] if piece.tool is not None else []
        return ipc.Delta(
            self.request, choice, piece.content, piece.reasoning, tools, [piece.token_id], self._logprobs(piece)
        )

    def _logprobs(self, piece: Piece) -> list[ipc.TokenLogprob]:
        if self.sampling.top_logprobs is None:
            return []
        text = piece.content or piece.reasoning
        top = [
            ipc.TopLogprob(
                piece.token_id + rank, text if rank == 0 else detokenize([FIRST_WORD + rank]), b"", -1.0 - rank
            )
            for rank in range(self.sampling.top_logprobs)
        ]
        top = [ipc.TopLogprob(t.token_id, t.text, t.text.encode(), t.logprob) for t in top]
        return [ipc.TokenLogprob(piece.token_id, text, text.encode(), -1.0, top)]

    def _finish(self, choice: int, reason: ipc.FinishReason, tokens: int, stop: str | None) -> ipc.Finished:
        self.done[choice] = True
        now = time.monotonic()
        ttft = (self.first_token or now) - self.arrived
        usage = ipc.Usage(self.prompt_tokens, tokens, 0, min(tokens, self.script.reasoning))
        return ipc.Finished(self.request, reason, choice, stop, usage, ipc.Timings(0.0, ttft, ttft, now - self.arrived))

    def cancel(self) -> list[ipc.Event]:
        done = [choice for choice, is_done in enumerate(self.done) if not is_done]
        return [self._finish(choice, "cancelled", min(self.at, len(self.answers[choice][0])), None) for choice in done]


class FakeBackend:
    """Implements ``Backend``; imports nothing heavy."""

    name = "fake"

    def __init__(self) -> None:
        self._wake = threading.Condition()
        self._prepared: dict[str, Row] = {}
        self._queued: list[Row] = []
        self._running: dict[str, Row] = {}
        self._cancelled: set[str] = set()
        self._stopped = False
        self._steps = 0
        self._tokens = 0
        self._slots = ipc.DEFAULT_SLOTS
        self._context = 0
        self._script = Script()
        self._eaten = bytearray()
        self._prefix_bound = 0
        self._prefix_disk = "", 0

    def load(self, command: ipc.Load, emit: Emit) -> ipc.Loaded:
        self._emit = emit
        self._script = script = self._script_of(command)
        for step in range(script.load_steps):
            emit([ipc.LoadProgress("weights", (step + 1) * 1000, script.load_steps * 1000)])
        wait_at(script.load_gate)
        if script.load_die is not None:
            die(script.load_die)
        if script.load_error is not None:
            raise from_code(script.load_code, script.load_error)
        self._eaten = bytearray(b"x") * script.eat_bytes
        self._prefix_bound = command.prefix_cache_bytes or 0
        self._prefix_disk = command.prefix_disk_dir or "", command.prefix_disk_bytes
        self._slots = min(script.slots or command.slots, command.slots)
        self._context = min(script.context, command.context or script.context)
        return ipc.Loaded(
            self._capabilities(),
            self._context,
            self._slots,
            vocab_size=FIRST_WORD + len(WORDS),
            weight_bytes=script.weight_bytes,
            kv_bytes_per_token=script.kv_bytes_per_token,
            embedding_dimensions=script.embedding_dimensions,
        )

    def _capabilities(self) -> ipc.Capabilities:
        if self._script.embedding_dimensions:
            return ipc.Capabilities(completion=False, embeddings=True, batching=True)
        text = ipc.Capabilities(chat=True, tools=True, reasoning=True, json_schema=True, logprobs=True)
        text.batching = text.prefix_cache = True
        return text

    @staticmethod
    def _script_of(command: ipc.Load) -> Script:
        fields: dict[str, Any] = {}
        path = Path(command.path, "fake.json")
        if path.exists():
            fields.update(json.loads(path.read_text()))
        fields.update(command.options.get("script") or {})
        try:
            return msgspec.convert(fields, Script)
        except msgspec.ValidationError as error:
            raise ModelUnavailable(f"{path.name}: {error}") from error

    def prepare(self, request: str, body: ipc.GenerateRequest) -> ipc.Prepared:
        if self._script.embedding_dimensions:
            raise Unsupported("this fake model makes embeddings only", param="model")
        prompt = text_of(body)
        script = self._request_script(prompt)
        wait_at(script.prepare_gate)
        if script.prepare_error == "refuse":
            raise InvalidRequest("the fake model refuses this prompt", param="messages")
        if script.prepare_error == "crash":
            raise RuntimeError(f"a defect met {prompt!r}")
        if script.prepare_error == "panic":
            raise Panic(f"a panic over {prompt!r}")
        if script.prepare_error == "chatter":
            logging.getLogger("some.library").warning("met %r", prompt)
        row = Row(request, body, script, prompt)
        if row.prompt_tokens >= self._context:
            param = "prompt" if body.messages is None else "messages"
            raise ContextLengthExceeded.of(row.prompt_tokens, self._context, param)
        with self._wake:
            self._prepared[request] = row
        return ipc.Prepared(request, row.prompt_tokens)

    def _request_script(self, prompt: str) -> Script:
        fields = msgspec.to_builtins(self._script)
        for directive in DIRECTIVE.findall(prompt):
            fields.update(json.loads(directive))
        return msgspec.convert(fields, Script)

    def start(self, request: str, max_tokens: int) -> None:
        with self._wake:
            row = self._prepared.pop(request, None)
            if row is None:
                return
            row.max_tokens = max_tokens
            row.arrived = time.monotonic()
            self._queued.append(row)
            self._wake.notify()

    def cancel(self, request: str) -> None:
        with self._wake:
            if self._prepared.pop(request, None) is None:
                self._cancelled.add(request)
                self._wake.notify()

    def tokenize(self, text: str, add_special_tokens: bool) -> list[int]:
        return tokenize(text)

    def detokenize(self, token_ids: list[int]) -> str:
        return detokenize(token_ids)

    def count(self, body: ipc.GenerateRequest) -> int:
        return len(self.prompt_tokens(body))

    def prompt_tokens(self, body: ipc.GenerateRequest) -> list[int]:
        prompt = text_of(body)
        self._obey(prompt)
        return tokenize(prompt)

    def embed(self, request: str, inputs: list[str | list[int]], dimensions: int | None) -> ipc.Embedded:
        width = self._script.embedding_dimensions
        if not width:
            raise Unsupported("the fake model makes no embeddings", param="model")
        if dimensions is not None and not 1 <= dimensions <= width:
            raise InvalidRequest(f"dimensions must be from 1 to {width}", param="dimensions")
        texts = [item if isinstance(item, str) else detokenize(item) for item in inputs]
        self._obey(" ".join(texts))
        vectors = [vector(text.encode(), dimensions or width) for text in texts]
        return ipc.Embedded(request, vectors, sum(len(tokenize(text)) for text in texts))

    def save_cache(self, directory: str, seconds: float | None) -> int:
        """One file of as many bytes as its prefix cache says it holds, within what the disk may hold of it."""
        own, most = self._prefix_disk
        if not (directory or own):
            raise Unsupported("there is no directory for cached prefixes", param="directory")
        size = min(self._script.prefix_bytes, self._prefix_bound)
        size = size if directory else min(size, most)
        place = Path(directory or own)
        try:
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            with (place / "fake.prefix").open("wb") as file:
                file.truncate(size)
        except OSError as error:
            raise InvalidRequest(f"the directory cannot be written: {error.strerror}", param="directory") from error
        return size

    def _obey(self, prompt: str) -> None:
        """The directives of a question: wait at ``gate``, die if ``die_after`` is 0."""
        script = self._request_script(prompt)
        wait_at(script.gate)
        if script.die_after == 0:
            die(script.die)

    def set_limits(self, limits: ipc.SetLimits) -> None:
        with self._wake:
            self._slots = limits.slots or self._slots
            if limits.prefix_cache_bytes is not None:
                self._prefix_bound = limits.prefix_cache_bytes
            self._wake.notify()

    def stats(self) -> ipc.Stats:
        with self._wake:
            if self._script.stats_panic:
                raise Panic(f"a panic after {self._steps} steps")
            kv = sum(row.prefilled + row.at for row in self._running.values()) * self._script.kv_bytes_per_token
            return ipc.Stats(
                active_bytes=self._script.weight_bytes + len(self._eaten) + kv,
                kv_bytes=kv,
                prefix_bytes=min(self._script.prefix_bytes, self._prefix_bound),
                prefix_tokens_asked=100 if self._script.prefix_found else 0,
                prefix_tokens_found=self._script.prefix_found,
                running=len(self._running),
                queued=len(self._queued),
                step=self._steps,
            )

    def step_number(self) -> int:
        return self._steps

    def busy(self) -> bool:
        with self._wake:
            return bool(self._running or self._queued)

    def stop(self) -> None:
        with self._wake:
            self._stopped = True
            self._wake.notify()

    def run(self) -> None:
        while not self._stopped:
            with self._wake:
                while not (self._running or self._queued or self._cancelled or self._stopped):
                    self._wake.wait()
                self._drop_cancelled()
                while self._queued and len(self._running) < self._slots:
                    row = self._queued.pop(0)
                    self._running[row.request] = row
            if not self._step():
                with self._wake:
                    if not (self._cancelled or self._stopped):
                        self._wake.wait(GATE_POLL_S)
        with self._wake:
            self._drop_cancelled()
            cut_off = [ipc.Failed.cut_off(row.request) for row in (*self._running.values(), *self._queued)]
            self._running, self._queued = {}, []
        self._emit(list(cut_off))

    def _drop_cancelled(self) -> None:
        """Forget every cancelled request, under the lock. An id that is not here is unknown and ignored."""
        if not self._cancelled:
            return
        events: list[ipc.Event] = []
        for row in [*self._running.values(), *self._queued]:
            if row.request in self._cancelled:
                events += row.cancel()
                self._running.pop(row.request, None)
        self._queued = [row for row in self._queued if row.request not in self._cancelled]
        self._cancelled.clear()
        if events:
            self._emit(events)

    def _step(self) -> bool:
        """One step of every row that may go on; False when none may."""
        now = time.monotonic()
        events: list[ipc.Event] = []
        for row in [row for row in self._running.values() if not row.waits(now)]:
            events += row.step(now)
            if row.finished:
                with self._wake:
                    del self._running[row.request]
        if events:
            self._steps += 1
            self._emit(events)
        return bool(events)


def open_backend() -> FakeBackend:
    return FakeBackend()
