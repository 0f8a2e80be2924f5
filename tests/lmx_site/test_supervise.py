"""Background tasks begin again after a failure, end when their work ends, and stop when cancelled."""

from __future__ import annotations

import asyncio
import logging

import pytest

from lmx_site.supervise import keep_running


async def test_it_works() -> None:
    await keep_running("x", lambda: asyncio.sleep(0))


async def test_a_failure_is_logged_and_the_work_begins_again(caplog: pytest.LogCaptureFixture) -> None:
    tries: list[int] = []

    async def work() -> None:
        tries.append(1)
        if len(tries) < 3:
            raise RuntimeError("no luck")

    with caplog.at_level(logging.ERROR):
        await keep_running("sampler", work, first_pause_s=0.001)
    assert len(tries) == 3
    assert [record.getMessage().split(";")[0] for record in caplog.records] == ["sampler failed", "sampler failed"]


async def test_cancelling_ends_it() -> None:
    begun = asyncio.Event()

    async def work() -> None:
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(keep_running("x", work))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
