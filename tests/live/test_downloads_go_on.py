"""Fetches under way when the real server ends, and what its next start makes of them."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.live.process import LiveServer, until
from tests.material.hub import BIG, MIB, REPO, Hub

pytestmark = pytest.mark.live
Start = Callable[..., LiveServer]


def jobs(server: LiveServer) -> list[dict[str, Any]]:
    return list(httpx.get(f"{server.url}/admin/jobs", timeout=60).json()["jobs"])


def begin(server: LiveServer, hub: Hub) -> int:
    """Start a fetch, which stands in the middle of the big file; its number."""
    hub.hold(BIG, 2 * MIB)
    answer = httpx.post(f"{server.url}/admin/model/download", json={"model_id": REPO}, timeout=60)
    assert answer.status_code == 202, answer.text
    until(lambda: jobs(server)[0]["done"] >= MIB, "the middle of the file")
    return int(answer.json()["job"]["id"])


def ended(server: LiveServer) -> dict[str, Any]:
    """The only job, once it runs no more."""

    def told() -> dict[str, Any] | None:
        [job] = jobs(server)
        return job if job["state"] not in ("queued", "running") else None

    return dict(until(told, "the end of the fetch"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_it_goes_on_under_its_number(start_server: Start, hub: Hub, tmp_path: Path, number: int) -> None:
    server = start_server(tmp_path)
    job = begin(server, hub)
    server.stop(number)
    hub.release()
    server = start_server(tmp_path)
    done = ended(server)
    assert (done["id"], done["state"]) == (job, "done")
    assert done["done"] == done["total"] == done["result"]["bytes"]
    first, second = hub.ranges(BIG)
    assert first in ("", "bytes=0-")
    assert int(second.removeprefix("bytes=").removesuffix("-")) >= MIB
    assert httpx.post(f"{server.url}/admin/model/load", json={"model_id": REPO}, timeout=60).status_code == 200
    assert server.stop() == 0
    assert [word in server.log for word in ("job.resumed", "job.interrupted")] == [True, number == signal.SIGTERM]

    asked = len(hub.asked)
    server = start_server(tmp_path)
    assert ended(server) == done
    assert len(hub.asked) == asked


def test_asked_for_while_it_goes_on_it_is_the_same_job(start_server: Start, hub: Hub, tmp_path: Path) -> None:
    server = start_server(tmp_path)
    job = begin(server, hub)
    assert server.stop() == 0
    hub.release()
    hub.hold(BIG, 3 * MIB)
    server = start_server(tmp_path)
    again = httpx.post(f"{server.url}/admin/model/download", json={"model_id": REPO}, timeout=60)
    assert (again.status_code, again.json()["job"]["id"], again.json()["job"]["state"]) == (202, job, "running")
    assert again.json()["job"]["total"] > 4 * MIB
    assert httpx.post(f"{server.url}/admin/jobs/{job}/cancel", json={}, timeout=60).json()["state"] == "cancelled"
    assert server.stop() == 0


def test_a_cancelled_one_stays_cancelled(start_server: Start, hub: Hub, tmp_path: Path) -> None:
    server = start_server(tmp_path)
    job = begin(server, hub)
    assert httpx.post(f"{server.url}/admin/jobs/{job}/cancel", json={}, timeout=60).status_code == 200
    assert server.stop() == 0
    hub.release()
    asked = len(hub.asked)
    server = start_server(tmp_path)
    assert [(one["id"], one["state"]) for one in jobs(server)] == [(job, "cancelled")]
    assert server.stop() == 0
    assert len(hub.asked) == asked


def test_one_that_fails_then_is_not_tried_again(start_server: Start, hub: Hub, tmp_path: Path) -> None:
    server = start_server(tmp_path)
    job = begin(server, hub)
    server.stop(signal.SIGKILL)
    hub.release()
    hub.repos.clear()
    server = start_server(tmp_path)
    failed = ended(server)
    assert (failed["id"], failed["state"], failed["code"]) == (job, "failed", "model_not_found")
    assert server.stop() == 0
    asked = len(hub.asked)
    server = start_server(tmp_path)
    assert ended(server) == failed
    assert len(hub.asked) == asked
