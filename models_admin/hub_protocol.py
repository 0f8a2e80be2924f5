"""What the server and the process that asks the Hub say to each other: frames of one msgpack struct each.

Every ``Ask`` is answered by one ``Answer`` or ``Refused`` with its number, in any order. The end of the connection
means that the other side is gone.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct


class Ask(Struct, tag="ask", frozen=True):
    """``what`` is one of ``hub_worker.QUESTIONS``."""

    number: int
    what: str
    params: dict[str, Any]


class Answer(Struct, tag="answer", frozen=True):
    """``result`` is msgpack within msgpack: it is kept as bytes, and read when somebody wants it."""

    number: int
    result: bytes

    def read(self) -> dict[str, Any]:
        found: dict[str, Any] = _result.decode(self.result)
        return found

    @classmethod
    def of(cls, number: int, result: dict[str, Any]) -> Answer:
        return cls(number, _encoder.encode(result))


class Refused(Struct, tag="refused", frozen=True):
    """``message`` is one sentence for people; ``retry_after`` in seconds, where the Hub named it."""

    number: int
    code: str
    message: str
    retry_after: float | None = None


_encoder = msgspec.msgpack.Encoder()
_from_server = msgspec.msgpack.Decoder(Ask)
_result = msgspec.msgpack.Decoder(dict[str, Any])
_from_child = msgspec.msgpack.Decoder(Answer | Refused)


def encode(message: Ask | Answer | Refused) -> bytes:
    body = _encoder.encode(message)
    return len(body).to_bytes(4, "big") + body


def decode_ask(body: bytes) -> Ask:
    message: Ask = _from_server.decode(body)
    return message


def decode_reply(body: bytes) -> Answer | Refused:
    message: Answer | Refused = _from_child.decode(body)
    return message
