"""A program for tests: ``LmxServer`` with a small ASGI application, so that the server is judged without Django.

Prints its port. ``/endless`` streams until stopped, ``/broken`` raises after its first chunk, ``/early`` raises before,
``/flood`` sends 64 MiB and reports how far it came on stdout, ``/silent`` sends headers and an empty chunk and waits.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from typing import Any

from lmx_site.daphne_server import LmxServer

CHUNK = b"x" * 65536


async def application(scope: Any, receive: Any, send: Any) -> None:
    received = 0
    while True:
        message = await receive()
        received += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    path = scope["path"]
    if path == "/early":
        raise RuntimeError("before the first byte")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"", "more_body": True})
    await ROUTES.get(path, _echo)(send, received)


async def _echo(send: Any, received: int) -> None:
    await send({"type": "http.response.body", "body": str(received).encode()})


async def _broken(send: Any, received: int) -> None:
    await send({"type": "http.response.body", "body": b"first", "more_body": True})
    raise RuntimeError("after the first byte")


async def _endless(send: Any, received: int) -> None:
    STREAMS.append(stream := asyncio.Event())
    say(f"streams {len(STREAMS)}")
    await send({"type": "http.response.body", "body": b"begin ", "more_body": True})
    await stream.wait()
    await send({"type": "http.response.body", "body": b"end"})


async def _silent(send: Any, received: int) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        say("cancelled")


async def _flood(send: Any, received: int) -> None:
    sent = 0
    try:
        for _ in range(1024):
            await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
            sent += len(CHUNK)
            say(f"sent {sent}")
            await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b""})
    finally:
        say(f"flood over at {sent}")


STREAMS: list[asyncio.Event] = []
ROUTES = {"/broken": _broken, "/endless": _endless, "/silent": _silent, "/flood": _flood}


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def start() -> None:
    if "--fail" in sys.argv:
        raise RuntimeError("cannot start")
    say(f"port {LISTENER.getsockname()[1]}")


async def stop(answering: list[asyncio.Task[Any]]) -> None:
    say(f"stopping {len(answering)}")
    if "--slow-stop" in sys.argv:
        await asyncio.Event().wait()
    for stream in STREAMS:
        stream.set()
    if answering:
        await asyncio.wait(answering)
    say("stopped")


LISTENER = socket.create_server(("127.0.0.1", 0))

if __name__ == "__main__":
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests with nohup has it ignored here too
    server = LmxServer(application, LISTENER, on_start=start, on_stop=stop)
    server.run()
    sys.stdout.flush()
    sys.exit(3 if server.failure else 0)
