"""Everything that is wrong with a request, over a real socket: each answer is JSON, and the server serves on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.live.process import MODEL, LiveServer, fake_model, until
from tests.protocols.test_bad_input import CASES

pytestmark = pytest.mark.live
CHAT = "/v1/chat/completions"
HI = [{"role": "user", "content": "Hi"}]
Start = Callable[..., LiveServer]


def error_of(answer: httpx.Response, status: int) -> dict[str, object]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("application/json")
    error: dict[str, object] = answer.json()["error"]
    assert error["message"]
    return error


def test_bodies(lmx_server: LiveServer) -> None:
    with httpx.Client(base_url=lmx_server.url, headers={"Content-Type": "application/json"}) as client:
        for body, param in CASES:
            for path in (CHAT, f"{CHAT}?stream=1"):
                assert error_of(client.post(path, content=json.dumps(body)), 400)["param"] == param
        for raw in (b"", b"{", b'{"temperature": NaN}', b"[1]", b"\xff\xfe", b'{"a": ' + b"[" * 100_000):
            assert error_of(client.post(CHAT, content=raw), 400)["code"] == "invalid_json"
        for body in ({"model": "fake-b", "messages": HI}, {"model": "../../etc", "messages": HI}):
            assert error_of(client.post(CHAT, json=body), 404)["code"] == "model_not_found"
        assert MODEL in client.post(CHAT, json={"model": "fake-b", "messages": HI}).text, "the nearest is named"
        assert client.post(CHAT, json={"model": MODEL, "messages": HI}).status_code == 200


def test_paths_and_methods(lmx_server: LiveServer) -> None:
    with httpx.Client(base_url=lmx_server.url, headers={"Content-Type": "application/json"}) as client:
        for path in ("/v1", "/v1/", "/v1/nothing", "/v1/chat", "/v1/models/none/such", "/admin/nothing", "/api/none"):
            error_of(client.get(path), 404)
        for method, path in (("GET", CHAT), ("PUT", CHAT), ("DELETE", "/v1/models"), ("GET", "/admin/model/load")):
            assert error_of(client.request(method, path), 405)["message"]
        wrong = client.post(CHAT, content="model=x", headers={"Content-Type": "application/x-www-form-urlencoded"})
        error_of(wrong, 415)
        error_of(client.get("/v1/models", headers={"Host": "evil.example"}), 403)
        assert client.get("/v1/models").status_code == 200


def test_a_model_that_does_not_fit(start_server: Start) -> None:
    """The fake model is small, the reserve is not: the machine that is pretended cannot hold it."""
    server = start_server(LMX_MEMORY__CAP_MB="256", LMX_MEMORY__RESERVE_MB="4096")
    for stream in (False, True):
        answer = httpx.post(f"{server.url}{CHAT}", json={"model": MODEL, "messages": HI, "stream": stream})
        error = error_of(answer, 507)
        assert error["code"] == "insufficient_memory"
        assert answer.headers["x-should-retry"] == "false"
        assert isinstance(error["needed_bytes"], int)
        assert isinstance(error["free_bytes"], int)
        assert error["needed_bytes"] > error["free_bytes"]
    assert server.stop() == 0


def test_events_arrive_as_they_happen(start_server: Start, tmp_path: Path) -> None:
    home = tmp_path / "home"
    fake_model(home)
    fake_model(home, "fails", load_error="no tensors named so and so")
    server = start_server(home)
    with httpx.stream("GET", f"{server.url}/admin/events", timeout=60) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        lines = response.iter_lines()
        for model, status in ((MODEL, 200), ("fails", 503)):
            answer = httpx.post(f"{server.url}/admin/model/load", json={"model_id": model}, timeout=60)
            assert answer.status_code == status, answer.text
        seen = ""
        for line in lines:
            seen += line
            if "so and so" in seen:
                break
        assert "model.loaded" in seen
    until(lambda: "/admin/events" in server.log, "the end of the stream to be noticed")
    assert server.stop() == 0
