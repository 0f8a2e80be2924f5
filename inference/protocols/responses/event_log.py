"""The events of a background response, for readers that come, leave and come again.

Every frame is one event, numbered from 0 without a gap, so an event's number is its place. Frames of a long answer are
large beside their text and alike: all but the newest are compressed, in blocks.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass

BLOCK_BYTES = 64 * 1024
KEEP_ALIVE = b": keep-alive\n\n"
KEEP_ALIVE_S = 10.0
_END = b"\n\n"


@dataclass(frozen=True, slots=True)
class _Block:
    first: int
    count: int
    data: bytes


class EventLog:
    """Appended to by one writer, followed by any number of readers, each at its own pace."""

    def __init__(self) -> None:
        self._blocks: list[_Block] = []
        self._tail: list[bytes] = []
        self._tail_first = 0
        self._tail_size = 0
        self._closed = False
        self._changed = asyncio.Event()

    @property
    def count(self) -> int:
        """How many events there are, which is the number of the next."""
        return self._tail_first + len(self._tail)

    def add(self, chunk: bytes) -> None:
        """Whole frames; comments are left out."""
        frames = [frame for frame in chunk.split(_END) if frame and not frame.startswith(b":")]
        self._tail += frames
        self._tail_size += sum(map(len, frames))
        if self._tail_size >= BLOCK_BYTES:
            self._fold()
        self._wake()

    def close(self) -> None:
        """There will be no more."""
        self._closed = True
        self._wake()

    def packed(self) -> bytes:
        """All frames, as zlib streams one after the other."""
        return b"".join([*(block.data for block in self._blocks), zlib.compress(joined(self._tail), 1)])

    async def follow(self, after: int, keep_alive_s: float = KEEP_ALIVE_S) -> AsyncGenerator[bytes, None]:
        """Chunks of frames from the event after number ``after`` on, until the last; comments into silence."""
        at = max(0, after + 1)
        while True:
            changed = self._changed
            if at < self.count:
                frames = self._from(at)
                at += len(frames)
                yield joined(frames)
            elif self._closed:
                return
            else:
                try:
                    await asyncio.wait_for(changed.wait(), keep_alive_s)
                except TimeoutError:
                    yield KEEP_ALIVE

    def _from(self, at: int) -> list[bytes]:
        """Some frames from number ``at`` on, at least one: a block's, or the tail's."""
        if at >= self._tail_first:
            return self._tail[at - self._tail_first :]
        block = next(one for one in self._blocks if at < one.first + one.count)
        return split(zlib.decompress(block.data))[at - block.first :]

    def _fold(self) -> None:
        self._blocks.append(_Block(self._tail_first, len(self._tail), zlib.compress(joined(self._tail), 1)))
        self._tail_first += len(self._tail)
        self._tail, self._tail_size = [], 0

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def split(data: bytes) -> list[bytes]:
    """The frames of a chunk, without their ends."""
    return [frame for frame in data.split(_END) if frame]


def unpacked(events: bytes) -> Iterator[list[bytes]]:
    """The frames in what ``packed`` made, block by block."""
    while events:
        block = zlib.decompressobj()
        yield split(block.decompress(events))
        events = block.unused_data


def joined(frames: list[bytes]) -> bytes:
    """The frames as one chunk."""
    return b"".join(frame + _END for frame in frames)
