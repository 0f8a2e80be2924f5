"""An in-process implementation of the engine's contract that plays scripts, with gates a test opens.

A script is a list of steps: a list of events is sent as one batch, an ``asyncio.Event`` is waited for, an ``LmxError``
as the first step refuses the request. Every generation that was made is kept in ``generations``; ``respond`` makes the
script of a request for which none was queued. ``asked`` has everything that was asked of it, in order, as tuples.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from inference.catalog import ModelRef
from inference.engine.contract import MemoryFit, MemoryReading, ModelStatus, Size
from inference.engine.fitting import judge
from inference.engine.policy import Limits, Situation
from inference.errors import LmxError, ModelNotFound, from_code
from inference.ipc import (
    Capabilities,
    Delta,
    Embedded,
    Failed,
    Finished,
    GenerateRequest,
    RequestEvent,
    Started,
    Stats,
    TokenLogprob,
    Tokens,
    ToolFragment,
    Usage,
)
from inference.model_settings import ModelSettings
from inference.records import RequestRecord

Step = list[RequestEvent] | asyncio.Event | LmxError
Script = list[Step]
_ID = ""  # events carry the request's id in the real engine; nothing on the web side reads it


def started() -> Started:
    return Started(_ID)


def text(content: str, *, choice: int = 0, logprobs: list[TokenLogprob] | None = None) -> Delta:
    return Delta(_ID, choice=choice, content=content, token_ids=[1], logprobs=logprobs or [])


def thought(reasoning: str) -> Delta:
    return Delta(_ID, reasoning=reasoning, token_ids=[1])


def tool(index: int, *, id: str | None = None, name: str | None = None, arguments: str = "") -> Delta:
    return Delta(_ID, tools=[ToolFragment(index, id, name, arguments)])


def finished(
    reason: Literal["stop", "length", "tool_calls", "cancelled"] = "stop", *, choice: int = 0, tokens: int = 2
) -> Finished:
    usage = Usage(prompt_tokens=7, completion_tokens=tokens, cached_tokens=3, reasoning_tokens=1)
    return Finished(_ID, reason=reason, choice=choice, usage=usage)


def failed(code: str, message: str) -> Failed:
    return Failed(_ID, code=code, message=message)


def hello() -> Script:
    return [[started()], [text("Hel")], [text("lo"), finished()]]


class FakeCatalog:
    def __init__(self, *refs: ModelRef) -> None:
        self._refs = sorted(refs, key=lambda ref: ref.id)

    def all(self) -> list[ModelRef]:
        return list(self._refs)

    async def recheck(self, ref: ModelRef) -> ModelRef:
        return ref

    def resolve(self, name: str) -> ModelRef:
        if name in ("", "default", "local-model"):
            return self._refs[0]
        for ref in self._refs:
            if name == ref.id or name in ref.aliases or name == ref.id.split("/")[-1]:
                return ref
        raise ModelNotFound(f"no model {name!r}; the nearest is {self._refs[0].id!r}", param="model")


def small_catalog() -> FakeCatalog:
    return FakeCatalog(
        ModelRef(
            id="acme/tiny",
            path=Path("/models/acme/tiny"),
            aliases=("small",),
            weight_bytes=1_500_000_000,
            context_length=2048,
            created=1_700_000_000,
            architecture="llama",
            quantization="4bit",
        ),
        ModelRef(id="broken", path=Path("/models/broken"), problem="model.safetensors is truncated"),
    )


class FakeGeneration:
    def __init__(self, engine: FakeEngine, request: GenerateRequest, record: RequestRecord, script: Script) -> None:
        self.record = record
        self.request = request
        self.prompt_tokens = 7
        self.cancelled_by: str | None = None
        self.left = asyncio.Event()
        self._engine = engine
        self._events: list[RequestEvent] = []
        self._arrived = asyncio.Event()
        self._started = asyncio.Event()
        self._over = False
        self._feeder = asyncio.create_task(self._feed(script))

    async def _feed(self, script: Script) -> None:
        for step in script:
            if isinstance(step, asyncio.Event):
                await step.wait()
            elif isinstance(step, list):
                self._put(step)
                await self._engine.between_batches()
        self._over = True
        self._arrived.set()

    def _put(self, batch: list[RequestEvent]) -> None:
        self._events += batch
        self._arrived.set()
        if any(isinstance(event, Started | Failed | Finished) for event in batch):
            self._started.set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._feeder.done():
            self.cancelled_by = self.cancelled_by or "client"
        self._feeder.cancel()
        self._engine.flying.pop(self.record.id, None)
        self.left.set()

    async def __aiter__(self) -> AsyncIterator[list[RequestEvent]]:
        open_choices = set(range(self.request.n))
        while open_choices:
            await self._arrived.wait()
            self._arrived.clear()
            batch, self._events = self._events, []
            if batch:
                yield batch
            elif self._over:
                return
            open_choices -= {event.choice for event in batch if isinstance(event, Finished)}
            if any(isinstance(event, Failed) for event in batch):
                return
            if self._over:
                self._arrived.set()

    async def wait_started(self, timeout: float) -> None:
        try:
            await asyncio.wait_for(self._started.wait(), timeout)
        except TimeoutError:
            return
        for event in self._events:
            if isinstance(event, Failed):
                raise from_code(event.code, event.message, event.param)

    def cancel(self, by: str) -> None:
        self.cancelled_by = by
        self._put([finished("cancelled", choice=choice) for choice in range(self.request.n)])


async def at_once() -> None:
    """No pause between batches: they may reach the reader joined."""


async def one_by_one() -> None:
    """Each batch is taken before the next is sent."""
    for _ in range(20):
        await asyncio.sleep(0)


class FakeEngine:
    def __init__(self, catalog: FakeCatalog) -> None:
        self.catalog = catalog
        self.scripts: list[Script] = []
        self.respond: Callable[[GenerateRequest], Script] = lambda request: hello()
        self.asked: list[tuple[Any, ...]] = []
        self.requests: list[GenerateRequest] = []
        self.generations: list[FakeGeneration] = []
        self.made = asyncio.Event()
        self.flying: dict[str, FakeGeneration] = {}
        self.load_gate: asyncio.Event | None = None
        self.waiting_for_load = asyncio.Event()
        self.load_error: LmxError | None = None
        self.embed_error: LmxError | None = None
        self.loads: list[tuple[str, int | None, int | None, bool | None]] = []
        self.between_batches: Callable[[], Any] = one_by_one
        self.states = {ref.id: ModelStatus(id=ref.id, state="unloaded") for ref in catalog.all()}
        self.word: Literal["healthy", "degraded", "error"] = "healthy"

    async def start(self) -> None:
        pass

    async def stop(self, drain_s: float) -> None:
        pass

    async def generate(
        self, model: str, request: GenerateRequest, record: RequestRecord, *, ttl_s: float | None = None
    ) -> FakeGeneration:
        ref = self.catalog.resolve(model)
        record.model = ref.id
        self.requests.append(request)
        self.asked.append(("generate", ref.id, request, record.priority, ttl_s))
        if self.load_gate is not None:
            self.waiting_for_load.set()
            await self.load_gate.wait()
        script = self.scripts.pop(0) if self.scripts else self.respond(request)
        if isinstance(script[0], LmxError):
            raise script[0]
        generation = FakeGeneration(self, request, record, script)
        self.generations.append(generation)
        self.made.set()
        self.flying[record.id] = generation
        return generation

    async def count(self, model: str, request: GenerateRequest, record: RequestRecord) -> int:
        """A token for every word of the messages."""
        record.model = self.catalog.resolve(model).id
        self.requests.append(request)
        self.asked.append(("count", record.model, request))
        return sum(len(str(message.get("content") or "").split()) for message in request.messages or [])

    async def tokenize(self, model: str, text: str, add_special_tokens: bool, record: RequestRecord) -> list[int]:
        """A token for every byte; 256 begins a text."""
        record.model = self.catalog.resolve(model).id
        self.asked.append(("tokenize", record.model, text, add_special_tokens))
        return [256] * add_special_tokens + list(text.encode())

    async def tokens(
        self, model: str, prompt: str | GenerateRequest, add_special_tokens: bool, record: RequestRecord
    ) -> Tokens:
        """As ``tokenize``; a conversation is its messages' contents, one after the other."""
        if isinstance(prompt, GenerateRequest):
            self.asked.append(("template", prompt))
            prompt = "".join(str(message["content"]) for message in prompt.messages or [])
        ids = await self.tokenize(model, prompt, add_special_tokens, record)
        return Tokens(_ID, ids, [bytes([one]).decode("latin-1") if one < 256 else "<s>" for one in ids])

    async def detokenize(self, model: str, token_ids: list[int], record: RequestRecord) -> str:
        record.model = self.catalog.resolve(model).id
        self.asked.append(("detokenize", record.model, token_ids))
        return bytes(token for token in token_ids if token < 256).decode("utf-8", "replace")

    async def embed(
        self, model: str, inputs: list[str | list[int]], dimensions: int | None, record: RequestRecord
    ) -> Embedded:
        """Unit vectors of ``dimensions`` (else 4), the ``i``-th along the ``i``-th axis; a token for every item."""
        record.model = self.catalog.resolve(model).id
        self.asked.append(("embed", record.model, inputs, dimensions))
        if self.embed_error is not None:
            raise self.embed_error
        width = dimensions or 4
        vectors = [[float(axis == at % width) for axis in range(width)] for at in range(len(inputs))]
        return Embedded(_ID, vectors, sum(map(len, inputs)))

    async def load(
        self,
        model: str,
        *,
        context: int | None,
        slots: int | None,
        pin: bool | None,
        ttl_s: float | None = None,
    ) -> ModelStatus:
        if self.load_gate is not None:
            self.waiting_for_load.set()
            await self.load_gate.wait()
        if self.load_error is not None:
            raise self.load_error
        ref = self.catalog.resolve(model)
        self.loads.append((ref.id, context, slots, pin))
        self.asked.append(("load", ref.id, context, slots, pin, ttl_s))
        status = self.states[ref.id]
        status.state, status.footprint_bytes, status.weight_bytes = "ready", 2**31, ref.weight_bytes
        status.context, status.slots, status.load_seconds = context or 2048, slots or 64, 0.5
        status.ttl_s = ttl_s
        status.capabilities = Capabilities(chat=True, tools=True, batching=True, tool_parser="hermes")
        status.stats = Stats(active_bytes=10, kv_bytes=5, running=1, tokens_per_second=12.5)
        return status

    def settings(self, model: str) -> ModelSettings:
        return self.catalog.resolve(model).settings

    async def apply_settings(self) -> None:
        self.asked.append(("settings",))

    async def unload(self, model: str) -> ModelStatus:
        ref = self.catalog.resolve(model)
        self.states[ref.id] = ModelStatus(id=ref.id, state="unloaded")
        return self.states[ref.id]

    def models(self) -> list[ModelStatus]:
        return list(self.states.values())

    def in_flight(self) -> list[RequestRecord]:
        return [generation.record for generation in self.flying.values()]

    def cancel(self, request_id: str, by: str) -> bool:
        generation = self.flying.get(request_id)
        if generation is not None:
            generation.cancel(by)
        return generation is not None

    def health(self) -> tuple[Literal["healthy", "degraded", "error"], list[str]]:
        return self.word, [] if self.word == "healthy" else ["acme/tiny does not answer"]

    def memory_fit(self, size: Size, context: int | None = None, model_id: str | None = None) -> MemoryFit:
        """A machine of 100 bytes with 40 free."""
        return judge(size, Situation(MemoryReading(100, 40, 60), Limits(100)), 0, context=context)

    def memory_plan(self) -> dict[str, Any]:
        return {"total_bytes": 100, "free_bytes": 40}
