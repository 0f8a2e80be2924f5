"""LM Studio's documented requests over random models in the real engine."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import orjson
import pytest

from tests.live.process import LiveServer
from tests.live.real import real_server
from tests.material import encoder_model, nano_model, place

pytestmark = pytest.mark.live
CHAT = "org/nano-1b"
VECTORS = "org/vectors"
MESSAGES = [
    {"role": "system", "content": "Always answer in rhymes."},
    {"role": "user", "content": "Introduce yourself."},
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    home = tmp_path_factory.mktemp("home")
    place(nano_model(), home / "models" / CHAT)
    place(encoder_model(), home / "models" / VECTORS)
    with real_server(home) as running:
        yield running


def post(server: LiveServer, path: str, body: dict[str, object]) -> httpx.Response:
    answer = httpx.post(server.url + path, json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer


def test_models_of_both_kinds(server: LiveServer) -> None:
    models = httpx.get(f"{server.url}/api/v1/models", timeout=60).json()["models"]
    told = {model["key"]: model for model in models}
    assert (told[CHAT]["type"], told[CHAT]["params_string"]) == ("llm", "1B")
    assert told[VECTORS]["type"] == "embedding"
    assert "capabilities" not in told[VECTORS]


def test_chat_and_completion(server: LiveServer) -> None:
    body = {"model": CHAT, "messages": MESSAGES, "temperature": 0.7, "max_tokens": 5, "ttl": 300}
    told = post(server, "/api/v0/chat/completions", body).json()
    assert told["stats"]["stop_reason"] in ("eosFound", "maxPredictedTokensReached")
    assert told["stats"]["generation_time"] >= 0 < told["model_info"]["context_length"]
    lines = post(server, "/api/v0/chat/completions", {**body, "stream": True}).text.split("\n\n")
    chunks = [orjson.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert "stats" in chunks[-1]
    assert all("stats" not in chunk for chunk in chunks[:-1])
    body = {"model": CHAT, "prompt": "the meaning of life is", "temperature": 0.7, "max_tokens": 10, "stop": "\n"}
    assert post(server, "/api/v0/completions", body).json()["stats"]["stop_reason"] != "failed"


def test_embeddings(server: LiveServer) -> None:
    post(server, "/api/v1/models/load", {"model": VECTORS})
    told = post(server, "/api/v0/embeddings", {"model": VECTORS, "input": "Some text to embed"}).json()
    assert len(told["data"][0]["embedding"]) == 64
