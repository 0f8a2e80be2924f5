"""What the server and a job's child process say to each other: frames of one msgpack struct each.

The server sends ``Go`` first and ``Bye`` last; the child sends any number of ``Progress`` and ``Part``, then one
``Done`` or ``Problem``, and waits for ``Bye``. The end of the connection means that the other side is gone.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct


class Go(Struct, tag="go", frozen=True):
    params: dict[str, Any]


class Bye(Struct, tag="bye", frozen=True):
    pass


class Progress(Struct, tag="progress", frozen=True):
    """``done`` of ``total`` ``unit``s of this ``phase``; ``total`` 0 when unknown.

    ``note`` says why it stands still. ``file`` is the one under way, ``file_done`` what is there of it.
    """

    phase: str
    done: int = 0
    total: int = 0
    unit: str = "bytes"
    note: str = ""
    file: str = ""
    file_done: int = 0


class Part(Struct, tag="part", frozen=True):
    """A result that counts even if the job never ends: one file of many. ``about`` is the job's own."""

    about: dict[str, Any]


class Done(Struct, tag="done", frozen=True):
    result: dict[str, Any]


class Problem(Struct, tag="problem", frozen=True):
    """The job failed; ``message`` is one sentence for people: what happened and what to do.

    ``code`` is the same for programs, ``details`` are its numbers.
    """

    message: str
    code: str = ""
    details: dict[str, Any] = {}


FromServer = Go | Bye
FromChild = Progress | Part | Done | Problem

_encoder = msgspec.msgpack.Encoder()
_from_server = msgspec.msgpack.Decoder(FromServer)
_from_child = msgspec.msgpack.Decoder(FromChild)


def encode(message: FromServer | FromChild) -> bytes:
    body = _encoder.encode(message)
    return len(body).to_bytes(4, "big") + body


def decode_from_server(body: bytes) -> FromServer:
    message: FromServer = _from_server.decode(body)
    return message


def decode_from_child(body: bytes) -> FromChild:
    message: FromChild = _from_child.decode(body)
    return message
