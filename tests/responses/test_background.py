"""Responses that run without their client: polled, followed, left, followed again, cancelled, deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from inference.api import deps
from inference.errors import ModelUnavailable
from inference.protocols.responses.background import Responses
from tests.api.conftest import Wire
from tests.api.conftest import wire as wire
from tests.api.fake_engine import FakeEngine, Script, finished, started, text
from tests.responses.conftest import RESPONSES, ResponsesApi, asking, ended, events_of

Open = Callable[[str, dict[str, Any]], Wire]


async def test_it_is_polled(api: ResponsesApi, engine: FakeEngine) -> None:
    gate = asyncio.Event()
    engine.scripts.append([[started()], [text("Hel")], gate, [text("lo"), finished()]])
    made = await api.create(background=True)
    assert (made["status"], made["output"], made["background"]) == ("queued", [], True)
    await engine.made.wait()
    while (await api.fetch(made["id"]))["status"] == "queued":
        await asyncio.sleep(0)
    assert (await api.fetch(made["id"]))["status"] == "in_progress"
    status, error = await api.refused(previous_response_id=made["id"])
    assert (status, error["param"]) == (400, "previous_response_id")
    gate.set()
    await ended(made["id"])
    answer = await api.fetch(made["id"])
    assert (answer["status"], answer["output"][0]["content"][0]["text"]) == ("completed", "Hello")
    assert (await api.create(previous_response_id=made["id"]))["status"] == "completed"


async def test_it_is_followed_left_and_followed_again(wire: Open, api: ResponsesApi, engine: FakeEngine) -> None:
    gate = asyncio.Event()
    engine.scripts.append([[started()], [text("Hel")], gate, [text("lo"), finished()]])
    client = wire(RESPONSES, asking(stream=True, background=True))
    await client.send()
    assert await client.start() == 200
    seen = b""
    while b'"Hel"' not in seen:
        seen += await client.chunk()
    await client.leave()
    events = events_of(seen)
    kinds = [event["type"].removeprefix("response.") for event in events]
    assert kinds[:3] == ["created", "queued", "in_progress"]
    response_id = events[0]["response"]["id"]
    assert not engine.generations[0].left.is_set()
    path = f"{RESPONSES}/{response_id}?stream=true"
    again = asyncio.create_task(api.send("GET", f"{path}&starting_after=2"))
    await asyncio.sleep(0)
    gate.set()
    rest = events_of((await again)[2], first=3)
    whole = events_of((await api.send("GET", path))[2])
    assert whole[: len(events)] == events
    assert whole[3:] == rest
    assert whole[-1]["type"] == "response.completed"
    assert await api.fetch(response_id) == whole[-1]["response"]
    assert events_of((await api.send("GET", f"{path}&starting_after=900"))[2], first=len(whole) - 1) == whole[-1:]


async def test_it_is_cancelled(api: ResponsesApi, engine: FakeEngine) -> None:
    engine.scripts.append([[started()], [text("Hel")], asyncio.Event()])
    made = await api.create(background=True, stream=None)
    await engine.made.wait()
    status, body = await api.post(f"{RESPONSES}/{made['id']}/cancel", {})
    assert (status, body["status"]) == (200, "cancelled")
    await asyncio.wait_for(engine.generations[0].left.wait(), 5)
    assert (await api.post(f"{RESPONSES}/{made['id']}/cancel", {}))[1] == body
    assert await api.fetch(made["id"]) == body


async def test_it_is_cancelled_before_it_began(api: ResponsesApi, engine: FakeEngine) -> None:
    engine.load_gate = asyncio.Event()
    status, _, content = await api.send("POST", RESPONSES, asking(background=True))
    response_id = content.split(b'"id":"')[1].split(b'"')[0].decode()
    assert status == 200
    assert (await api.post(f"{RESPONSES}/{response_id}/cancel", {}))[1]["status"] == "cancelled"


async def test_its_followers_are_told(wire: Open, api: ResponsesApi, engine: FakeEngine) -> None:
    engine.scripts.append([[started()], [text("Hel")], asyncio.Event()])
    client = wire(RESPONSES, asking(stream=True, background=True))
    await client.send()
    await client.start()
    seen = b""
    while b'"Hel"' not in seen:
        seen += await client.chunk()
    response_id = events_of(seen)[0]["response"]["id"]
    await api.post(f"{RESPONSES}/{response_id}/cancel", {})
    while b"event: response.incomplete" not in seen:
        seen += await client.chunk()
    last = events_of(seen)[-1]
    assert (last["type"], last["response"]["status"]) == ("response.incomplete", "cancelled")


async def test_only_background_responses_are_cancelled(api: ResponsesApi) -> None:
    made = await api.create()
    assert (await api.post(f"{RESPONSES}/{made['id']}/cancel", {}))[0] == 400
    assert (await api.post(f"{RESPONSES}/resp_nobody/cancel", {}))[0] == 404


async def test_one_that_fails_says_so(api: ResponsesApi, engine: FakeEngine) -> None:
    engine.scripts.append([ModelUnavailable("loading failed")])
    made = await api.create(background=True)
    await ended(made["id"])
    answer = await api.fetch(made["id"])
    assert answer["status"] == "failed"
    assert answer["error"] == {"code": "server_error", "message": "loading failed"}


async def test_a_model_that_is_not_there_is_refused_at_once(api: ResponsesApi) -> None:
    status, _ = await api.refused(background=True, model="nobody")
    assert status == 404


async def test_deleting_one_ends_it(api: ResponsesApi, engine: FakeEngine) -> None:
    engine.scripts.append([[started()], asyncio.Event()])
    made = await api.create(background=True)
    await engine.made.wait()
    assert (await api.send("DELETE", f"{RESPONSES}/{made['id']}"))[0] == 200
    await asyncio.wait_for(engine.generations[0].left.wait(), 5)
    assert (await api.get(f"{RESPONSES}/{made['id']}"))[0] == 404


async def test_what_was_not_streamed_cannot_be_streamed_again(api: ResponsesApi) -> None:
    for made in (await api.create(), await api.create(background=True)):
        await ended(made["id"])
        status, body = await api.get(f"{RESPONSES}/{made['id']}?stream=true")
        assert (status, body["error"]["param"]) == (400, "stream")
    status, body = await api.get(f"{RESPONSES}/{made['id']}?starting_after=1")
    assert (status, body["error"]["param"]) == (400, "starting_after")


async def test_there_is_a_bound(api: ResponsesApi, engine: FakeEngine) -> None:
    for bounded in (Responses(most_runs=1), Responses(most_bytes=20)):
        deps.configure(catalog=engine.catalog, responses=bounded)
        engine.scripts.append([[started()], asyncio.Event()])
        made = await api.create(background=True)
        status, error = await api.refused(background=True)
        assert (status, error["code"]) == (429, "rate_limit_exceeded")
        await api.post(f"{RESPONSES}/{made['id']}/cancel", {})
        assert (await api.create(background=True))["status"] == "queued"


async def test_cancelled_by_several_at_once(api: ResponsesApi, engine: FakeEngine) -> None:
    engine.scripts.append([[started()], asyncio.Event()])
    made = await api.create(background=True)
    await engine.made.wait()
    answers = await asyncio.gather(*(api.post(f"{RESPONSES}/{made['id']}/cancel", {}) for _ in range(5)))
    assert [(status, body["status"]) for status, body in answers] == [(200, "cancelled")] * 5


async def test_a_long_answer_is_replayed_from_anywhere(api: ResponsesApi, engine: FakeEngine) -> None:
    """Many blocks of events, some read from memory while it grows, all of them from the store afterwards."""
    gate = asyncio.Event()
    script: Script = [[started()]]
    script += [[text(f"word {number} " + "." * 300)] for number in range(500)]
    engine.scripts.append([*script, gate, [finished()]])
    made = asyncio.create_task(api.events(background=True))
    await engine.made.wait()
    response_id = engine.generations[0].record.id
    early = asyncio.create_task(api.send("GET", f"{RESPONSES}/{response_id}?stream=true&starting_after=300"))
    while engine.generations[0]._events:
        await asyncio.sleep(0)
    gate.set()
    whole = await made
    assert events_of((await early)[2], first=301) == whole[301:]
    for after in (0, 1, 150, 400, len(whole) - 2):
        again = await api.send("GET", f"{RESPONSES}/{response_id}?stream=true&starting_after={after}")
        assert events_of(again[2], first=after + 1) == whole[after + 1 :]


async def test_leaving_an_ordinary_stream_cancels_it(wire: Open, engine: FakeEngine) -> None:
    engine.scripts.append([[started()], [text("Hel")], asyncio.Event()])
    client = wire(RESPONSES, asking(stream=True))
    await client.send()
    await client.start()
    seen = b""
    while b'"Hel"' not in seen:
        seen += await client.chunk()
    await client.leave()
    await asyncio.wait_for(engine.generations[0].left.wait(), 5)
    assert engine.generations[0].cancelled_by == "client"
