"""The websocket at ``/ws``: a page says which topics it shows and is told what is so, then what changes.

The page sends ``{"type": "subscribe", "topics": [...], "since": {...}, "visible": true}`` first, acknowledges every
batch with ``{"type": "ack", "n": n}`` and says ``{"type": "visible", "visible": false}`` when its tab is hidden. The
server sends ``{"n": n, "frames": [...]}`` (``monitoring.hub.Frame.data``). After two batches without an answer nothing
more is sent, and after 30 seconds of that the socket is closed (4408); the page connects again and catches up.

Who may connect is decided by the site's ASGI wrapper (host, origin, ``scope["principal"]``); a scope without an admin
principal is refused here as well.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec
from channels.generic.websocket import AsyncWebsocketConsumer

from inference.principal import Principal
from monitoring.hub import MAX_TOPICS, Frame, Subscription, get_hub

log = logging.getLogger(__name__)

UNACKNOWLEDGED = 2
STALL_S = 30.0
MAX_MESSAGE = 16_384
FORBIDDEN, BAD_MESSAGE, STALLED, GOING_AWAY = 4403, 4400, 4408, 1001


class ClientMessage(msgspec.Struct, tag_field="type"):
    """Base of what a page may send."""


class Subscribe(ClientMessage, tag="subscribe"):
    topics: list[str]
    since: dict[str, int] = {}
    visible: bool = True


class Ack(ClientMessage, tag="ack"):
    n: int


class Visible(ClientMessage, tag="visible"):
    visible: bool


_decode = msgspec.json.Decoder(Subscribe | Ack | Visible).decode


class LiveConsumer(AsyncWebsocketConsumer):
    """One page. Its sending task is the only one to send batches."""

    stall_s = STALL_S

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._subscription: Subscription | None = None
        self._sender: asyncio.Task[None] | None = None
        self._answered = asyncio.Event()
        self._sent = 0
        self._acknowledged = 0

    async def connect(self) -> None:
        principal = self.scope.get("principal")
        if not isinstance(principal, Principal) or not principal.may("admin"):
            await self.close(FORBIDDEN)
            return
        await self.accept()

    async def disconnect(self, code: int) -> None:
        await self._end()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        message = _parse(text_data)
        if isinstance(message, Subscribe) and len(message.topics) <= MAX_TOPICS:
            await self._subscribe(message)
        elif isinstance(message, Ack):
            self._acknowledged = max(self._acknowledged, min(message.n, self._sent))
            self._answered.set()
        elif isinstance(message, Visible):
            self._show(message.visible)
        else:
            await self.close(BAD_MESSAGE)

    async def _subscribe(self, message: Subscribe) -> None:
        await self._end()
        self._sent = self._acknowledged = 0
        try:
            self._subscription = get_hub().subscribe(message.topics, message.since)
        except RuntimeError:  # the server is stopping
            await self.close(GOING_AWAY)
            return
        self._show(message.visible)
        self._sender = asyncio.create_task(self._send_all(self._subscription), name="websocket-sender")

    def _show(self, visible: bool) -> None:
        if self._subscription is None:
            return
        if visible:
            self._subscription.resume()
        else:
            self._subscription.pause()

    async def _send_all(self, subscription: Subscription) -> None:
        async for frames in subscription:
            self._sent += 1
            await self.send(text_data=batch(self._sent, frames))
            if not await self._caught_up():
                await self.close(STALLED)
                return

    async def _caught_up(self) -> bool:
        """Wait until fewer than two batches are unanswered; False when the page does not answer in time."""
        try:
            async with asyncio.timeout(self.stall_s):
                while self._sent - self._acknowledged >= UNACKNOWLEDGED:
                    self._answered.clear()
                    await self._answered.wait()
        except TimeoutError:
            return False
        return True

    async def _end(self) -> None:
        """Stop sending. The task is awaited, so that nothing of an old subscription is sent after a new one began."""
        if self._subscription is not None:
            self._subscription.close()
        task, self._sender, self._subscription = self._sender, None, None
        if task is not None and task is not asyncio.current_task():
            task.cancel()
            await asyncio.wait({task})
            if not task.cancelled() and (error := task.exception()) is not None:
                log.warning("a page's live data ended: %s", error)


def batch(n: int, frames: list[Frame]) -> str:
    """A batch of frames that were turned into JSON once, for all pages."""
    return (b'{"n":%d,"frames":[%s]}' % (n, b",".join(frame.data for frame in frames))).decode()


def _parse(text: str | None) -> ClientMessage | None:
    if text is None or len(text) > MAX_MESSAGE:
        return None
    try:
        message: ClientMessage = _decode(text)
    except msgspec.MsgspecError:
        return None
    return message
