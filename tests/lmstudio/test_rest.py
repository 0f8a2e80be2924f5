"""The requests of LM Studio's documentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest

from inference.api import deps
from inference.errors import NotFound
from inference.fetching import JobStatus
from inference.ipc import Finished, Usage
from inference.protocols.lmstudio import SDK_PATHS
from tests.api.conftest import Api
from tests.api.fake_engine import FakeCatalog, FakeEngine, finished, small_catalog, started, text

HI = [{"role": "user", "content": "Hi"}]
LOAD = "/api/v1/models/load"
RUNNING = JobStatus(12, "fetch", "acme/new", "running", "fetch", 948, 2000, "bytes", 78.5, 13.4, "", "", 1.5)


@dataclass
class Fetches:
    """Knows the jobs it is given; starts what is asked as the first of them."""

    known: Sequence[JobStatus]
    asked: tuple[str, str | None, str | None] | None = None

    async def start(
        self, repo: str, revision: str | None = None, quantization: str | None = None, *, auto_load: bool = False
    ) -> JobStatus:
        self.asked = (repo, revision, quantization)
        return self.known[0]

    async def wait(self, job: int) -> JobStatus:
        return await self.status(job)

    async def status(self, job: int) -> JobStatus:
        for one in self.known:
            if one.job == job:
                return one
        raise NotFound("no such job", code="job_not_found")

    async def jobs(self, limit: int = 100) -> list[JobStatus]:
        return list(self.known)[:limit]

    async def cancel(self, job: int) -> JobStatus:
        return await self.status(job)

    async def pause(self, job: int) -> JobStatus:
        return await self.status(job)

    async def resume(self, job: int) -> JobStatus:
        return await self.status(job)


def fetches(*jobs: JobStatus) -> Fetches:
    found = Fetches(jobs)
    deps.configure(catalog=small_catalog(), fetcher=found)
    return found


async def test_models_before_and_after_a_load(api: Api) -> None:
    (model,) = (await api.get("/api/v1/models"))[1]["models"]
    assert (model["type"], model["publisher"], model["key"]) == ("llm", "acme", "acme/tiny")
    assert model["quantization"] == {"name": "4bit", "bits_per_weight": 4}
    assert (model["size_bytes"], model["max_context_length"], model["format"]) == (1_500_000_000, 2048, "mlx")
    assert model["loaded_instances"] == []
    status, told = await api.post(LOAD, {"model": "small", "context_length": 1024, "echo_load_config": True})
    assert (status, told["type"], told["instance_id"], told["status"]) == (200, "llm", "acme/tiny", "loaded")
    assert told["load_config"]["flash_attention"] is True
    (model,) = (await api.get("/api/v1/models"))[1]["models"]
    assert [instance["id"] for instance in model["loaded_instances"]] == ["acme/tiny"]


async def test_v0_models(api: Api) -> None:
    status, body = await api.get("/api/v0/models")
    assert (status, body["object"]) == (200, "list")
    expected = {
        "id": "acme/tiny",
        "object": "model",
        "type": "llm",
        "publisher": "acme",
        "arch": "llama",
        "compatibility_type": "mlx",
        "quantization": "4bit",
        "state": "not-loaded",
        "max_context_length": 2048,
    }
    assert body["data"] == [expected]
    await api.post(LOAD, {"model": "acme/tiny"})
    status, body = await api.get("/api/v0/models/acme/tiny")
    assert (status, body["state"]) == (200, "loaded")
    assert "loaded_context_length" in body
    assert (await api.get("/api/v0/models/nothing"))[0] == 404


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"context_length": 0}, "invalid_value"),
        ({"context_length": "9"}, "invalid_type"),
        ({"ttl": -1}, "invalid_value"),
        ({"num_experts": 4}, "unsupported_parameter"),
        ({"echo_load_config": 1}, "invalid_type"),
        ({"model": ""}, "invalid_value"),
    ],
)
async def test_a_load_that_is_refused(api: Api, more: dict[str, object], code: str) -> None:
    status, body = await api.post(LOAD, {"model": "acme/tiny", **more})
    assert (status, body["error"]["code"], body["error"]["param"]) == (400, code, next(iter(more)))


async def test_load_parameters_without_effect(api: Api) -> None:
    body = {"model": "acme/tiny", "flash_attention": True, "eval_batch_size": 512, "offload_kv_cache_to_gpu": False}
    status, headers, _ = await api.send("POST", LOAD, {**body, "banana": 1})
    assert (status, headers["x-lmx-ignored"]) == (200, "banana")


async def test_unload(api: Api) -> None:
    unload = "/api/v1/models/unload"
    status, body = await api.post(unload, {"instance_id": "acme/tiny"})
    assert (status, body["error"]["code"]) == (404, "model_not_loaded")
    await api.post(LOAD, {"model": "acme/tiny"})
    assert await api.post(unload, {"instance_id": "acme/tiny"}) == (200, {"instance_id": "acme/tiny"})
    assert (await api.post(unload, {}))[1]["error"]["param"] == "instance_id"


async def test_a_chat_with_statistics(api: Api, engine: FakeEngine) -> None:
    body = {"model": "acme/tiny", "messages": HI, "temperature": 0.7, "max_tokens": -1, "stream": False}
    status, told = await api.post("/api/v0/chat/completions", body)
    assert (status, told["object"], told["choices"][0]["message"]["content"]) == (200, "chat.completion", "Hello")
    assert set(told["stats"]) == {"tokens_per_second", "time_to_first_token", "generation_time", "stop_reason"}
    assert told["stats"]["stop_reason"] == "eosFound"
    assert told["model_info"] == {"arch": "llama", "quant": "4bit", "format": "mlx", "context_length": 2048}
    assert told["runtime"]["supported_formats"] == ["mlx"]


async def test_a_model_that_is_gone_when_its_answer_ends(api: Api, engine: FakeEngine) -> None:
    deps.configure(catalog=FakeCatalog())
    status, told = await api.post("/api/v0/chat/completions", {"model": "acme/tiny", "messages": HI})
    assert (status, told["model_info"]["arch"]) == (200, None)


async def test_the_finishing_chunk_has_the_statistics(api: Api, engine: FakeEngine) -> None:
    first, second = finished("length"), finished("tool_calls", choice=1)
    engine.respond = lambda request: [[started(), text("a"), text("b", choice=1), first, second]]
    body = {"messages": HI, "n": 2, "stream_options": {"include_usage": True}}
    chunks = await api.stream("/api/v0/chat/completions", body)
    having = [chunk for chunk in chunks if "stats" in chunk]
    assert [chunk["choices"][0]["finish_reason"] for chunk in having] == ["tool_calls"]
    assert having[0]["stats"]["stop_reason"] == "toolCalls"
    assert chunks[-1] == "[DONE]"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_completion_that_a_text_stopped(api: Api, engine: FakeEngine, stream: bool) -> None:
    end = Finished("", reason="stop", stop_sequence="\n", usage=Usage(prompt_tokens=5, completion_tokens=1))
    engine.respond = lambda request: [[started(), text("a"), end]]
    body = {"model": "acme/tiny", "prompt": "the meaning of life is", "max_tokens": 10, "stop": "\n"}
    path = "/api/v0/completions"
    told = (await api.stream(path, body))[-2] if stream else (await api.post(path, body))[1]
    assert told["stats"]["stop_reason"] == "stopStringFound"


async def test_embeddings(api: Api) -> None:
    status, body = await api.post("/api/v0/embeddings", {"model": "small", "input": "Some text to embed"})
    assert (status, body["object"], len(body["data"])) == (200, "list", 1)


async def test_a_download(api: Api) -> None:
    found = fetches(RUNNING)
    asked = {"model": "https://huggingface.co/acme/new", "quantization": "4bit"}
    status, body = await api.post("/api/v1/models/download", asked)
    assert found.asked == ("https://huggingface.co/acme/new", None, "4bit")
    assert body.pop("estimated_completion").endswith("Z")
    expected = {
        "job_id": "job_12",
        "status": "downloading",
        "total_size_bytes": 2000,
        "downloaded_bytes": 948,
        "started_at": "1970-01-01T00:00:01.500Z",
        "bytes_per_second": 78.5,
    }
    assert (status, body) == (200, expected)


async def test_the_states_of_downloads(api: Api) -> None:
    ended = replace(RUNNING, job=0, state="done", finished_at=9.0)
    cancelled = replace(RUNNING, job=1, state="cancelled", finished_at=9.0)
    failed = replace(RUNNING, job=2, state="failed", message="no space", code="insufficient_storage")
    fetches(ended, cancelled, failed, RUNNING, replace(RUNNING, job=4, kind="verify"))
    status = "/api/v1/models/download/status"
    body = (await api.get(status))[1]
    assert {state: [one["job_id"] for one in jobs] for state, jobs in body.items()} == {
        "downloading": ["job_12"],
        "completed": ["job_0"],
        "failed": ["job_2"],
        "paused": ["job_1"],
    }
    done = (await api.get(f"{status}/job_0"))[1]
    assert (done["downloaded_bytes"], done["completed_at"]) == (2000, "1970-01-01T00:00:09.000Z")
    assert (await api.get(f"{status}/2"))[1]["error"] == {"message": "no space", "code": "insufficient_storage"}
    for wrong in ("job_99", "job_4", "job_x", "1" * 400):
        assert (await api.get(f"{status}/{wrong}"))[0] == 404


async def test_what_is_there_already(api: Api) -> None:
    fetches(replace(RUNNING, state="already_downloaded"))
    assert await api.post("/api/v1/models/download", {"model": "acme/new"}) == (200, {"status": "already_downloaded"})


async def test_what_is_not_spoken(api: Api) -> None:
    for path in SDK_PATHS:
        status, body = await api.get(f"/{path}")
        assert (status, body["error"]["code"]) == (501, "unsupported")
    status, body = await api.post("/api/v1/chat", {"model": "acme/tiny", "input": "Hi"})
    assert status == 501
    assert "/v1/responses" in body["error"]["message"]
    assert (await api.get("/api/v1/nothing"))[0] == 404
