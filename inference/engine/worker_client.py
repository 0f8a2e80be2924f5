"""A model worker as the web process sees it: typed commands out, events sorted to whom they belong.

Nothing here awaits on the path of a token: a frame is decoded once and each event goes to the function registered for
its request. A worker's death reaches every open request as ``Failed(worker_died)`` and every open question as
``WorkerDied``, in the same turn of the loop that noticed it.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Callable, Mapping
from typing import Any, Self, TypeVar

from inference import ipc
from inference.engine.child import Child, ChildExit, Heartbeat
from inference.errors import InternalError, LmxError, ModelUnavailable, WorkerDied, from_code

EventT = TypeVar("EventT", bound=ipc.Event)
Sink = Callable[[ipc.RequestEvent], None]
_TERMINATE_S = 5.0


def ping_frame(nonce: int) -> bytes:
    return ipc.encode_frame([ipc.Ping(nonce)])


def _fail(future: asyncio.Future[Any], error: LmxError) -> None:
    """Set an exception that nobody has to fetch: the one who asked may be gone."""
    future.set_exception(error)
    future.exception()


class WorkerClient:
    """One worker process. ``on_exit`` is called once, right before its open requests are told of its death."""

    def __init__(
        self,
        name: str,
        *,
        on_exit: Callable[[WorkerClient, ChildExit], None],
        on_progress: Callable[[ipc.LoadProgress], None] | None = None,
        on_log: Callable[[ipc.Log], None] | None = None,
    ) -> None:
        self.name = name
        self.child: Child
        self.stats: ipc.Stats | None = None
        self.versions: dict[str, str] = {}
        self.step = 0
        self._on_exit = on_exit
        self._on_progress = on_progress
        self._on_log = on_log
        self._sinks: dict[str, Sink] = {}
        self._replies: dict[str, asyncio.Future[Any]] = {}
        self._hello: asyncio.Future[ipc.Hello] = asyncio.get_running_loop().create_future()
        self._loaded: asyncio.Future[ipc.Loaded] | None = None
        self._numbers = itertools.count(1)
        self._handlers: dict[type[ipc.Event], Callable[[Any], None]] = {
            ipc.Hello: self._take_hello,
            ipc.LoadProgress: self._take_progress,
            ipc.Loaded: self._take_loaded,
            ipc.LoadFailed: self._take_load_failed,
            ipc.Stats: self._take_stats,
            ipc.Log: self._take_log,
            ipc.Pong: self._take_pong,
            ipc.Drained: self._take_drained,
        }

    @classmethod
    async def spawn(
        cls,
        name: str,
        *,
        on_exit: Callable[[WorkerClient, ChildExit], None],
        on_progress: Callable[[ipc.LoadProgress], None] | None = None,
        on_log: Callable[[ipc.Log], None] | None = None,
        env: Mapping[str, str] | None = None,
        heartbeat_s: float = 1.0,
        heartbeat_misses: int = 15,
    ) -> Self:
        """Start a worker program. Raises ``OSError`` when the machine cannot start a process."""
        client = cls(name, on_exit=on_exit, on_progress=on_progress, on_log=on_log)
        client.child = await Child.spawn(
            [sys.executable, "-m", "inference.worker", "--fd", "{fd}"],
            name=f"worker {name}",
            on_frame=client._take_frame,
            on_exit=client._take_exit,
            env=env,
            heartbeat=Heartbeat(ping_frame, heartbeat_s, heartbeat_misses),
        )
        return client

    @property
    def pid(self) -> int:
        return self.child.pid

    def next_key(self) -> str:
        """A short request id: it travels with every token."""
        return f"r{next(self._numbers)}"

    # --------------------------------------------------------------------------------------------------- commands

    async def load(self, command: ipc.Load) -> ipc.Loaded:
        """Wait for hello, load, and return what was loaded. Raises ``LmxError``; ``WorkerDied`` when it died."""
        hello = await asyncio.shield(self._hello)
        if hello.protocol != ipc.PROTOCOL_VERSION:
            raise ModelUnavailable(f"the worker speaks protocol {hello.protocol}, this server {ipc.PROTOCOL_VERSION}")
        self._loaded = asyncio.get_running_loop().create_future()
        if not self.child.alive:
            raise self._died()
        self._send(command)
        return await self._loaded

    async def prepare(self, key: str, body: ipc.GenerateRequest) -> ipc.Prepared:
        """Template and count. A caller that is cancelled leaves nothing behind in the worker."""
        return await self._ask(ipc.Prepare(key, body), ipc.Prepared)

    def start(self, key: str, max_tokens: int, sink: Sink) -> None:
        """Run a prepared request; its events go to ``sink`` until ``forget``. A dead worker answers ``Failed``."""
        self._sinks[key] = sink
        if self.child.alive:
            self._send(ipc.Start(key, max_tokens))
        else:
            sink(ipc.Failed(key, WorkerDied.code, self._died().message))

    def cancel(self, key: str) -> None:
        self._send(ipc.Cancel(key))

    def forget(self, key: str) -> None:
        """Its last event has come."""
        self._sinks.pop(key, None)

    async def tokenize(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return (await self._ask(ipc.Tokenize(self.next_key(), text, add_special_tokens), ipc.Tokens)).token_ids

    async def tokens(self, prompt: str | ipc.GenerateRequest, add_special_tokens: bool) -> ipc.Tokens:
        text, body = (prompt, None) if isinstance(prompt, str) else ("", prompt)
        return await self._ask(ipc.Tokenize(self.next_key(), text, add_special_tokens, body, True), ipc.Tokens)

    async def detokenize(self, token_ids: list[int]) -> str:
        return (await self._ask(ipc.Detokenize(self.next_key(), token_ids), ipc.Text)).text

    async def count(self, body: ipc.GenerateRequest) -> int:
        return (await self._ask(ipc.Count(self.next_key(), body), ipc.Counted)).prompt_tokens

    async def embed(self, inputs: list[str | list[int]], dimensions: int | None = None) -> ipc.Embedded:
        return await self._ask(ipc.Embed(self.next_key(), inputs, dimensions), ipc.Embedded)

    async def save_cache(self, directory: str) -> int:
        return (await self._ask(ipc.SaveCache(self.next_key(), directory), ipc.CacheSaved)).bytes

    def set_limits(self, limits: ipc.SetLimits) -> None:
        self._send(limits)

    async def close(self, drain_s: float, save_s: float = 0.0) -> None:
        """Let what runs finish for ``drain_s``, then end the process by all means; return when it is gone.

        In between it may write its prefix cache to disk for ``save_s``.
        """
        self.child.expect_exit()
        self._send(ipc.Drain(drain_s, save_s))
        try:
            async with asyncio.timeout(drain_s + save_s + _TERMINATE_S):
                await self.child.wait()
        except TimeoutError:
            await self.child.stop(_TERMINATE_S)

    async def kill(self) -> None:
        self.child.kill()
        await self.child.wait()

    def _send(self, command: ipc.Command) -> None:
        self.child.send(ipc.encode_frame([command]))

    async def _ask(self, command: Any, answer: type[EventT]) -> EventT:
        """Send a command that is answered once. Cancels it in the worker when the caller goes."""
        if not self.child.alive:
            raise self._died()
        key: str = command.request
        reply = self._replies[key] = asyncio.get_running_loop().create_future()
        try:
            self._send(command)
            event = await reply
        except asyncio.CancelledError:
            self.cancel(key)
            raise
        finally:
            self._replies.pop(key, None)
        if not isinstance(event, answer):
            raise InternalError(f"the worker answered {type(command).__name__} with {type(event).__name__}")
        return event

    # ----------------------------------------------------------------------------------------------------- events

    def _take_frame(self, body: bytes) -> None:
        sinks = self._sinks
        for event in ipc.decode_events(body):
            if isinstance(event, ipc.RequestEvent):
                sink = sinks.get(event.request)
                if sink is not None:
                    sink(event)
                else:
                    self._take_reply(event)
            else:
                self._handlers[type(event)](event)

    def _take_reply(self, event: ipc.RequestEvent) -> None:
        reply = self._replies.get(event.request)
        if reply is None or reply.done():
            return
        if isinstance(event, ipc.Failed):
            _fail(reply, from_code(event.code, event.message, event.param, event.details))
        else:
            reply.set_result(event)

    def _take_hello(self, event: ipc.Hello) -> None:
        self.versions = event.versions
        if not self._hello.done():
            self._hello.set_result(event)

    def _take_progress(self, event: ipc.LoadProgress) -> None:
        if self._on_progress is not None:
            self._on_progress(event)

    def _take_loaded(self, event: ipc.Loaded) -> None:
        if self._loaded is not None and not self._loaded.done():
            self._loaded.set_result(event)

    def _take_load_failed(self, event: ipc.LoadFailed) -> None:
        self.child.expect_exit()
        if self._loaded is not None and not self._loaded.done():
            _fail(self._loaded, from_code(event.code, event.message))

    def _take_stats(self, event: ipc.Stats) -> None:
        self.stats = event
        self.step = max(self.step, event.step)

    def _take_log(self, event: ipc.Log) -> None:
        if self._on_log is not None:
            self._on_log(event)

    def _take_pong(self, event: ipc.Pong) -> None:
        self.step = max(self.step, event.step)

    def _take_drained(self, event: ipc.Drained) -> None:
        self.child.expect_exit()

    def _take_exit(self, death: ChildExit) -> None:
        self._on_exit(self, death)
        error = self._died()
        for key, sink in list(self._sinks.items()):
            sink(ipc.Failed(key, error.code, error.message))
        for future in (self._hello, self._loaded, *self._replies.values()):
            if future is not None and not future.done():
                _fail(future, error)

    def _died(self) -> LmxError:
        death = self.child.death
        if death is not None and death.wanted:
            return ModelUnavailable(f"{self.name} was unloaded", retry_after=1)
        cause = death.cause if death is not None else "it ended"
        return WorkerDied(f"the process of {self.name} died: {cause}", retry_after=1)
