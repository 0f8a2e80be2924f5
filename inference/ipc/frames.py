"""The byte format: length-prefixed msgpack."""

from __future__ import annotations

from typing import Any

import msgspec

from inference.ipc.commands import AnyCommand
from inference.ipc.events import AnyEvent

MAX_FRAME_BYTES = 256 * 1024 * 1024
_LENGTH_BYTES = 4


class FrameError(Exception):
    """The peer sent bytes that are not a frame of this protocol."""


_encoder = msgspec.msgpack.Encoder()
_command_decoder = msgspec.msgpack.Decoder(list[AnyCommand])
_event_decoder = msgspec.msgpack.Decoder(list[AnyEvent])


def encode_frame(messages: list[Any]) -> bytes:
    """One frame holding ``messages`` (all commands or all events)."""
    body = _encoder.encode(messages)
    if len(body) > MAX_FRAME_BYTES:
        raise FrameError(f"a frame of {len(body)} bytes is over the limit of {MAX_FRAME_BYTES}")
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


def decode_commands(body: bytes | memoryview) -> list[AnyCommand]:
    """The commands of one frame's body (without its length)."""
    try:
        return _command_decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise FrameError(str(error)) from error


def decode_events(body: bytes | memoryview) -> list[AnyEvent]:
    """The events of one frame's body (without its length)."""
    try:
        return _event_decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise FrameError(str(error)) from error


class FrameSplitter:
    """Cuts a byte stream into frame bodies, whatever the chunk boundaries."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Add received bytes; return the bodies that are complete now."""
        self._buffer += data
        bodies: list[bytes] = []
        start = 0
        while len(self._buffer) - start >= _LENGTH_BYTES:
            length = int.from_bytes(self._buffer[start : start + _LENGTH_BYTES], "big")
            if length > MAX_FRAME_BYTES:
                raise FrameError(f"a frame of {length} bytes is over the limit of {MAX_FRAME_BYTES}")
            end = start + _LENGTH_BYTES + length
            if len(self._buffer) < end:
                break
            bodies.append(bytes(self._buffer[start + _LENGTH_BYTES : end]))
            start = end
        if start:
            del self._buffer[:start]
        return bodies
