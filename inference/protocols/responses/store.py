"""Responses that can be fetched and gone on from: in memory at once, on disk a moment later.

``put`` costs its caller nothing but memory: a thread writes. What is not written yet, and what was used lately, is
answered from memory, so a client may go on from a response as soon as it has its id. Where nothing is kept on disk
(``responses.store: false``) memory is all there is.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import orjson

from inference.principal import Principal

log = logging.getLogger(__name__)

MEMORY_BYTES = 64 * 1024 * 1024
LONGEST_CHAIN = 10_000


@dataclass(frozen=True, slots=True)
class Stored:
    """One response. ``response`` (with an empty ``output``), ``inputs`` and ``output`` are JSON; ``events`` server-sent
    frames compressed with zlib.

    ``owner`` is from ``owner_of``; ``created`` in seconds since the epoch; ``previous`` the response it goes on from.
    """

    id: str
    owner: str
    previous: str | None
    status: str
    created: float
    response: bytes
    inputs: bytes
    output: bytes
    events: bytes | None = None

    @classmethod
    def of(cls, response: dict[str, Any], owner: str, inputs: list[Any], events: bytes | None = None) -> Stored:
        """``response`` as it is now."""
        return cls(
            id=response["id"],
            owner=owner,
            previous=response["previous_response_id"],
            status=response["status"],
            created=response["created_at"],
            response=orjson.dumps({**response, "output": []}),
            inputs=orjson.dumps(inputs),
            output=orjson.dumps(response["output"]),
            events=events,
        )

    @property
    def size(self) -> int:
        return len(self.response) + len(self.inputs) + len(self.output) + len(self.events or b"")

    def whole(self) -> dict[str, Any]:
        """The response object."""
        found: dict[str, Any] = orjson.loads(self.response)
        return found | {"output": orjson.loads(self.output)}

    def turn(self) -> Turn:
        return Turn(self.id, self.owner, self.previous, self.status, self.inputs, self.output)


@dataclass(frozen=True, slots=True)
class Turn:
    """What a conversation has of a response: ``inputs`` and ``output`` as in ``Stored``, and who it follows."""

    id: str
    owner: str
    previous: str | None
    status: str
    inputs: bytes
    output: bytes


class Keeper(Protocol):
    """Where responses outlive the process. The methods that are not coroutines take at once and work later."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def write(self, entry: Stored) -> None:
        """Take it; a failure is logged. Keeps the order of calls."""
        ...

    def pending(self, response_id: str) -> Stored | None:
        """What was taken and is not written yet."""
        ...

    async def read(self, ids: Iterable[str]) -> dict[str, Stored]: ...

    async def chain(self, last: str, limit: int) -> list[Turn]:
        """``last`` and those before it, the newest first, as far as they are there."""
        ...

    def touch(self, ids: list[str]) -> None:
        """Note that these were used: what was used longest ago goes first."""
        ...

    async def remove(self, response_id: str) -> bool: ...


def owner_of(principal: Principal) -> str:
    """Who may read what this principal stores: a named key alone; without keys all clients of this machine."""
    return f"key:{principal.id}" if principal.kind == "key" else principal.kind


class ResponseStore:
    """The responses of this server. All methods belong to the event loop."""

    def __init__(self, keeper: Keeper | None = None, *, memory_bytes: int = MEMORY_BYTES) -> None:
        self._keeper = keeper
        self._limit = memory_bytes
        self._recent: OrderedDict[str, Stored] = OrderedDict()
        self._size = 0

    async def start(self) -> None:
        if self._keeper is not None:
            await self._keeper.start()

    async def stop(self) -> None:
        """Write what is not written yet."""
        if self._keeper is not None:
            await self._keeper.stop()

    def put(self, entry: Stored) -> None:
        """Keep it, in place of an earlier state of the same response. Never blocks, never raises."""
        self._remember(entry)
        if self._keeper is not None:
            self._keeper.write(entry)

    async def get(self, response_id: str, owner: str) -> Stored | None:
        """None where there is none, or it is somebody else's."""
        found = self._known(response_id)
        if found is None and self._keeper is not None:
            found = (await self._keeper.read([response_id])).get(response_id)
            if found is not None:
                self._remember(found)
        return found if found is not None and found.owner == owner else None

    async def chain(self, last: str, owner: str) -> list[Turn] | None:
        """``last`` and all that it goes on from, the oldest first; None where one is missing or somebody else's."""
        found: list[Turn] = []
        read: dict[str, Turn] = {}
        at: str | None = last
        while at is not None:
            known = self._known(at)
            one = known.turn() if known is not None else read.get(at)
            if one is None and self._keeper is not None:
                read = {entry.id: entry for entry in await self._keeper.chain(at, LONGEST_CHAIN)}
                one = read.get(at)
            if one is None or one.owner != owner or len(found) >= LONGEST_CHAIN:
                return None
            found.append(one)
            at = one.previous
        if self._keeper is not None:
            self._keeper.touch([entry.id for entry in found])
        return found[::-1]

    async def delete(self, response_id: str, owner: str) -> bool:
        """Forget it, also on disk; False where it was not there."""
        if await self.get(response_id, owner) is None:
            return False
        self._forget(response_id)
        if self._keeper is not None:
            await self._keeper.remove(response_id)
        return True

    def _known(self, response_id: str) -> Stored | None:
        found = self._recent.get(response_id)
        if found is not None:
            self._recent.move_to_end(response_id)
        elif self._keeper is not None:
            found = self._keeper.pending(response_id)
        return found

    def _remember(self, entry: Stored) -> None:
        self._forget(entry.id)
        self._recent[entry.id] = entry
        self._size += entry.size
        while self._size > self._limit and len(self._recent) > 1:
            _, oldest = self._recent.popitem(last=False)
            self._size -= oldest.size

    def _forget(self, response_id: str) -> None:
        found = self._recent.pop(response_id, None)
        if found is not None:
            self._size -= found.size
