"""In any company a client gets what it gets alone, and leaves nothing behind; over HTTP, in all protocols at once.

Hypothesis mixes 2 to 16 requests with any parameters, streamed and whole, whose clients close their connection in the
middle and whose owner cancels some (``tests.isolation.plans``). One server with few slots serves all mixes; another,
which keeps no prefix, answers each request alone. ``ISOLATION_EXAMPLES=500`` in the environment runs that many mixes
from random seeds.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from hypothesis import given

from tests.isolation import seen as sights
from tests.isolation.asked import PATHS, body, is_fixed
from tests.isolation.model import MUSE, muse_model
from tests.isolation.plans import Ask, examples, mixes
from tests.isolation.running import PATIENCE_S, Board, patient_loop, run
from tests.isolation.seen import Seen
from tests.isolation.told import Stream, refusal, stored, whole
from tests.live.process import LiveServer, until
from tests.live.real import admin, load, real_server, settled

pytestmark = [pytest.mark.live, pytest.mark.slow]


class Web:
    """One server as its clients have it. A ``Layer``; its mixes do not overlap."""

    def __init__(self, server: LiveServer) -> None:
        self.server = server
        self._background: dict[int, str] = {}
        self._client = httpx.AsyncClient(base_url=server.url, timeout=PATIENCE_S, trust_env=False)

    async def close(self) -> None:
        await self._client.aclose()

    async def ask(self, at: int, ask: Ask, board: Board, seen: Seen) -> None:
        headers = {"x-client": f"mix-{at}", "x-priority": "low" if ask.priority < 0 else "normal"}
        async with self._client.stream("POST", PATHS[ask.protocol], json=body(ask, MUSE), headers=headers) as answer:
            if answer.status_code != 200:
                refusal(answer.status_code, json.loads(await answer.aread()), seen)
            elif ask.stream:
                await self._follow(at, ask, answer, board, seen)
            elif _runs_on(ask):
                self._background[at] = json.loads(await answer.aread())["id"]
            else:
                whole(ask.protocol, json.loads(await answer.aread()), seen)

    async def _follow(self, at: int, ask: Ask, answer: httpx.Response, board: Board, seen: Seen) -> None:
        stream = Stream(ask.protocol, seen)
        async for line in answer.aiter_lines():
            if stream.line(line):
                board.event(at)
            if _runs_on(ask) and stream.response_id is not None:
                self._background[at] = stream.response_id
        assert stream.ended or seen.refused, "the stream ended without its last event"

    async def cancel(self, at: int) -> None:
        """All that the owner sees of that client; a list of prompts is several requests."""
        flying = (await self._client.get("/admin/status")).json()["requests"]
        for request in flying:
            if request["client"] == f"mix-{at}":
                answer = await self._client.post("/admin/requests/cancel", json={"id": request["id"]})
                assert answer.status_code in (200, 404), answer.text

    async def together(self, mix: list[Ask]) -> list[Seen]:
        """What each client saw, and after those of background responses what came of these."""
        self._background.clear()
        found = await run(mix, self)
        async with asyncio.timeout(PATIENCE_S):
            return [*found, *[await self._stored(response) for response in self._background.values()]]

    async def alone(self, ask: Ask) -> Seen:
        seen = Seen()
        self._background.clear()
        async with asyncio.timeout(PATIENCE_S):
            await self.ask(0, ask, Board(1), seen)
            return await self._stored(self._background[0]) if self._background else seen

    @property
    def background(self) -> list[int]:
        """Numbers of those of the last mix that ran, or run, in the background."""
        return list(self._background)

    async def _stored(self, response_id: str) -> Seen:
        seen = Seen()
        while True:
            response = (await self._client.get(f"/v1/responses/{response_id}")).json()
            if response["status"] not in ("queued", "in_progress"):
                stored(response, seen)
                return seen
            await asyncio.sleep(0.01)


def _runs_on(ask: Ask) -> bool:
    return ask.protocol == "responses" and ask.background


def _served(home: Path, **variables: str) -> Iterator[LiveServer]:
    muse_model(home / "models" / MUSE)
    # A stop that waits for an answer that nobody ends would last longer than any test.
    with real_server(home, LMX_ENGINE__SLOTS="6", LMX_ENGINE__DRAIN_SEC="3600", **variables) as server:
        load(server, MUSE)
        yield server
        assert "Traceback" not in server.log + server.stderr


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    yield from _served(tmp_path_factory.mktemp("together"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    yield from _served(tmp_path_factory.mktemp("alone"), LMX_CACHE__MEMORY_MB="0", LMX_CACHE__DISK="false")


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    with patient_loop() as runner:
        yield runner


@pytest.fixture(scope="module")
def webs(loop: asyncio.Runner, together: LiveServer, alone: LiveServer) -> Iterator[tuple[Web, Web]]:
    both = Web(together), Web(alone)
    yield both
    for web in both:
        loop.run(web.close())
    _nothing_is_held(together)
    assert _model(together)["prefix_cache"]["tokens_found"] > 0, "no prompt of the mixes began as another"
    assert _model(alone)["prefix_cache"]["tokens_found"] == 0


def _nothing_is_held(server: LiveServer) -> None:
    """No connection, and no memory in the worker, by a report of it that is younger than all mixes."""
    process = psutil.Process(server.pid)
    until(lambda: not _connections(process), "the server to have no connection")
    settled(server)
    endless = {"model": MUSE, "prompt": "On and on", "max_tokens": 2000, "ignore_eos": True, "stream": True}
    with httpx.stream("POST", f"{server.url}/v1/completions", json=endless, timeout=PATIENCE_S):
        until(lambda: _kv_bytes(server) > 0, "a report of the worker's that an answer holds memory")
    until(lambda: _kv_bytes(server) == 0, "a report of the worker's that no memory is held")
    settled(server)


def _connections(process: psutil.Process) -> list[object]:
    return [found for found in process.net_connections("tcp") if found.status == psutil.CONN_ESTABLISHED]


def _kv_bytes(server: LiveServer) -> int:
    return int(_model(server)["kv_bytes"])


def _model(server: LiveServer) -> Any:
    [model] = admin(server, "models/loaded")["models"]
    return model


@examples(8)
@given(mix=mixes())
def test_in_company_as_alone(loop: asyncio.Runner, webs: tuple[Web, Web], mix: list[Ask]) -> None:
    together, alone = webs
    found = loop.run(together.together(mix))
    settled(together.server)
    known: dict[str, Seen] = {}
    for at, seen in zip([*range(len(mix)), *together.background], found, strict=True):
        ask = mix[at]
        if not is_fixed(ask):
            continue  # it may say anything
        key = json.dumps([ask.protocol, body(ask, MUSE)])
        wanted = known[key] = known.get(key) or loop.run(alone.alone(ask))
        try:
            _compare(ask, seen, wanted)
        except AssertionError as error:
            error.add_note(f"request {at} of the mix: {ask}\ntogether: {seen}\nalone: {wanted}")
            raise


def _compare(ask: Ask, seen: Seen, wanted: Seen) -> None:
    if _runs_on(ask) and seen.over and seen.refused and wanted.refused:
        assert wanted.refused[-1] in seen.refused  # the stored response tells less of an error than the stream
        return
    if seen.over:
        sights.same(seen, wanted)
        return
    assert ask.ends or _runs_on(ask)
    sights.beginning(seen, wanted)
