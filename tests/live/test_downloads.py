"""Downloads at the real server, over its API and by ``lmx``: in line, paused, loaded when done, fetched by loading."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.live.process import ROOT, LiveServer, until
from tests.material.hub import BIG, MIB, REPO, Hub, HubRepo, nano_files
from tests.models_admin.site import ask, lmx

pytestmark = pytest.mark.live
Start = Callable[..., LiveServer]
OTHER = "acme/other-4bit"


@pytest.fixture
def server(start_server: Start, hub: Hub) -> LiveServer:
    hub.repos[OTHER] = HubRepo(nano_files(), commit="7" * 40)
    return start_server(LMX_MODELS__MAX_DOWNLOADS="1")


def job(server: LiveServer, number: int) -> dict[str, Any]:
    return dict(ask(server, f"/admin/jobs/{number}")[1])


def test_over_the_api(server: LiveServer, hub: Hub) -> None:
    hub.hold(BIG, MIB)
    status, first = ask(server, "/admin/model/download", {"model_id": REPO, "auto_load": True})
    assert (status, first["auto_loaded"], first["job"]["state"]) == (202, False, "running")
    status, second = ask(server, "/admin/model/download", {"model_id": OTHER})
    assert (status, second["job"]["state"], second["job"]["place"]) == (202, "queued", 1)
    a, b = first["job"]["id"], second["job"]["id"]
    for work, number, state in [("pause", b, "paused"), ("pause", a, "paused"), ("resume", b, "running")]:
        assert ask(server, f"/admin/jobs/{number}/{work}", {})[1]["state"] == state
    status, resumed = ask(server, f"/admin/jobs/{a}/resume", {})
    assert (status, resumed["state"], {file["name"] for file in resumed["files"]} >= {BIG}) == (200, "queued", True)
    until(lambda: job(server, b)["done"] >= MIB, "a part of it")
    assert ask(server, f"/admin/jobs/{b}/cancel", {})[1]["state"] == "cancelled"
    hub.release()
    until(lambda: job(server, a)["result"].get("auto_loaded"), "its load")
    hub.repos["acme/third-4bit"] = HubRepo(nano_files(), commit="8" * 40)
    status, told = ask(
        server, "/admin/model/download", {"model_id": "acme/third-4bit", "auto_load": True, "wait": True}
    )
    assert (status, told["auto_loaded"], told["model_id"]) == (200, True, "acme/third-4bit")
    assert told["path"].endswith(f"acme/third-4bit/{'8' * 40}")
    assert told["size_mb"] > 4
    assert told["time_sec"] > 0
    assert {one["model_id"] for one in ask(server, "/admin/models/loaded")[1]["models"]} == {REPO, "acme/third-4bit"}
    assert ask(server, f"/admin/jobs/{a}/pause", {})[0] == 409
    assert ask(server, f"/admin/jobs/{a}/resume", {})[0] == 409
    assert ask(server, "/admin/jobs/99/pause", {})[0] == 404
    partial = [use for use in ask(server, "/admin/disk")[1]["others"] if use["kind"] == "partial"]
    assert [use["name"] for use in partial] == [f"{OTHER}@{'7' * 40}"], "what a cancelled one has brought is named"
    assert partial[0]["reclaimable"] >= MIB // 2

    status, loaded = ask(server, "/admin/model/load", {"model_id": OTHER, "download": True})
    assert (status, loaded["status"], loaded["resolved_id"]) == (200, "loaded", OTHER)
    assert ask(server, "/admin/model/load", {"model_id": "acme/none", "download": True})[0] == 404
    assert ask(server, "/admin/model/load", {"model_id": "no name", "download": True})[0] == 404
    asked = len(hub.asked)
    chat = {"model": "acme/none", "messages": [{"role": "user", "content": "Hi"}]}
    assert ask(server, "/v1/chat/completions", chat)[0] == 404
    assert len(hub.asked) == asked, "/v1 never fetches"


def test_by_lmx(server: LiveServer, hub: Hub) -> None:
    hub.hold(BIG, MIB)
    begun = lmx(server, "download", REPO, "--no-wait")
    assert (begun.exit_code, "lmx jobs cancel 1" in begun.output) == (0, True), begun.output
    assert "the next" in lmx(server, "download", OTHER, "--no-wait").output
    listed = lmx(server, "jobs").output
    assert "running" in listed
    assert "queued" in listed
    assert "job 1: paused" in lmx(server, "jobs", "pause", "1").output
    assert lmx(server, "jobs", "pause", "1").exit_code == 0
    assert "job 2: cancelled" in lmx(server, "jobs", "cancel", "2").output
    refused = lmx(server, "jobs", "resume", "99")
    assert (refused.exit_code, refused.output) == (1, "lmx: there is no job 99\n")
    hub.release()
    done = lmx(server, "download", REPO, "--revision", "main", "--quantization", "4bit", "--load")
    assert (done.exit_code, f"{REPO}: downloaded" in done.output, "loaded" in done.output) == (0, True, True)
    assert "already" in lmx(server, "download", REPO).output
    assert lmx(server, "download", "acme/none").exit_code == 1
    assert lmx(server, "jobs", "tidy", "1").exit_code == 2
    assert lmx(server, "jobs", "pause").exit_code == 2


def test_ctrl_c_leaves_it_running(server: LiveServer, hub: Hub, tmp_path: Path) -> None:
    hub.hold(BIG, MIB)
    environment = {**os.environ, "LMX_HOME": str(server.home), "PYTHONUNBUFFERED": "1"}
    command = subprocess.Popen(
        [sys.executable, "-m", "lmx_site.cli", "download", REPO],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    until(lambda: BIG in hub.waiting, "the middle of the file")
    until(lambda: job(server, 1)["done"] >= MIB, "its progress")
    command.send_signal(signal.SIGINT)
    said, _ = command.communicate(timeout=60)
    assert (command.returncode, "lmx jobs cancel 1" in said, "Traceback" in said) == (130, True, False), said
    assert job(server, 1)["state"] == "running"
    hub.release()
    until(lambda: job(server, 1)["state"] == "done", "its end")
