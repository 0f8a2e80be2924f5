"""What the tests of Messages share: the API over the fake engine, and a strict check of all that it says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

import anthropic
import orjson
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from anthropic.types.shared import ErrorResponse

from tests.api.conftest import Api, straight_in
from tests.api.conftest import engine as engine
from tests.api.conftest import wire as wire
from tests.api.fake_engine import FakeEngine
from tests.conformance.strict import Allowance, check

MESSAGES = "/v1/messages"
COUNT = "/v1/messages/count_tokens"
PING = {"type": "ping"}
EXACTLY = Allowance()


def asking(content: Any = "Hi", /, **more: Any) -> dict[str, Any]:
    messages = more.pop("messages", None) or [{"role": "user", "content": content}]
    return {"model": "acme/tiny", "max_tokens": 64, "messages": messages, **more}


def events_of(content: bytes) -> list[dict[str, Any]]:
    """The events of a stream but pings, each strictly of the SDK's type; an error as it is."""
    found = []
    for frame in content.decode().split("\n\n"):
        if not frame or frame.startswith(":"):
            continue
        name, data = frame.split("\n")
        event = orjson.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        if event == PING:
            continue
        if event["type"] != "error":
            check(event, RawMessageStreamEvent, EXACTLY)
        found.append(event)
    return found


def check_order(events: list[dict[str, Any]]) -> None:
    """A message that starts, blocks that follow each other with consecutive numbers, its end."""
    kinds = [event["type"] for event in events]
    assert (kinds[0], kinds[-2:]) == ("message_start", ["message_delta", "message_stop"])
    opened: int | None = None
    following = 0
    for event in events[1:-2]:
        if event["type"] == "content_block_start":
            assert (opened, event["index"]) == (None, following)
            opened, following = following, following + 1
        else:
            assert event["index"] == opened
            opened = None if event["type"] == "content_block_stop" else opened
    assert opened is None


def gathered(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The content blocks that a client makes of the events."""
    blocks: list[dict[str, Any]] = []
    arguments = ""
    for event in events:
        if event["type"] == "content_block_start":
            blocks.append(dict(event["content_block"]))
            arguments = ""
        elif event["type"] == "content_block_delta":
            delta = event["delta"]
            if delta["type"] == "input_json_delta":
                arguments += delta["partial_json"]
            else:
                name = delta["type"].removesuffix("_delta")
                blocks[-1][name] += delta[name]
        elif event["type"] == "content_block_stop" and arguments:
            blocks[-1]["input"] = orjson.loads(arguments)
            arguments = ""
    return blocks


class MessagesApi(Api):
    """Asks for messages; each answer is checked against the SDK's types."""

    async def create(self, content: Any = "Hi", /, **more: Any) -> dict[str, Any]:
        status, body = await self.post(MESSAGES, asking(content, **more))
        assert status == 200, body
        check(body, Message, EXACTLY)
        return dict(body)

    async def events(self, content: Any = "Hi", /, **more: Any) -> list[dict[str, Any]]:
        status, headers, content = await self.send("POST", MESSAGES, asking(content, stream=True, **more))
        assert status == 200, content
        assert headers["content-type"] == "text/event-stream"
        return events_of(content)

    async def refused(self, content: Any = "Hi", /, **more: Any) -> tuple[int, dict[str, Any]]:
        status, body = await self.post(MESSAGES, asking(content, **more))
        assert status >= 400, body
        return status, check_error(body)


def check_error(body: Any) -> dict[str, Any]:
    """The error of an answer, strictly of the SDK's type but for ``details``, which the SDK reads all the same."""
    error = dict(body["error"])
    assert error["details"]["error_code"]
    plain = {name: value for name, value in error.items() if name != "details"}
    check({**body, "error": plain}, ErrorResponse, EXACTLY)
    return error


def created_at(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.fixture
def api(engine: FakeEngine) -> MessagesApi:
    return MessagesApi()


@pytest.fixture
async def sdk(engine: FakeEngine) -> AsyncIterator[anthropic.AsyncAnthropic]:
    """The official client, straight into the application."""
    async with straight_in() as http:
        yield anthropic.AsyncAnthropic(api_key="bot-3", base_url=str(http.base_url), http_client=http, max_retries=0)
