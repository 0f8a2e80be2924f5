"""The websocket: snapshot, deltas, gaps, acknowledgements, and who is refused."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from channels.testing import WebsocketCommunicator

from inference.principal import Principal
from monitoring.consumers import BAD_MESSAGE, FORBIDDEN, GOING_AWAY, STALLED, LiveConsumer
from monitoring.hub import Hub, set_hub
from tests.monitoring.fakes import BOT, OWNER

# The consumer itself opens no database, but channels looks after connections that earlier tests left in its thread.
pytestmark = pytest.mark.django_db(databases=["default", "telemetry"])

Connect = Callable[..., Any]


@pytest.fixture
def hub() -> Any:
    hub = Hub(interval_s=0.0)
    set_hub(hub)
    yield hub
    set_hub(None)


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    opened: list[WebsocketCommunicator] = []

    async def opening(
        principal: Principal | None = OWNER, consumer: type[LiveConsumer] = LiveConsumer
    ) -> WebsocketCommunicator | None:
        communicator = WebsocketCommunicator(consumer.as_asgi(), "/ws")
        communicator.scope["principal"] = principal  # type: ignore[typeddict-unknown-key]
        opened.append(communicator)
        connected, code = await communicator.connect(timeout=5)
        assert connected or code == FORBIDDEN
        return communicator if connected else None

    yield opening
    for communicator in opened:
        await communicator.disconnect()


class Impatient(LiveConsumer):
    stall_s = 0.05


async def subscribe(page: WebsocketCommunicator, *topics: str, **fields: Any) -> None:
    await page.send_json_to({"type": "subscribe", "topics": topics, **fields})


async def receive(page: WebsocketCommunicator, *, ack: bool = True) -> list[dict[str, Any]]:
    message = await page.receive_json_from(timeout=5)
    if ack:
        await page.send_json_to({"type": "ack", "n": message["n"]})
    return list(message["frames"])


async def test_it_works(hub: Hub, connect: Connect) -> None:
    hub.publish("memory", {"used": 1})
    page = await connect()
    await subscribe(page, "memory", "events")
    assert await receive(page) == [{"type": "state", "topic": "memory", "data": {"used": 1}}]
    hub.publish("memory", {"used": 2})
    assert await receive(page) == [{"type": "state", "topic": "memory", "data": {"used": 2}}]
    hub.emit("model.loaded", model="one")
    (frame,) = await receive(page)
    assert (frame["type"], frame["data"]["kind"], frame["data"]["model"]) == ("log", "model.loaded", "one")


@pytest.mark.parametrize("principal", [None, BOT])
async def test_it_is_for_the_owner_only(hub: Hub, connect: Connect, principal: Principal | None) -> None:
    assert await connect(principal) is None


@pytest.mark.parametrize(
    "message",
    [
        "not json",
        "[]",
        '{"type": "delete"}',
        '{"type": "subscribe"}',
        '{"type": "subscribe", "topics": [1]}',
        '{"type": "ack", "n": "one"}',
        json.dumps({"type": "subscribe", "topics": [str(n) for n in range(33)]}),
        json.dumps({"type": "subscribe", "topics": ["x" * 20_000]}),
    ],
)
async def test_nonsense_closes_the_socket(hub: Hub, connect: Connect, message: str) -> None:
    page = await connect()
    await page.send_to(text_data=message)
    assert await page.receive_output(timeout=5) == {"type": "websocket.close", "code": BAD_MESSAGE}


async def test_bytes_close_the_socket(hub: Hub, connect: Connect) -> None:
    page = await connect()
    await page.send_to(bytes_data=b"\xff")
    assert (await page.receive_output(timeout=5))["code"] == BAD_MESSAGE


async def test_two_unanswered_batches_stop_the_sending(hub: Hub, connect: Connect) -> None:
    page = await connect()
    hub.publish("memory", 0)
    await subscribe(page, "memory")
    await receive(page, ack=False)
    hub.publish("memory", 1)
    last = await page.receive_json_from(timeout=5)
    for value in range(2, 50):
        hub.publish("memory", value)
    assert await page.receive_nothing(timeout=0.1)
    await page.send_json_to({"type": "ack", "n": last["n"]})
    assert await receive(page) == [{"type": "state", "topic": "memory", "data": 49}]


async def test_a_page_that_does_not_answer_is_closed(hub: Hub, connect: Connect) -> None:
    page = await connect(consumer=Impatient)
    hub.publish("memory", 0)
    await subscribe(page, "memory")
    await receive(page, ack=False)
    hub.publish("memory", 1)
    await receive(page, ack=False)
    assert await page.receive_output(timeout=5) == {"type": "websocket.close", "code": STALLED}
    await page.disconnect()
    assert not hub._subscriptions


async def test_a_later_page_is_told_what_it_missed(hub: Hub, connect: Connect) -> None:
    first = hub.append("events", {"kind": "one"})
    hub.append("events", {"kind": "two"})
    page = await connect()
    await subscribe(page, "events", since={"events": first})
    assert [frame["data"]["kind"] for frame in await receive(page)] == ["two"]


async def test_a_gap_is_told(connect: Connect) -> None:
    hub = Hub(log_entries=2)
    set_hub(hub)
    for number in range(5):
        hub.append("events", {"n": number})
    page = await connect()
    await subscribe(page, "events", since={"events": 7})
    assert [frame["type"] for frame in await receive(page)] == ["gap", "log", "log"]
    set_hub(None)


async def test_a_hidden_page_gets_nothing_and_catches_up(hub: Hub, connect: Connect) -> None:
    page = await connect()
    hub.publish("memory", 1)
    await subscribe(page, "memory")
    await receive(page)
    await page.send_json_to({"type": "visible", "visible": False})
    assert await page.receive_nothing(timeout=0.1)
    hub.publish("memory", 2)
    hub.publish("memory", 3)
    assert await page.receive_nothing(timeout=0.1)
    await page.send_json_to({"type": "visible", "visible": True})
    assert [frame["data"] for frame in await receive(page)] == [3]


async def test_subscribing_again_replaces_the_topics(hub: Hub, connect: Connect) -> None:
    hub.publish("memory", 1)
    hub.publish("status", 2)
    page = await connect()
    await subscribe(page, "memory")
    await receive(page)
    await subscribe(page, "status")
    assert [frame["topic"] for frame in await receive(page)] == ["status"]
    assert len(hub._subscriptions) == 1


async def test_a_server_that_stops_says_so(connect: Connect) -> None:
    page = await connect()
    await subscribe(page, "memory")
    assert await page.receive_output(timeout=5) == {"type": "websocket.close", "code": GOING_AWAY}


async def test_leaving_forgets_the_subscription(hub: Hub, connect: Connect) -> None:
    page = await connect()
    await subscribe(page, "memory")
    hub.publish("memory", 1)
    await receive(page)
    await page.disconnect()
    assert not hub._subscriptions
