"""Runs one job program in a child process and waits for its answer. Knows no database; ``jobs.Jobs`` keeps the rows."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from inference.engine.child import Child, ChildExit
from inference.errors import LmxError
from models_admin.job_protocol import Bye, Done, Go, Part, Problem, Progress, decode_from_child, encode

OnProgress = Callable[[Progress], None]
OnPart = Callable[[dict[str, Any]], None]


class JobFailed(LmxError):
    """A job ended without doing its work; the message is for people."""

    status, code = 500, "job_failed"


class Runner(Protocol):
    """Something that runs job programs: with a row in the Job table, or without."""

    async def run(
        self, kind: str, program: str, params: dict[str, Any], *, subject: str, on_progress: OnProgress
    ) -> dict[str, Any]:
        """The program's result. Raises ``JobFailed``. A cancelled caller's child is killed before this returns."""
        ...


async def run_program(
    program: str, params: dict[str, Any], on_progress: OnProgress, on_part: OnPart = lambda about: None
) -> dict[str, Any]:
    """Run ``python -m program`` as a job; see ``Runner.run``. ``on_part`` hears of each part of the result."""
    ended: asyncio.Future[Done | Problem | ChildExit] = asyncio.get_running_loop().create_future()

    def on_frame(body: bytes) -> None:
        try:
            message = decode_from_child(body)
        except msgspec.MsgspecError:
            return child.kill("sent a message that is not of this protocol")
        if isinstance(message, Progress):
            on_progress(message)
        elif isinstance(message, Part):
            on_part(message.about)
        elif not ended.done():
            child.expect_exit()
            child.send(encode(Bye()))
            ended.set_result(message)
        return None

    def on_exit(death: ChildExit) -> None:
        if not ended.done():
            ended.set_result(death)

    argv = [sys.executable, "-m", program, "--fd", "{fd}"]
    child = await Child.spawn(argv, name=program, on_frame=on_frame, on_exit=on_exit)
    try:
        child.send(encode(Go(params)))
        outcome = await ended
    except BaseException:
        child.kill()
        raise
    finally:
        await asyncio.shield(child.wait())
    match outcome:
        case Done():
            return outcome.result
        case Problem():
            raise JobFailed(outcome.message, code=outcome.code or None, details=outcome.details)
        case ChildExit():
            said = f"; it last said: {child.recent_lines[-1]}" if child.recent_lines else ""
            raise JobFailed(f"The job ended unexpectedly ({outcome.cause}){said}")


class PlainRunner:
    """A ``Runner`` without a database: for the command line, which must not open the server's."""

    async def run(
        self, kind: str, program: str, params: dict[str, Any], *, subject: str, on_progress: OnProgress
    ) -> dict[str, Any]:
        """See ``Runner.run``."""
        return await run_program(program, params, on_progress)
