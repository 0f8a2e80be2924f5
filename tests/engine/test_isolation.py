"""In any company a request gives what it gives alone, and leaves nothing behind; through the engine, in a real worker.

Hypothesis mixes 2 to 16 requests with any parameters, which begin, leave and are cancelled at each other's events
(``tests.isolation.plans``). One engine with few slots serves all mixes; another, whose worker has never had two
requests at once and keeps no prefix, answers each request alone. ``ISOLATION_EXAMPLES=500`` in the environment runs
that many mixes from random seeds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given

from inference import ipc
from inference.catalog import ModelRef
from inference.engine.runs import ModelRun
from inference.errors import LmxError
from inference.principal import Principal
from inference.records import RequestRecord
from tests.engine.conftest import World, until
from tests.isolation import seen as sights
from tests.isolation.model import MUSE, muse_model
from tests.isolation.plans import Ask, examples, mixes
from tests.isolation.running import PATIENCE_S, Board, patient_loop, run
from tests.isolation.seen import Seen

pytestmark = pytest.mark.slow

SLOTS = 6
"""So few that a mix has to wait, and that a request of 4 choices waits for several."""
CACHE_BYTES = 256 * 1024
"""Room for the prefixes of a few mixes, so that they have to go for each other."""


class Engine:
    """One engine with one model. A ``Layer``; its mixes do not overlap."""

    def __init__(self, directory: Path, prefix_cache_bytes: int) -> None:
        directory.mkdir()
        self._world = World(directory)
        path = muse_model(directory / "models" / MUSE)
        size = (path / "model.safetensors").stat().st_size
        self._world.catalog.refs[MUSE] = ModelRef(MUSE, path, weight_bytes=size, context_length=2048)
        self._prefix_cache_bytes = prefix_cache_bytes
        self._records: dict[int, RequestRecord] = {}

    async def begin(self) -> None:
        await self._world.begin(
            worker_backend=None, heartbeat_s=1.0, slots=SLOTS, prefix_cache_bytes=self._prefix_cache_bytes
        )
        await self._world.engine.load(MUSE, context=None, slots=None, pin=True)

    async def end(self) -> None:
        """The worker leaves when no answer is open in it, however long it is given."""
        async with asyncio.timeout(PATIENCE_S):
            await self._world.engine.stop(100 * PATIENCE_S)

    @property
    def _run(self) -> ModelRun:
        return self._world.engine._supervisor.runs[MUSE]

    async def ask(self, at: int, ask: Ask, board: Board, seen: Seen) -> None:
        record = RequestRecord(f"req-{at}", "openai", "/v1/chat/completions", _client(at % 3, ask.priority), MUSE)
        self._records[at] = record
        await self._answer(record, ask.request, seen, lambda: board.event(at))

    async def _answer(
        self, record: RequestRecord, request: ipc.GenerateRequest, seen: Seen, note: Callable[[], None]
    ) -> None:
        try:
            async with await self._world.engine.generate(MUSE, request, record) as generation:
                seen.usage = {"prompt": generation.prompt_tokens}
                async for batch in generation:
                    for event in batch:
                        _add(seen, event)
                        note()
        except LmxError as error:
            seen.refused = (error.code, error.message, error.param)
            seen.over = error.code != "request_cancelled"
        else:
            seen.over = all(said.reason not in (None, "cancelled") for said in seen.choices.values())

    async def cancel(self, at: int) -> None:
        self._world.engine.cancel(f"req-{at}", by="owner")

    async def together(self, mix: list[Ask]) -> list[Seen]:
        """Run a mix, and see that nothing is left of it."""
        self._records.clear()
        self._world.records.kept.clear()
        client = self._run.client
        assert client is not None
        first = int(client.next_key()[1:])
        answers = await run(mix, self)
        await self._settle()
        await self._none_prepared([f"r{number}" for number in range(first, int(client.next_key()[1:]))])
        assert {record.id for record in self._world.records.kept} == {record.id for record in self._records.values()}
        assert len(self._world.records.kept) == len(self._records), "a record was put away twice"
        for at, seen in enumerate(answers):
            self._check_record(at, seen)
        return answers

    def _check_record(self, at: int, seen: Seen) -> None:
        record = self._records.get(at)
        if record is None:
            assert seen.cut, "it was never asked"
            return
        assert record.finished is not None
        assert record.status
        if seen.over and seen.refused is None:
            assert record.completion_tokens == sum(said.usage["completion"] for said in seen.choices.values())
            assert (record.status, record.error_code) == (200, None)
        elif not seen.over:  # whoever leaves at the very end does not see that it was the end
            assert record.cancelled_by is not None or record.finish_reason not in (None, "cancelled")

    async def _settle(self) -> None:
        """Nothing runs, waits or is held, here or in the worker."""
        engine, models = self._world.engine, self._run
        await until(lambda: not engine.in_flight(), "all requests to have ended")
        assert models.client is not None
        assert models.queue is not None
        assert not engine._running
        assert (models.users, models.waiters, models.queue.running, models.queue.used, models.queue.queued) == (
            0,
            [],
            0,
            0,
            0,
        )
        assert not models.client._sinks
        assert not models.client._replies
        assert engine._kv_promise(MUSE) == 0
        old = models.client.stats
        await until(lambda: self._reported_idle(old), "a report of the worker's that nothing runs or is held in it")
        assert models.client.stats is not None
        assert models.client.stats.prefix_bytes <= CACHE_BYTES

    def _reported_idle(self, old: ipc.Stats | None) -> bool:
        client = self._run.client
        stats = client.stats if client is not None else None
        return stats is not None and stats is not old and (stats.running, stats.queued, stats.kv_bytes) == (0, 0, 0)

    async def _none_prepared(self, keys: list[str]) -> None:
        """What the worker has prepared can be started; none of these can."""
        client = self._run.client
        assert client is not None
        for key in keys:
            answered: asyncio.Future[ipc.RequestEvent] = asyncio.get_running_loop().create_future()
            client.start(key, 1, answered.set_result)
            event = await answered
            client.forget(key)
            assert isinstance(event, ipc.Failed), f"{key} was still prepared: {event}"
            assert event.message == "the request was not prepared"

    @property
    def found(self) -> int:
        """Tokens of prompts that were not read again, as the worker last told."""
        client = self._run.client
        assert client is not None
        assert client.stats is not None
        return client.stats.prefix_tokens_found

    async def alone(self, request: ipc.GenerateRequest) -> Seen:
        seen = Seen()
        async with asyncio.timeout(PATIENCE_S):
            await self._answer(RequestRecord("req", "openai", "", _client(0), MUSE), request, seen, lambda: None)
        return seen


def _client(number: int, priority: int = 0) -> Principal:
    return Principal("anonymous", f"client-{number}", frozenset({"inference"}), priority=priority)


def _entry(token: ipc.TokenLogprob) -> sights.Entry:
    return token.token_id, token.logprob, [(top.token_id, top.logprob) for top in token.top]


def _add(seen: Seen, event: ipc.RequestEvent) -> None:
    match event:
        case ipc.Delta():
            said = seen.choice(event.choice)
            assert said.reason is None, "a delta came after the last event of its choice"
            said.content += event.content
            said.reasoning += event.reasoning
            said.tokens += event.token_ids
            said.logprobs += map(_entry, event.logprobs)
            for fragment in event.tools:
                if fragment.name is not None:
                    assert fragment.index == len(said.calls)
                    said.calls.append([fragment.name, ""])
                said.calls[fragment.index][1] += fragment.arguments
        case ipc.Finished():
            said = seen.choice(event.choice)
            assert said.reason is None, "a choice had two last events"
            said.reason, said.stopped = event.reason, event.stop_sequence
            said.usage = {
                "prompt": event.usage.prompt_tokens,
                "completion": event.usage.completion_tokens,
                "reasoning": event.usage.reasoning_tokens,
            }
            assert len(said.tokens) == event.usage.completion_tokens
        case ipc.PromptLogprobs():
            seen.prompt += map(_entry, event.tokens)
        case ipc.Failed():
            seen.refused = (event.code, event.message, event.param)


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    with patient_loop() as runner:
        yield runner


@pytest.fixture(scope="module")
def engines(loop: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Engine, Engine]]:
    """The one for all, and the one for one at a time."""
    directory = tmp_path_factory.mktemp("isolation")
    both = Engine(directory / "together", CACHE_BYTES), Engine(directory / "alone", 0)
    for engine in both:
        loop.run(engine.begin())
    yield both
    assert both[0].found > 0, "no prompt of the mixes began as another"
    assert both[1].found == 0
    for engine in both:
        loop.run(engine.end())


class Alone:
    """Each request's answer alone, made once."""

    def __init__(self, loop: asyncio.Runner, engine: Engine) -> None:
        self._loop = loop
        self._engine = engine
        self._known: dict[bytes, Seen] = {}

    def answer(self, request: ipc.GenerateRequest) -> Seen:
        key = msgspec.msgpack.encode(request)
        if key not in self._known:
            self._known[key] = self._loop.run(self._engine.alone(request))
        return self._known[key]

    def check(self, request: ipc.GenerateRequest, seen: Seen) -> None:
        """Compare what was seen of a request in company, whole or cut off."""
        if seen.over:
            sights.same(seen, self.answer(request))
            return
        assert seen.cut
        sights.beginning(seen, self.answer(request))
        for index, said in seen.choices.items():
            if said.reason == "cancelled" and said.tokens:
                cut = msgspec.structs.replace(request, max_tokens=len(said.tokens))
                sights.cut_short(said, self.answer(cut).choices[index])


@examples(12)
@given(mix=mixes())
def test_in_company_as_alone(loop: asyncio.Runner, engines: tuple[Engine, Engine], mix: list[Ask]) -> None:
    together, alone = engines[0], Alone(loop, engines[1])
    found = loop.run(together.together(mix))
    for at, (ask, seen) in enumerate(zip(mix, found, strict=True)):
        sampling = ask.request.sampling
        if sampling.temperature > 0 and sampling.seed is None:
            continue  # it may say anything
        try:
            alone.check(ask.request, seen)
        except AssertionError as error:
            error.add_note(f"request {at} of the mix: {ask}\ntogether: {seen}\nalone: {alone.answer(ask.request)}")
            raise
