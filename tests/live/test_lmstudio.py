"""LM Studio's API at the real server: a model's life, statistics, keys, and what its SDKs meet."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.live.process import MODEL, LiveServer, fake_model

pytestmark = pytest.mark.live
BODY = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}


@contextmanager
def serving(home: Path, variables: dict[str, str] | None = None) -> Iterator[LiveServer]:
    fake_model(home)
    found = LiveServer(home, variables)
    try:
        yield found.start()
        found.stop()
    finally:
        found.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with serving(tmp_path_factory.mktemp("home")) as running:
        yield running


def test_a_models_life(server: LiveServer) -> None:
    with httpx.Client(base_url=server.url, timeout=60) as http:
        loaded = http.post("/api/v1/models/load", json={"model": MODEL, "context_length": 64, "echo_load_config": True})
        assert loaded.status_code == 200, loaded.text
        config = loaded.json()["load_config"]
        assert config["context_length"] >= 64
        again = http.post("/api/v1/models/load", json={"model": MODEL, "context_length": 32}).json()
        assert (again["status"], again["load_time_seconds"]) == ("loaded", 0.0)
        (model,) = http.get("/api/v1/models").json()["models"]
        assert model["loaded_instances"] == [{"id": MODEL, "config": config}]
        assert http.get(f"/api/v0/models/{MODEL}").json()["loaded_context_length"] == config["context_length"]
        answer = http.post("/api/v0/chat/completions", json={**BODY, "ttl": 600})
        assert answer.status_code == 200, answer.text
        stats = answer.json()["stats"]
        assert stats["stop_reason"] in ("eosFound", "maxPredictedTokensReached")
        assert stats["tokens_per_second"] > 0
        streamed = http.post("/api/v0/chat/completions", json={**BODY, "stream": True}).text
        assert streamed.count('"stats":{') == 1
        assert http.post("/api/v1/models/unload", json={"instance_id": MODEL}).json() == {"instance_id": MODEL}
        assert http.get(f"/api/v0/models/{MODEL}").json()["state"] == "not-loaded"


def test_what_the_sdks_meet(server: LiveServer) -> None:
    with httpx.Client(base_url=server.url, timeout=60) as http:
        for path in ("/lmstudio-greeting", "/llm", "/system"):
            plain = http.get(path)
            assert (plain.status_code, plain.json()["error"]["code"]) == (501, "unsupported")
        key = base64.b64encode(os.urandom(16)).decode()
        shake = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": key,
        }
        assert http.get("/llm", headers=shake).status_code == 403
        assert http.get("/api/v0/models").status_code == 200  # nothing is lost


def test_keys(tmp_path: Path) -> None:
    keys = {"LMX_SECURITY__API_KEY": "inference-key-0001", "LMX_SECURITY__ADMIN_KEY": "admin-key-0000001"}
    with serving(tmp_path, keys) as server, httpx.Client(base_url=server.url, timeout=60) as http:
        assert http.get("/api/v1/models").status_code == 401
        assert http.get("/llm").status_code == 501  # a program, not a person who could log in
        http.headers["authorization"] = "Bearer inference-key-0001"
        assert http.post("/api/v1/models/load", json={"model": MODEL}).status_code == 200
        refused = http.post("/api/v1/models/unload", json={"instance_id": MODEL})
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "admin_key_required")
        assert http.post("/api/v1/models/download", json={"model": "acme/new"}).status_code == 403
        http.headers["authorization"] = "Bearer admin-key-0000001"
        assert http.post("/api/v1/models/unload", json={"instance_id": MODEL}).status_code == 200
