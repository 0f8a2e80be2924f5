"""daphne with what a server of token streams needs and daphne lacks (each point measured against 4.2.3).

- *Back-pressure*: ``send`` waits while the client does not read, so a stalled client holds 64 KiB, not all of it (what
  a model says meanwhile: ``inference.protocols.backlog``).
- *Body limit*: a body over the limit is answered with 413 without being kept; the rest is read and dropped, because a
  client that is still sending would see a reset instead of the answer.
- *Forms* are left to the application, which looks at the sender first.
- *Broken streams*: an exception after the first byte cuts the connection; daphne leaves it open for ever.
- *Errors in the shape of the path* also where no application ran (``lmx_site.http_channel``: where it is no HTTP).
- *Stop*: the caller's shutdown runs before anything is cancelled, and answers reach the socket before it closes.

daphne's ``http_timeout`` stays off: it counts from the start of a request and ends streams as if they were complete.
"""

from __future__ import annotations

import asyncio
import io
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Callable
from typing import Any, cast

from daphne.http_protocol import HTTPFactory, WebRequest
from daphne.server import Server, reactor  # first: it installs the asyncio reactor
from daphne.ws_protocol import WebSocketFactory
from twisted.internet import tcp
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.logger import ILogObserver, globalLogBeginner
from twisted.web.http import _GenericHTTPChannelProtocol
from zope.interface import implementer

from inference.errors import BodyTooLarge, InternalError, InvalidRequest, LmxError
from lmx_site.http_channel import Channel, refusal
from lmx_site.listen import SERVER_NAME
from lmx_site.policy import MAX_BODY_BYTES

logger = logging.getLogger(__name__)

DROP_LIMIT_BYTES = 256 * 1024 * 1024  # how much of a refused body is read for the sake of a proper answer
STALL_LIMIT_S = 300.0  # a client that reads nothing for so long is gone
FLUSH_S = 2.0
_QUANTUM_S = 0.02


@implementer(IPushProducer)
class Gate:
    """Open while the socket takes data. The transport closes and opens it; ``send`` waits at it."""

    def __init__(self) -> None:
        self._open = asyncio.Event()
        self._open.set()

    def pauseProducing(self) -> None:
        self._open.clear()

    def resumeProducing(self) -> None:
        self._open.set()

    def stopProducing(self) -> None:
        self._open.set()

    @property
    def closed(self) -> bool:
        return not self._open.is_set()

    async def wait(self) -> None:
        await self._open.wait()


class Request(WebRequest):
    """One HTTP request. ``gate`` exists from the first byte of the answer on."""

    gate: Gate | None = None
    _refused = False
    _received = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Twisted would take forms apart before anybody has asked who sent them: 32 MB of "a&" cost ten seconds.
        super().__init__(*args, **{**kwargs, "parsePOSTFormSubmission": False})

    # ---------------------------------------------------------------------------------------------------- receiving

    def gotLength(self, length: int | None) -> None:
        self.content = io.BytesIO()  # bounded, so no temporary file for every long prompt
        if length is not None and length > MAX_BODY_BYTES:
            self._refused = True
            if self.requestHeaders.hasHeader(b"Expect"):  # it asked before sending: answer now, and no 100
                self.requestHeaders.removeHeader(b"Expect")
                self._answer_raw()

    def handleContentChunk(self, data: bytes) -> None:
        self._received += len(data)
        if self._refused or self._received > MAX_BODY_BYTES:
            self._refused = True
            self.content = io.BytesIO()
            if self._received > DROP_LIMIT_BYTES:
                self._answer_raw()
            return
        self.content.write(data)

    def process(self) -> Any:
        self.channel.transport.setTcpKeepAlive(True)  # a client that vanished without a word is noticed in the end
        if self._refused:
            self.basic_error(413, b"Content Too Large", "the body is too large")
            return None
        return super().process()

    def _answer_raw(self) -> None:
        """Answer in the middle of the body and hang up: the parser has not handed the request over yet."""
        self.channel.refuse(_error_of(413, ""))

    # ------------------------------------------------------------------------------------------------------ sending

    def handle_reply(self, message: dict[str, Any]) -> None:
        starts = message["type"] == "http.response.start" and not self.finished and self.channel is not None
        if starts and self.gate is None:
            self.gate = Gate()
            self.registerProducer(self.gate, True)
        super().handle_reply(message)

    def finish(self) -> None:
        if self.gate is not None and self.producer is not None:
            self.unregisterProducer()
        super().finish()

    def connectionLost(self, reason: Any) -> None:
        if self.gate is not None:
            self.gate.stopProducing()
        super().connectionLost(reason)

    async def wait_writable(self) -> None:
        """Return when the client reads again; hang up on one that has stopped for ``STALL_LIMIT_S``."""
        if self.gate is None or not self.gate.closed:
            return
        try:
            async with asyncio.timeout(STALL_LIMIT_S):
                await self.gate.wait()
        except TimeoutError:
            logger.warning("a client read nothing for %.0f s; its connection is cut", STALL_LIMIT_S)
            self.abort()

    def abort(self) -> None:
        """Cut the connection so that nobody takes what was sent for a whole answer."""
        if self.channel is not None:
            self.channel.transport.abortConnection()

    def handle_exception(self, exception: BaseException) -> None:
        if self._response_started:
            self.abort()
        else:
            self.basic_error(500, b"Internal Server Error", "internal error")

    def basic_error(self, status: int, status_text: bytes, body: str) -> None:
        """An answer that no application made, in the shape of the path."""
        path = (self.path or b"/").decode("latin1")
        headers, content = refusal(_error_of(status, body), (self.method or b"?").decode("latin1"), path)
        self.handle_reply({"type": "http.response.start", "status": status, "headers": headers})
        self.handle_reply({"type": "http.response.body", "body": content})


def _error_of(status: int, text: str) -> LmxError:
    if status == 413:
        return BodyTooLarge(f"the body is larger than {MAX_BODY_BYTES:,} bytes")
    if status < 500:
        error = InvalidRequest(text)
        error.status = status
        return error
    return InternalError("something went wrong on the server; see its log")


class _Factory(HTTPFactory):
    def protocol(self) -> _GenericHTTPChannelProtocol:
        return _GenericHTTPChannelProtocol(Channel())

    def buildProtocol(self, addr: Any) -> Any:
        protocol = super().buildProtocol(addr)
        protocol.requestFactory = Request
        return protocol


class LmxServer(Server):
    """Serves ``application`` on a bound socket until a signal or ``stop()``.

    ``on_start`` runs on the loop when the reactor does; if it raises, the server stops and ``failure`` holds it.
    ``on_stop`` gets the tasks that answer HTTP requests and must leave none behind. A second signal ends the process
    at once.
    """

    def __init__(
        self,
        application: Any,
        listener: socket.socket,
        *,
        on_start: Callable[[], Awaitable[None]],
        on_stop: Callable[[list[asyncio.Task[Any]]], Awaitable[None]],
    ) -> None:
        super().__init__(application, endpoints=["bound"], signal_handlers=False, request_buffer_size=1024 * 1024)
        self.failure: BaseException | None = None
        self.connections: dict[Any, dict[str, Any]] = {}
        self._listener = listener
        self._on_start = on_start
        self._on_stop = on_stop
        self._stopping = False
        self._starting: asyncio.Task[None] | None = None

    def run(self) -> None:
        self.http_factory = _Factory(self)
        self.ws_factory = WebSocketFactory(self, server=None)
        self.ws_factory.setProtocolOptions(
            autoPingTimeout=self.ping_timeout,
            allowNullOrigin=True,  # lmx_site.edge judges origins
            openHandshakeTimeout=self.websocket_handshake_timeout,
            maxMessagePayloadSize=self.websocket_max_message_size,
            maxFramePayloadSize=self.websocket_max_frame_size,
        )
        self.server_name = SERVER_NAME
        globalLogBeginner.beginLoggingTo([cast("Any", _TwistedErrors())], redirectStandardIO=False, discardBuffer=True)
        loop = reactor._asyncioEventloop
        asyncio.set_event_loop(loop)
        reactor.callLater(1, self.application_checker)
        reactor.callLater(2, self.timeout_checker)
        reactor.callWhenRunning(self._begin)
        reactor.addSystemEventTrigger("before", "shutdown", self.kill_all_applications)
        reactor.run(installSignalHandlers=False)

    def _begin(self) -> None:
        loop = asyncio.get_event_loop()
        numbers = [signal.SIGTERM, signal.SIGINT]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup means to stay
            numbers.append(signal.SIGHUP)
        for number in numbers:
            loop.add_signal_handler(number, self._signalled, number)
        self._starting = loop.create_task(self._start(), name="server-start")

    async def _start(self) -> None:
        try:
            await self._on_start()
            self._listener.setblocking(False)
            reactor.adoptStreamPort(self._listener.fileno(), self._listener.family, self.http_factory)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self.failure = error
            self.stop()

    def _signalled(self, number: int) -> None:
        if self._stopping:
            os._exit(128 + number)  # workers end with their socket; the owner does not want to wait
        self.stop()

    def stop(self) -> None:
        if not self._stopping:
            self._stopping = True
            reactor.callLater(0, reactor.stop)

    def kill_all_applications(self) -> Any:
        """The reactor's ``before shutdown`` hook: everything ends here, in order, before the reactor goes on."""
        return Deferred.fromFuture(asyncio.ensure_future(self._shut_down()))

    async def _shut_down(self) -> None:
        try:
            if self._starting is not None and not self._starting.done():
                self._starting.cancel()
                await asyncio.wait([self._starting])
            await self._on_stop(self._answering())
            await _flush()
        except Exception:
            logger.exception("the server did not stop cleanly")

    def _answering(self) -> list[asyncio.Task[Any]]:
        tasks = [
            details.get("application_instance")
            for protocol, details in self.connections.items()
            if isinstance(protocol, Request)
        ]
        return [task for task in tasks if task is not None and not task.done()]

    async def handle_reply(self, protocol: Any, message: dict[str, Any]) -> None:
        await super().handle_reply(protocol, message)
        if isinstance(protocol, Request) and message["type"] == "http.response.body":
            await protocol.wait_writable()


async def _flush() -> None:
    """Close every connection once its last bytes are out; what a client does not take in time is dropped."""
    deadline = asyncio.get_running_loop().time() + FLUSH_S
    for connection in _connections():
        connection.loseConnection()
    # The reactor tells nobody when it drops a connection, so this looks.
    while _connections() and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(_QUANTUM_S)


def _connections() -> list[tcp.Server]:
    ours = {*reactor.getReaders(), *reactor.getWriters()}
    return [one for one in ours if isinstance(one, tcp.Server) and one.connected]


@implementer(ILogObserver)
class _TwistedErrors:
    """What Twisted could not handle goes to our log; its chatter does not."""

    def __call__(self, event: dict[str, Any]) -> None:
        failure = event.get("log_failure")
        if failure is not None:
            logger.error("twisted: %s", failure.getErrorMessage(), exc_info=failure.value)
