"""LM Studio's downloads at the real server: its fetch jobs, the real client library, and a Hub on this machine."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import httpx
import psutil
import pytest

from tests.live.process import LiveServer, until
from tests.material.hub import BIG, MIB, REPO, Hub, HubRepo, nano_files

pytestmark = pytest.mark.live
DOWNLOAD = "/api/v1/models/download"
STATUS = f"{DOWNLOAD}/status"


class Downloads:
    """A client of LM Studio's that downloads models."""

    def __init__(self, server: LiveServer) -> None:
        self.server = server
        self.http = httpx.Client(base_url=server.url, timeout=60)

    def ask(self, model: str = REPO, **more: Any) -> dict[str, Any]:
        answer = self.http.post(DOWNLOAD, json={"model": model, **more})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def refused(self, model: str, **more: Any) -> tuple[int, dict[str, Any]]:
        answer = self.http.post(DOWNLOAD, json={"model": model, **more})
        return answer.status_code, answer.json()["error"]

    def status(self, job: str) -> dict[str, Any]:
        answer = self.http.get(f"{STATUS}/{job}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def ids(self) -> dict[str, list[str]]:
        """The downloads in each state that has any."""
        listed = self.http.get(STATUS).json().items()
        return {state: [one["job_id"] for one in jobs] for state, jobs in listed if jobs}

    def until(self, job: str, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Poll, as LM Studio's clients do; what was told when the condition held."""

        def told() -> dict[str, Any] | None:
            now = self.status(job)
            return now if condition(now) else None

        return dict(until(told, "the download to get there"))

    def ended(self, job: str) -> dict[str, Any]:
        return self.until(job, lambda told: told["status"] != "downloading")


@pytest.fixture
def client(hub: Hub, start_server: Callable[..., LiveServer]) -> Iterator[Downloads]:
    found = Downloads(start_server())
    with found.http:
        yield found
    assert found.server.stop() == 0


def on_the_way(told: dict[str, Any]) -> bool:
    return bool(told["downloaded_bytes"] >= MIB)


def test_a_model_is_downloaded_and_used(client: Downloads, hub: Hub) -> None:
    hub.hold(BIG, 2 * MIB)
    begun = client.ask(f"https://huggingface.co/{REPO}", quantization="4bit")
    job = begun["job_id"]
    assert begun["status"] == "downloading"
    assert begun["total_size_bytes"] > 4 * MIB
    told = client.until(job, on_the_way)
    assert told["downloaded_bytes"] < told["total_size_bytes"] == begun["total_size_bytes"]
    assert told["bytes_per_second"] >= 0
    assert client.ids() == {"downloading": [job]}
    assert client.ask()["job_id"] == job  # the same download, not a second one
    hub.release()

    ended = client.ended(job)
    assert ended["status"] == "completed"
    assert ended["downloaded_bytes"] == ended["total_size_bytes"] == begun["total_size_bytes"]
    assert datetime.fromisoformat(ended["started_at"]) <= datetime.fromisoformat(ended["completed_at"])
    assert client.ids() == {"completed": [job]}
    assert len(hub.ranges(BIG)) == 1

    assert REPO in [model["key"] for model in client.http.get("/api/v1/models").json()["models"]]
    assert client.http.post("/api/v1/models/load", json={"model": REPO}).json()["status"] == "loaded"
    asked = {"model": REPO, "messages": [{"role": "user", "content": "Hi"}]}
    assert client.http.post("/api/v0/chat/completions", json=asked).status_code == 200
    assert client.ask() == {"status": "already_downloaded"}
    assert len(hub.ranges(BIG)) == 1


def test_one_that_was_cut_off_goes_on_when_it_is_asked_for_again(client: Downloads, hub: Hub) -> None:
    hub.hold(BIG, 2 * MIB)
    job = client.ask()["job_id"]
    client.until(job, on_the_way)
    [program] = [one for one in psutil.Process(client.server.pid).children() if fetches(one)]
    program.send_signal(signal.SIGKILL)
    cut = client.ended(job)
    assert cut["status"] == "failed"
    assert "SIGKILL" in cut["error"]["message"]
    assert MIB <= cut["downloaded_bytes"] < cut["total_size_bytes"]
    hub.release()

    again = client.ask()
    assert again["downloaded_bytes"] >= cut["downloaded_bytes"]
    assert client.ended(again["job_id"])["status"] == "completed"
    assert client.ids() == {"failed": [job], "completed": [again["job_id"]]}
    first, second = hub.ranges(BIG)
    assert first in ("", "bytes=0-")
    assert int(second.removeprefix("bytes=").removesuffix("-")) >= MIB


def fetches(process: psutil.Process) -> bool:
    return "models_admin.fetch_worker" in process.cmdline()


def test_a_cancelled_one_is_paused_until_it_is_asked_for_again(client: Downloads, hub: Hub) -> None:
    hub.hold(BIG, 2 * MIB)
    job = client.ask()["job_id"]
    client.until(job, on_the_way)
    assert client.http.post(f"/admin/jobs/{job.removeprefix('job_')}/cancel", json={}).status_code == 200
    assert client.status(job)["status"] == "paused"
    hub.release()
    again = client.ask()
    assert client.ended(again["job_id"])["status"] == "completed"
    assert client.ids() == {"paused": [job], "completed": [again["job_id"]]}
    assert int(hub.ranges(BIG)[1].removeprefix("bytes=").removesuffix("-")) >= MIB


def test_what_cannot_be_downloaded_is_refused_with_the_reason(client: Downloads, hub: Hub) -> None:
    hub.repos["acme/gated"] = HubRepo(nano_files(), gated=True)
    hub.repos["acme/huge"] = HubRepo(nano_files(), claimed={BIG: 1 << 60})
    hub.repos["acme/old"] = HubRepo({"config.json": b"{}", "pytorch_model.bin": b"\x80"})
    told = {}
    for model in ("acme/none", "acme/gated", "acme/huge", "acme/old", "acme/none@v9", f"{REPO}@v9", "no name"):
        status, error = client.refused(model)
        told[model] = (status, error["code"], error["param"])
        assert "\n" not in error["message"]
    assert told == {
        "acme/none": (404, "model_not_found", "model"),
        "acme/gated": (403, "model_gated", "model"),
        "acme/huge": (507, "insufficient_storage", None),
        "acme/old": (400, "unsupported_model", "model"),
        "acme/none@v9": (404, "model_not_found", "model"),
        f"{REPO}@v9": (404, "revision_not_found", "model"),
        "no name": (400, "invalid_request", "model"),
    }
    assert client.refused(REPO, quantization="8bit")[1]["param"] == "quantization"
    assert hub.ranges(BIG) == []
    listed = client.http.get(STATUS).json()
    failed = {one["error"]["code"] for one in listed["failed"]}
    assert failed == {code for _, code, _ in told.values()} - {"invalid_request", "insufficient_storage"}
    assert [one["downloaded_bytes"] for one in listed["paused"]] == [0], "it can go on when there is room"
    hub.status = 500
    assert client.ask(REPO)["status"] == "downloading", "it waits for the Hub to answer"
