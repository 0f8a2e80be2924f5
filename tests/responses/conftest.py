"""What the tests of Responses share: the API over the fake engine, and a strict check of all that it says."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from openai.types.responses import Response, ResponseStreamEvent

from inference.api import deps
from tests.api.conftest import Api
from tests.api.conftest import engine as engine
from tests.api.conftest import sdk as sdk
from tests.api.fake_engine import FakeEngine
from tests.conformance.strict import Allowance, check

RESPONSES = "/v1/responses"
EXACTLY = Allowance()


def asking(content: Any = "Hi", /, **more: Any) -> dict[str, Any]:
    return {"model": "acme/tiny", "input": content, **more}


def events_of(content: bytes, first: int = 0) -> list[dict[str, Any]]:
    """The events of a stream, each strictly of the SDK's type, numbered from ``first`` on."""
    found = []
    for frame in content.decode().split("\n\n"):
        if frame and not frame.startswith(":"):
            name, data = frame.split("\n")
            event = orjson.loads(data.removeprefix("data: "))
            assert name == f"event: {event['type']}"
            check(event, ResponseStreamEvent, EXACTLY)
            found.append(event)
    assert [event["sequence_number"] for event in found] == list(range(first, first + len(found)))
    return found


class ResponsesApi(Api):
    """Asks for responses; each answer is checked against the SDK's types."""

    async def create(self, content: Any = "Hi", /, **more: Any) -> dict[str, Any]:
        status, body = await self.post(RESPONSES, asking(content, **more))
        assert status == 200, body
        check(body, Response, EXACTLY)
        return dict(body)

    async def events(self, content: Any = "Hi", /, **more: Any) -> list[dict[str, Any]]:
        status, _, content = await self.send("POST", RESPONSES, asking(content, stream=True, **more))
        assert status == 200, content
        return events_of(content)

    async def refused(self, content: Any = "Hi", /, **more: Any) -> tuple[int, dict[str, Any]]:
        status, body = await self.post(RESPONSES, asking(content, **more))
        return status, body["error"]

    async def fetch(self, response_id: str) -> dict[str, Any]:
        status, body = await self.get(f"{RESPONSES}/{response_id}")
        assert status == 200, body
        check(body, Response, EXACTLY)
        return dict(body)


async def ended(response_id: str) -> None:
    """Wait until a background response runs no more."""
    run = deps.responses().running(response_id, "owner")
    if run is not None:
        await asyncio.wait({run.task})


@pytest.fixture
def api(engine: FakeEngine) -> ResponsesApi:
    return ResponsesApi()
