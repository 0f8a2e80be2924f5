"""``HubClient``: the server's side of asking the Hub. Bounded in number and time, cached a short while, off the loop.

One child process (``hub_worker``) answers; it is started by the first question and ends when none came for a while.
Who asks the same at the same time shares one question; one that nobody waits for any more is not sent, or not waited
for.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from inference.engine.child import Child, ChildExit
from inference.errors import (
    Forbidden,
    LmxError,
    ModelNotFound,
    ModelUnavailable,
    NotFound,
    TooManyRequests,
)
from models_admin.hub_protocol import Answer, Ask, Refused, decode_reply, encode

log = logging.getLogger(__name__)

PROGRAM = "models_admin.hub_worker"
AT_ONCE = 6
WAITING = 200
DEADLINE_S = 20.0
IDLE_S = 120.0
_UNREACHABLE_S = 2.0
"""How long one failure to reach the Hub answers for the questions after it."""

_KEPT_BYTES = 8 << 20
"""Of answers, all together."""

_REFUSALS: dict[str, Callable[..., LmxError]] = {
    "model_not_found": ModelNotFound,
    "revision_not_found": NotFound,
    "file_not_found": NotFound,
    "model_gated": Forbidden,
    "hub_unreachable": ModelUnavailable,
    "hub_error": ModelUnavailable,
    "rate_limit_exceeded": TooManyRequests,
}
_PARAMS = {"model_not_found": "model_id", "model_gated": "model_id", "revision_not_found": "revision"}


@dataclass
class _Question:
    """``sent``: the Hub is asked already, so its answer is taken even if nobody waits: somebody may ask again."""

    task: asyncio.Task[Answer] | None = None
    waiting: int = 0
    sent: bool = False


@dataclass
class _Pause:
    """Until when nothing is asked, and what is answered in its place."""

    until: float = 0.0
    refused: Refused = field(default_factory=lambda: Refused(0, "", ""))


class HubClient:
    """All methods belong to the event loop. ``program`` is the module that answers; times in seconds."""

    def __init__(self, *, program: str = PROGRAM, deadline_s: float = DEADLINE_S, idle_s: float = IDLE_S) -> None:
        self._program, self._deadline_s, self._idle_s = program, deadline_s, idle_s
        self._kept: OrderedDict[str, tuple[float, Answer]] = OrderedDict()
        self._kept_bytes = 0
        self._open: dict[str, _Question] = {}
        self._places = asyncio.Semaphore(AT_ONCE)
        self._starting = asyncio.Lock()
        self._child: Child | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._replies: dict[int, asyncio.Future[Answer | Refused]] = {}
        self._number = 0
        self._pause = _Pause()
        self._idle: asyncio.TimerHandle | None = None
        self._stopped = False

    async def ask(self, what: str, params: dict[str, Any], *, keep_s: float) -> dict[str, Any]:
        """The answer, which may be ``keep_s`` old. Raises ``LmxError``; see ``inference.finding.Finder``."""
        key = f"{what} {msgspec.json.encode(params, order='sorted').decode()}"
        kept = self._kept.get(key)
        if kept is not None and kept[0] > time.monotonic():
            self._kept.move_to_end(key)
            return kept[1].read()
        question = self._open.get(key) or self._begin(key, what, params, keep_s)
        task = question.task
        assert task is not None
        question.waiting += 1
        try:
            return (await asyncio.shield(task)).read()
        except asyncio.CancelledError:
            if task.cancelled():
                raise ModelUnavailable("the server is stopping") from None
            raise
        finally:
            question.waiting -= 1
            if not (question.waiting or question.sent or task.done()):
                self._open.pop(key, None)
                task.cancel()

    def _begin(self, key: str, what: str, params: dict[str, Any], keep_s: float) -> _Question:
        if len(self._open) >= WAITING:
            raise TooManyRequests("too many questions wait for the Hub already", retry_after=5)
        question = self._open[key] = _Question()
        question.task = asyncio.create_task(self._work(question, key, what, params, keep_s), name=f"hub {what}")
        question.task.add_done_callback(lambda task: self._over(key, question, task))
        return question

    def _over(self, key: str, question: _Question, task: asyncio.Task[Answer]) -> None:
        if self._open.get(key) is question:
            del self._open[key]
        if not task.cancelled():
            task.exception()  # whoever waits has it; nobody may

    def forget(self) -> None:
        """Ask everything anew, at once: what is kept and what the Hub was said to want no longer count."""
        self._kept.clear()
        self._kept_bytes = 0
        self._pause = _Pause()

    async def stop(self) -> None:
        """End the child; who still waits is refused."""
        self._stopped = True
        tasks = [question.task for question in self._open.values() if question.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._idle is not None:
            self._idle.cancel()
        if self._child is not None:
            self._child.kill()
        await asyncio.gather(*self._leaving)

    @property
    def pid(self) -> int | None:
        """Of the child, while there is one."""
        return self._child.pid if self._child is not None else None

    async def _work(self, question: _Question, key: str, what: str, params: dict[str, Any], keep_s: float) -> Answer:
        async with self._places:
            question.sent = True
            reply = await self._sent(what, params)
        if isinstance(reply, Refused):
            raise _refusal(reply)
        if keep_s > 0:
            self._keep(key, reply, time.monotonic() + keep_s)
        return reply

    def _keep(self, key: str, answer: Answer, until: float) -> None:
        """What was not asked for the longest goes first."""
        old = self._kept.pop(key, None)
        self._kept[key] = (until, answer)
        self._kept_bytes += len(answer.result) - (len(old[1].result) if old else 0)
        while self._kept_bytes > _KEPT_BYTES:
            _, (_, gone) = self._kept.popitem(last=False)
            self._kept_bytes -= len(gone.result)

    async def _sent(self, what: str, params: dict[str, Any]) -> Answer | Refused:
        if time.monotonic() < self._pause.until:
            return self._resting()
        child = await self._running()
        self._number += 1
        number = self._number
        future = self._replies[number] = asyncio.get_running_loop().create_future()
        child.send(encode(Ask(number, what, params)))
        try:
            async with asyncio.timeout(self._deadline_s):
                reply: Answer | Refused = await future
        except TimeoutError:  # its threads stand still, in a name look-up perhaps: a new one will do better
            child.kill("did not answer in time")
            reply = Refused(number, "hub_unreachable", "The Hub did not answer in time. Try again.")
        finally:
            self._replies.pop(number, None)
            self._rest_later()
        self._note(reply)
        return reply

    def _note(self, reply: Answer | Refused) -> None:
        """A Hub that asks to wait is left alone for so long; one that is away, for a moment."""
        if isinstance(reply, Refused) and reply.code in ("rate_limit_exceeded", "hub_unreachable"):
            wait_s = reply.retry_after or _UNREACHABLE_S
            self._pause = _Pause(time.monotonic() + wait_s, reply)

    def _resting(self) -> Refused:
        refused, left_s = self._pause.refused, self._pause.until - time.monotonic()
        if refused.code != "rate_limit_exceeded":
            return refused
        wait = max(1.0, left_s)
        return Refused(0, refused.code, f"The Hub asks to wait {wait:.0f} s: too many questions.", wait)

    async def _running(self) -> Child:
        async with self._starting:
            if self._stopped:
                raise ModelUnavailable("the server is stopping")
            if self._child is None:
                argv = [sys.executable, "-m", self._program, "--fd", "{fd}"]
                try:
                    self._child = await Child.spawn(
                        argv, name=self._program, on_frame=self._on_frame, on_exit=self._on_exit
                    )
                except OSError as error:
                    raise ModelUnavailable(f"the program that asks the Hub cannot be started: {error}") from error
            return self._child

    def _on_frame(self, body: bytes) -> None:
        try:
            reply = decode_reply(body)
        except msgspec.MsgspecError:
            if self._child is not None:
                self._child.kill("sent a message that is not of this protocol")
            return
        future = self._replies.get(reply.number)
        if future is not None and not future.done():
            future.set_result(reply)

    def _on_exit(self, death: ChildExit) -> None:
        child, self._child = self._child, None
        if child is not None:
            task = asyncio.get_running_loop().create_task(child.wait(), name="hub child's end")
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)
        if not death.wanted:
            log.warning("the program that asks the Hub ended: %s", death.cause)
            for line in list(child.recent_lines)[-5:] if child is not None else ():
                log.warning("it said: %s", line)
        for number, future in self._replies.items():
            if not future.done():
                future.set_result(Refused(number, "hub_error", "The Hub's answer could not be read. Try again."))

    def _rest_later(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        if not self._stopped:
            self._idle = asyncio.get_running_loop().call_later(self._idle_s, self._rest)

    def _rest(self) -> None:
        if self._child is not None and not self._replies:
            self._child.kill()


def _refusal(reply: Refused) -> LmxError:
    make = _REFUSALS.get(reply.code, ModelUnavailable)
    return make(reply.message, code=reply.code, param=_PARAMS.get(reply.code), retry_after=reply.retry_after)
