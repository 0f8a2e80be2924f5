"""Asking the Hub: the real child and the real client on a Hub of this machine, and how it is spared."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from inference.errors import Forbidden, LmxError, ModelNotFound, ModelUnavailable, NotFound, TooManyRequests
from models_admin import hub_client
from models_admin.hub_client import AT_ONCE, HubClient
from tests.material.hub import COMMIT, REPO, Hub

SEARCH: dict[str, Any] = {"text": "", "author": "", "filters": [], "sort": "downloads", "limit": 20, "cursor": ""}
INFO = {"repo": REPO, "revision": ""}


@pytest.fixture
async def client(hub: Hub) -> AsyncIterator[HubClient]:
    found = HubClient()
    yield found
    await found.stop()


def searches(hub: Hub) -> int:
    return [path for _, path, _ in hub.asked].count("api/models")


async def search(client: HubClient, text: str = "nano", keep_s: float = 60) -> dict[str, Any]:
    return await client.ask("search", SEARCH | {"text": text}, keep_s=keep_s)


async def refused(question: Any) -> LmxError:
    with pytest.raises(LmxError) as found:
        await question
    return found.value


async def until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


async def test_it_works(client: HubClient, hub: Hub) -> None:
    pid = client.pid
    assert pid is None
    assert [model["model_id"] for model in (await search(client))["models"]] == [REPO]
    pid = client.pid
    assert (await client.ask("info", INFO, keep_s=1))["model"]["revision"] == COMMIT
    assert client.pid == pid
    await client.stop()
    assert pid is not None
    assert not psutil.pid_exists(pid)


async def test_an_answer_is_kept_and_the_same_question_shared(client: HubClient, hub: Hub) -> None:
    hub.searching.clear()
    asked = [asyncio.create_task(search(client)) for _ in range(5)]
    await until(lambda: searches(hub) == 1)
    hub.searching.set()
    assert len({str(await one) for one in asked}) == 1
    await search(client)
    assert searches(hub) == 1
    await search(client, keep_s=0)
    assert searches(hub) == 1
    await search(client, "nan", keep_s=0)
    await search(client, "nan", keep_s=0)
    assert searches(hub) == 3


async def test_what_nobody_waits_for_is_not_asked(client: HubClient, hub: Hub) -> None:
    """A search that is typed letter by letter, with a Hub that takes its time."""
    hub.searching.clear()
    first = [asyncio.create_task(search(client, f"n{number}")) for number in range(AT_ONCE)]
    await until(lambda: searches(hub) == AT_ONCE)
    typed = [asyncio.create_task(search(client, "nano"[: 1 + number])) for number in range(4)]
    await asyncio.sleep(0)
    for one in typed[:3]:
        one.cancel()
    await asyncio.gather(*typed[:3], return_exceptions=True)
    hub.searching.set()
    await typed[3]
    await asyncio.gather(*first)
    assert searches(hub) == AT_ONCE + 1


async def test_one_who_leaves_takes_nothing_from_the_others(client: HubClient, hub: Hub) -> None:
    hub.searching.clear()
    leaves, stays = asyncio.create_task(search(client)), asyncio.create_task(search(client))
    await until(lambda: searches(hub) == 1)
    leaves.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaves
    hub.searching.set()
    assert (await stays)["count"] == 1


async def test_refusals(client: HubClient, hub: Hub) -> None:
    questions: list[tuple[str, dict[str, Any], type[LmxError], str]] = [
        ("info", {"repo": "acme/none", "revision": ""}, ModelNotFound, "model_not_found"),
        ("info", {"repo": REPO, "revision": "nope"}, NotFound, "revision_not_found"),
        ("config", {"repo": REPO, "revision": "0" * 40}, NotFound, "file_not_found"),
    ]
    for what, params, kind, code in questions:
        error = await refused(client.ask(what, params, keep_s=60))
        assert (type(error), error.code) == (kind, code)


async def test_a_gated_model_is_described_and_its_files_are_not_given(
    client: HubClient, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.repos[REPO].gated = True
    told = await client.ask("info", INFO, keep_s=0)
    assert (told["model"]["gated"], told["token"]) == ("manual", False)
    error = await refused(client.ask("config", {"repo": REPO, "revision": COMMIT}, keep_s=0))
    assert isinstance(error, Forbidden)
    assert "accept its terms" in error.message
    await client.stop()
    monkeypatch.setenv("HF_TOKEN", hub.token)
    other = HubClient()
    assert (await other.ask("info", INFO, keep_s=0))["token"] is True
    assert (await other.ask("config", {"repo": REPO, "revision": COMMIT}, keep_s=0))["config"]["model_type"] == "llama"
    await other.stop()


async def test_a_hub_that_asks_to_wait_is_left_alone(client: HubClient, hub: Hub) -> None:
    await search(client)
    hub.status, hub.headers = 429, {"Retry-After": "100"}
    error = await refused(search(client, "other"))
    assert isinstance(error, TooManyRequests)
    assert error.retry_after == 100
    hub.status = None
    again = await refused(search(client, "third"))
    assert (again.code, 90 < (again.retry_after or 0) <= 100) == ("rate_limit_exceeded", True)
    assert searches(hub) == 2
    assert (await search(client))["count"] == 1  # what is known is told


async def test_a_wait_that_is_none_is_a_reasonable_one(client: HubClient, hub: Hub) -> None:
    hub.status = 429
    for wait in ("nan", "-5", "1e99", "soon", "Wed, 21 Oct 2026 07:28:00 GMT"):
        hub.headers = {"Retry-After": wait}
        assert 1 <= ((await refused(search(client, wait))).retry_after or 0) <= 3600
        client.forget()


async def test_a_hub_that_is_away(hub: Hub, monkeypatch: pytest.MonkeyPatch, free_port: int) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free_port}")
    client = HubClient()
    error = await refused(search(client))
    assert isinstance(error, ModelUnavailable)
    assert error.code == "hub_unreachable"
    assert "cannot be reached" in error.message
    assert "\n" not in error.message
    await client.stop()


async def test_switched_off(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    client = HubClient()
    error = await refused(search(client))
    assert (error.code, "HF_HUB_OFFLINE" in error.message) == ("hub_unreachable", True)
    assert hub.asked == []
    await client.stop()


NO_ANSWERS = [b"", b"<html>a captive portal</html>", b"{}", b"[" * 100_000, b"\xff\xfe", b"null"]
NO_ANSWERS += [b'[{"id": "' + b"x" * (17 << 20) + b'"}]']


async def test_what_is_no_answer(client: HubClient, hub: Hub) -> None:
    for body in NO_ANSWERS:
        hub.said["api/models"] = body
        error = await refused(search(client))
        assert (error.status, error.code) == (503, "hub_error"), body[:20]
        assert len(error.message) < 500
        assert error.message.isprintable()
    hub.said.clear()
    assert (await search(client))["count"] == 1


async def test_models_among_rubbish_are_found(client: HubClient, hub: Hub) -> None:
    hub.said["api/models"] = b'[1, null, {"id": "../../etc"}, {"id": "<b>/x"}, {"id": "acme/good", "tags": 5}]'
    assert [model["model_id"] for model in (await search(client))["models"]] == ["acme/good"]


async def test_every_status_is_a_refusal_that_says_what_to_do(client: HubClient, hub: Hub) -> None:
    for status, told in {400: 503, 401: 503, 403: 403, 404: 404, 418: 503, 500: 503, 503: 503}.items():
        hub.status = status
        assert (await refused(search(client, str(status)))).status == told
        client.forget()


async def test_a_hub_that_stands_still_costs_a_time_and_no_more(hub: Hub) -> None:
    client = HubClient(deadline_s=0.5)
    hub.searching.clear()
    error = await refused(search(client))
    assert (error.code, "in time" in error.message) == ("hub_unreachable", True)
    assert client.pid is None
    hub.searching.set()
    client.forget()
    client._deadline_s = 60.0  # a slow machine needs a while for the new program
    assert (await client.ask("info", INFO, keep_s=0))["token"] is False
    await client.stop()


async def test_a_child_that_dies_is_replaced(client: HubClient, hub: Hub) -> None:
    hub.searching.clear()
    asked = asyncio.create_task(search(client))
    await until(lambda: searches(hub) == 1)
    assert client.pid is not None
    os.kill(client.pid, signal.SIGKILL)
    assert (await refused(asked)).code == "hub_error"
    hub.searching.set()
    assert (await search(client))["count"] == 1


async def test_a_child_with_nothing_to_do_ends(hub: Hub) -> None:
    client = HubClient(idle_s=0)
    await search(client)
    await until(lambda: client.pid is None)
    assert (await search(client, "other"))["count"] == 0
    await client.stop()


async def test_what_is_kept_is_bounded(client: HubClient, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    await search(client, "nano")
    [(_, kept)] = client._kept.values()
    monkeypatch.setattr(hub_client, "_KEPT_BYTES", 2 * len(kept.result))
    for text in ("nan", "nano-", "na"):
        await search(client, text)
    assert len(client._kept) == 2
    assert client._kept_bytes == sum(len(answer.result) for _, answer in client._kept.values())
    hub.asked.clear()
    await search(client, "na")
    await search(client, "nano")
    assert searches(hub) == 1


async def test_too_many_questions_are_refused(client: HubClient, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_client, "WAITING", 3)
    hub.searching.clear()
    asked = [asyncio.create_task(search(client, str(number))) for number in range(3)]
    await asyncio.sleep(0)
    assert (await refused(search(client, "more"))).status == 429
    hub.searching.set()
    await asyncio.gather(*asked)


async def test_who_waits_when_the_server_stops_is_told(hub: Hub) -> None:
    client = HubClient()
    hub.searching.clear()
    asked = asyncio.create_task(search(client))
    await until(lambda: searches(hub) == 1)
    await client.stop()
    assert (await refused(asked)).code == "model_unavailable"
    assert (await refused(search(client, "more"))).code == "model_unavailable"


def test_the_web_process_does_not_load_the_hubs_library(tmp_path: Path) -> None:
    code = (
        "import os, sys; os.environ['DJANGO_SETTINGS_MODULE'] = 'lmx_site.settings'; import django; django.setup(); "
        "import models_admin.hub_finder, inference.api.urls; "
        "print(sorted({'huggingface_hub', 'httpx2', 'nh3', 'markdown_it'} & set(sys.modules)))"
    )
    environment = {**os.environ, "LMX_HOME": str(tmp_path)}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
