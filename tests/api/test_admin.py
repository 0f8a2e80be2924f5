"""``/admin``."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from inference.errors import InsufficientMemory
from inference.ipc import Stats
from tests.api.conftest import Api, chat
from tests.api.fake_engine import FakeEngine, started, text


async def test_load_answers_as_the_founding_document_says(api: Api, engine: FakeEngine) -> None:
    status, body = await api.post("/admin/model/load", {"model_id": "small", "context": 1024, "slots": 4, "pin": True})
    assert status == 200
    assert body["model_id"] == "small"
    assert body["memory_used_gb"] == 2.0
    assert body["status"] == "loaded"
    assert body["memory_used_bytes"] == 2**31
    assert body["resolved_id"] == "acme/tiny"
    assert engine.loads == [("acme/tiny", 1024, 4, True)]


async def test_load_that_nobody_waits_for(api: Api, engine: FakeEngine) -> None:
    engine.load_gate = asyncio.Event()
    status, body = await api.post("/admin/model/load", {"model_id": "acme/tiny", "wait": False})
    assert (status, body) == (202, {"model_id": "acme/tiny", "status": "loading"})
    await engine.waiting_for_load.wait()
    engine.load_gate.set()
    [load] = [task for task in asyncio.all_tasks() if task.get_name() == "load acme/tiny"]
    await load
    assert engine.states["acme/tiny"].state == "ready"


async def test_load_that_fails_and_nobody_waits_for(
    api: Api, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    engine.load_gate = asyncio.Event()
    engine.load_error = InsufficientMemory("does not fit")
    assert (await api.post("/admin/model/load", {"model_id": "acme/tiny", "wait": False}))[0] == 202
    engine.load_gate.set()
    [load] = [task for task in asyncio.all_tasks() if task.get_name() == "load acme/tiny"]
    await load
    assert "does not fit" in caplog.text


async def test_load_that_does_not_fit(api: Api, engine: FakeEngine) -> None:
    details = {"needed_bytes": 10, "free_bytes": 5, "unload": ["other"]}
    engine.load_error = InsufficientMemory("acme/tiny needs 10 bytes, 5 are free", details=details)
    status, body = await api.post("/admin/model/load", {"model_id": "acme/tiny"})
    assert status == 507
    assert body["error"] == {
        **details,
        "message": "acme/tiny needs 10 bytes, 5 are free",
        "type": "server_error",
        "param": None,
        "code": "insufficient_memory",
    }


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "model_id"),
        ({"model_id": ""}, "model_id"),
        ({"model_id": "m" * 1000}, "model_id"),
        ({"model_id": 1}, "model_id"),
        ({"model_id": "tiny", "ttl": 0}, "ttl"),
        ({"model_id": "tiny", "ttl": "60"}, "ttl"),
        ({"model_id": "tiny", "ttl": 1e12}, "ttl"),
        ({"model_id": "tiny", "quantization": "4bit"}, "quantization"),
        ({"model_id": "tiny", "context": 0}, "context"),
        ({"model_id": "tiny", "slots": "4"}, "slots"),
        ({"model_id": "tiny", "pin": 1}, "pin"),
        ({"model_id": "tiny", "contxt": 5}, "contxt"),
    ],
)
async def test_loads_that_are_wrong(api: Api, body: dict[str, Any], param: str) -> None:
    status, answer = await api.post("/admin/model/load", body)
    assert status == 400
    assert answer["error"]["param"] == param


async def test_a_time_to_live(api: Api, engine: FakeEngine) -> None:
    status, body = await api.post("/admin/model/load", {"model_id": "tiny", "ttl": 600})
    assert (status, body["ttl"]) == (200, 600)
    _, body = await api.get("/admin/models/loaded")
    assert body["models"][0]["ttl"] == 600


async def test_what_the_prefix_cache_found(api: Api, engine: FakeEngine) -> None:
    await engine.load("acme/tiny", context=None, slots=None, pin=None)
    stats = Stats(prefix_bytes=5, prefix_entries=2, prefix_tokens_asked=300, prefix_tokens_found=200)
    engine.states["acme/tiny"].stats = stats
    _, body = await api.get("/admin/models/loaded")
    assert body["models"][0]["prefix_cache"] == {
        "bytes": 5,
        "entries": 2,
        "disk_bytes": 0,
        "tokens_asked": 300,
        "tokens_found": 200,
        "found_percent": 66.7,
    }


async def test_an_absent_model_is_fetched_only_if_that_is_asked(api: Api) -> None:
    """Here nobody could fetch it: what fetching does is tried at the real server."""
    for asked in ({}, {"download": False}):
        assert (await api.post("/admin/model/load", {"model_id": "nobody/nothing", **asked}))[0] == 404
    status, body = await api.post("/admin/model/load", {"model_id": "nobody/nothing", "download": True})
    assert (status, body["error"]["code"]) == (503, "model_unavailable")


@pytest.mark.parametrize("method", ["DELETE", "POST"])
@pytest.mark.parametrize("in_body", [True, False])
async def test_unload(api: Api, engine: FakeEngine, method: str, in_body: bool) -> None:
    await engine.load("acme/tiny", context=None, slots=None, pin=None)
    path = "/admin/model/unload" if in_body else "/admin/model/unload?model_id=acme%2Ftiny"
    status, _, content = await api.send(method, path, {"model_id": "acme/tiny"} if in_body else None)
    assert status == 200
    assert content == (
        b'{"model_id":"acme/tiny","status":"unloaded","memory_freed_gb":2.0,"memory_freed_bytes":2147483648}'
    )


async def test_unload_needs_one_name(api: Api) -> None:
    assert (await api.send("DELETE", "/admin/model/unload"))[0] == 400
    status, _, _ = await api.send("POST", "/admin/model/unload?model_id=a", {"model_id": "b"})
    assert status == 400


async def test_the_list_shows_what_cannot_run_and_why(api: Api, engine: FakeEngine) -> None:
    engine.states.pop("broken")
    _, body = await api.get("/admin/models/list")
    tiny, broken = body["models"]
    assert (tiny["model_id"], tiny["state"], tiny["disk_state"]) == ("acme/tiny", "unloaded", "adopted")
    assert (broken["state"], broken["reason"]) == ("failed", "model.safetensors is truncated")


async def test_the_list_has_the_last_words_of_a_worker_that_is_gone(api: Api, engine: FakeEngine) -> None:
    lines = [f"line {number}" for number in range(30)]
    status = engine.states["acme/tiny"]
    status.recent_stderr = lines
    assert (await api.get("/admin/models/list"))[1]["models"][0]["worker_output"] == []
    status.state = "failed"
    assert (await api.get("/admin/models/list"))[1]["models"][0]["worker_output"] == lines[-20:]


async def test_loaded_models_and_status(api: Api, engine: FakeEngine) -> None:
    assert (await api.get("/admin/models/loaded"))[1] == {"models": []}
    await engine.load("acme/tiny", context=None, slots=None, pin=None)
    [model] = (await api.get("/admin/models/loaded"))[1]["models"]
    assert (model["state"], model["memory_used_bytes"], model["tokens_per_second"]) == ("ready", 2**31, 12.5)
    _, body = await api.get("/admin/status")
    assert body["status"] == "healthy"
    assert body["memory"] == {"total_bytes": 100, "free_bytes": 40}
    assert body["models"] == [model]
    assert body["requests"] == []
    assert body["tokens_per_second"] == 12.5


async def test_status_shows_requests_without_their_text(api: Api, engine: FakeEngine) -> None:
    engine.scripts.append([[started(), text("secret answer")], asyncio.Event()])
    asking = asyncio.create_task(api.post("/v1/chat/completions", chat()))
    await engine.made.wait()
    _, _, content = await api.send("GET", "/admin/status")
    assert b'"endpoint":"/v1/chat/completions"' in content
    assert b"secret" not in content
    asking.cancel()
    await asyncio.wait({asking})


async def test_health_words(api: Api, engine: FakeEngine) -> None:
    assert await api.get("/admin/health") == (200, {"status": "healthy", "reasons": []})
    engine.word = "degraded"
    assert (await api.get("/admin/health"))[0] == 200
    engine.word = "error"
    assert await api.get("/admin/health") == (503, {"status": "error", "reasons": ["acme/tiny does not answer"]})


async def test_cancelling_an_unknown_request(api: Api) -> None:
    status, body = await api.post("/admin/requests/cancel", {"id": "chatcmpl-nothing"})
    assert (status, body["error"]["code"]) == (404, "request_not_found")
