"""The real Django application over a fake engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx2
import openai
import orjson
import pytest
from asgiref.testing import ApplicationCommunicator
from django.core.handlers.asgi import ASGIHandler

from inference.api import deps
from inference.engine import set_engine
from tests.api.fake_engine import FakeEngine, small_catalog

HOST = "127.0.0.1:1234"
CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    catalog = small_catalog()
    found = FakeEngine(catalog)
    set_engine(found)
    deps.configure(catalog=catalog)
    yield found
    deps.configure()
    set_engine(None)


def straight_in(path: str = "") -> httpx2.AsyncClient:
    """A client whose requests go straight into the application, to below ``path``."""
    transport = httpx2.ASGITransport(app=ASGIHandler())  # type: ignore[arg-type]
    return httpx2.AsyncClient(transport=transport, base_url=f"http://{HOST}{path}")


class Api:
    """Asks the application as a client would; answers are ``(status, headers, body)``."""

    def __init__(self) -> None:
        self._http = straight_in()

    async def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        raw: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, Any, bytes]:
        data = raw if raw is not None else b"" if body is None else orjson.dumps(body)
        sent = {"content-type": "application/json", **(headers or {})}
        response = await self._http.request(method, path, content=data, headers=sent)
        return response.status_code, response.headers, response.content

    async def get(self, path: str) -> tuple[int, Any]:
        status, _, content = await self.send("GET", path)
        return status, orjson.loads(content)

    async def post(self, path: str, body: Any) -> tuple[int, Any]:
        status, _, content = await self.send("POST", path, body)
        return status, orjson.loads(content)

    async def stream(self, path: str, body: dict[str, Any]) -> list[Any]:
        """The payloads of a streamed answer, in order; ``[DONE]`` as text."""
        status, _, content = await self.send("POST", path, {**body, "stream": True})
        assert status == 200, content
        return payloads(content)


def payloads(content: bytes) -> list[Any]:
    frames = [frame for frame in content.decode().split("\n\n") if frame and not frame.startswith(":")]
    assert all(frame.startswith("data: ") for frame in frames)
    return [text if text == "[DONE]" else orjson.loads(text) for text in (frame[6:] for frame in frames)]


def chat(**more: Any) -> dict[str, Any]:
    return {"model": "acme/tiny", "messages": [{"role": "user", "content": "Hi"}], **more}


@pytest.fixture
def api(engine: FakeEngine) -> Api:
    return Api()


@pytest.fixture
async def sdk(engine: FakeEngine) -> AsyncIterator[openai.AsyncOpenAI]:
    """The official client, straight into the application."""
    async with straight_in("/v1") as http:
        yield openai.AsyncOpenAI(api_key="bot-3", base_url=str(http.base_url), http_client=http, max_retries=0)


class Wire:
    """One request at the level of ASGI messages, where a client can leave in the middle."""

    def __init__(self, path: str, body: dict[str, Any]) -> None:
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(b"host", HOST.encode()), (b"content-type", b"application/json")],
            "client": ("127.0.0.1", 50000),
            "server": ("127.0.0.1", 1234),
        }
        self._app = ApplicationCommunicator(ASGIHandler(), scope)
        self._body = orjson.dumps(body)

    async def send(self) -> None:
        await self._app.send_input({"type": "http.request", "body": self._body, "more_body": False})

    async def start(self) -> int:
        message = await self._app.receive_output(10)
        assert message["type"] == "http.response.start"
        return int(message["status"])

    async def chunk(self) -> bytes:
        message = await self._app.receive_output(10)
        return bytes(message["body"])

    async def leave(self) -> None:
        await self._app.send_input({"type": "http.disconnect"})
        await self._app.wait(10)


@pytest.fixture
async def wire(engine: FakeEngine) -> AsyncIterator[Callable[[str, dict[str, Any]], Wire]]:
    opened: list[Wire] = []

    def open_wire(path: str, body: dict[str, Any]) -> Wire:
        opened.append(Wire(path, body))
        return opened[-1]

    yield open_wire
    for one in opened:
        one._app.stop(exceptions=False)
    await asyncio.sleep(0)
