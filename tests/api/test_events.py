"""``GET /admin/events`` over the real hub."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from django.http import HttpRequest, StreamingHttpResponse

from inference.api import deps
from inference.api.events import events_response
from inference.errors import InvalidRequest, ModelUnavailable
from monitoring.hub import Hub


@pytest.fixture
def hub() -> Iterator[Hub]:
    found = Hub(first_seq=100)
    deps.configure(events=found)
    yield found
    deps.configure()


async def opened(since: int | None = None, last: str | None = None) -> AsyncIterator[bytes]:
    request = HttpRequest()
    if last is not None:
        request.META["HTTP_LAST_EVENT_ID"] = last
    response = await events_response(request, since)
    assert isinstance(response, StreamingHttpResponse)
    assert response["Content-Type"] == "text/event-stream"
    frames = aiter(response)
    assert await anext(frames) == b": listening\n\n"
    return frames


async def test_it_works(hub: Hub) -> None:
    frames = await opened(since=0)
    hub.emit("model.loaded", model="acme/tiny")
    frame = await anext(frames)
    assert frame.startswith(b"id: 101\nevent: model.loaded\ndata: {")
    assert b'"model":"acme/tiny"' in frame
    assert frame.endswith(b"}\n\n")


async def test_a_client_resumes_where_it_stopped(hub: Hub) -> None:
    for number in range(3):
        hub.emit("tick", number=number)
    assert (await anext(await opened(since=102))).count(b"id: ") == 1
    assert (await anext(await opened(since=0, last="101"))).count(b"id: ") == 2


async def test_a_client_is_told_of_a_gap(hub: Hub) -> None:
    hub.emit("tick")
    assert (await anext(await opened(last="7"))).startswith(b"id: 100\nevent: gap\ndata: null\n\n")


async def test_leaving_ends_the_subscription(hub: Hub) -> None:
    frames = await opened()
    assert hub._subscriptions
    await frames.aclose()  # type: ignore[attr-defined]
    for _ in range(10):  # the loop closes what Django's wrapper has dropped
        await asyncio.sleep(0)
    assert not hub._subscriptions


async def test_a_subscription_that_ends_ends_the_stream(hub: Hub) -> None:
    frames = await opened()
    for subscription in list(hub._subscriptions):
        subscription.close()
    assert [frame async for frame in frames] == []


async def test_what_is_refused(hub: Hub) -> None:
    for wrong in ("abc", "-1", "9" * 30):
        with pytest.raises(InvalidRequest):
            await opened(last=wrong)
    deps.configure()
    with pytest.raises(ModelUnavailable):
        await opened()
