"""``GET /v1/models`` and ``/v1/models/{id}``."""

from __future__ import annotations

from dataclasses import replace

from openai.types import Model

from inference.api import deps
from tests.api.conftest import Api
from tests.api.fake_engine import FakeCatalog, FakeEngine, small_catalog


async def test_it_works(api: Api) -> None:
    status, body = await api.get("/v1/models")
    assert status == 200
    assert body["object"] == "list"
    assert [model["id"] for model in body["data"]] == ["acme/tiny"]  # not the broken one
    model = body["data"][0]
    Model.model_validate(model, strict=True)
    assert model["owned_by"] == "acme"
    assert model["state"] == "unloaded"
    assert model["type"] == "llm"
    assert model["context_length"] == 2048
    assert model["size_bytes"] == 1_500_000_000
    assert model["capabilities"] is None


async def test_a_loaded_model_tells_what_it_can_do(api: Api, engine: FakeEngine) -> None:
    await engine.load("acme/tiny", context=1024, slots=None, pin=None)
    _, body = await api.get("/v1/models/acme/tiny")
    assert body["state"] == "ready"
    assert body["loaded_context_length"] == 1024
    assert {"chat", "completion", "tools"} <= set(body["capabilities"])


async def test_a_model_is_found_by_its_other_names(api: Api) -> None:
    for name in ("acme/tiny", "tiny", "small", "default", "acme/tiny/"):
        status, body = await api.get(f"/v1/models/{name}")
        assert status == 200
        assert body["id"] == name.rstrip("/")
        assert body["root"] == "acme/tiny"


async def test_an_unknown_model_is_not_found(api: Api) -> None:
    status, body = await api.get("/v1/models/nobody/nothing")
    assert status == 404
    assert body["error"]["code"] == "model_not_found"
    assert body["error"]["type"] == "invalid_request_error"


async def test_a_trailing_slash_is_tolerated(api: Api) -> None:
    assert (await api.get("/v1/models/"))[1]["object"] == "list"
    assert (await api.get("/admin/health/"))[1]["status"] == "healthy"


async def test_files_tell_what_a_model_can_do_before_it_is_loaded(api: Api) -> None:
    ref = small_catalog().resolve("acme/tiny")
    deps.configure(catalog=FakeCatalog(replace(ref, capabilities=("chat", "tools"), parameters=7, licence="mit")))
    _, body = await api.get("/v1/models/acme/tiny")
    assert body["capabilities"] == ["chat", "tools"]
    _, listed = await api.get("/admin/models/list")
    [tiny] = [one for one in listed["models"] if one["model_id"] == "acme/tiny"]
    assert (tiny["capabilities"], tiny["parameters"], tiny["licence"]) == (["chat", "tools"], 7, "mit")
    _, studio = await api.get("/api/v1/models")
    [tiny] = [one for one in studio["models"] if one["key"] == "acme/tiny"]
    assert tiny["capabilities"]["trained_for_tool_use"] is True
