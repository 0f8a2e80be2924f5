"""Embeddings over HTTP with the official client: a random model beside one that talks, and the real MiniLM."""

from __future__ import annotations

import asyncio
import base64
from array import array
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest

from tests.live.process import LiveServer
from tests.live.real import HI, admin, pid_of, real_server, sdk
from tests.material import encoder_model, nano_model, place
from tests.material.encoder import CONTEXT
from tests.worker.backends.real import minilm

pytestmark = pytest.mark.live
NAME = "org/vectors"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    home = tmp_path_factory.mktemp("home")
    place(encoder_model(), home / "models" / NAME)
    place(nano_model(), home / "models" / "nano")
    with real_server(home) as running:
        yield running


def test_it_works(server: LiveServer) -> None:
    texts = ["a cat sits", "stock market", "x"]
    with sdk(server) as client:
        made = client.embeddings.create(model=NAME, input=texts)  # base64, unless the caller says otherwise
        plain = client.embeddings.create(model=NAME, input=texts, encoding_format="float")
    assert [item.index for item in made.data] == [0, 1, 2]
    assert made.usage.prompt_tokens == made.usage.total_tokens > len(texts)
    for one, other in zip(made.data, plain.data, strict=True):
        assert len(one.embedding) == 64
        np.testing.assert_allclose(one.embedding, other.embedding, atol=1e-6)
        assert np.linalg.norm(one.embedding) == pytest.approx(1.0, abs=1e-5)


def test_base64_is_little_endian_float32(server: LiveServer) -> None:
    body = {"model": NAME, "input": "x", "encoding_format": "base64", "dimensions": 8}
    answer = httpx.post(f"{server.url}/v1/embeddings", json=body, timeout=60).json()
    values = array("f", base64.b64decode(answer["data"][0]["embedding"]))
    assert len(values) == 8


def test_the_list_says_what_it_is_before_it_is_loaded(server: LiveServer) -> None:
    with sdk(server) as client:
        kinds = {model.id: model.to_dict()["type"] for model in client.models.list()}
        chat = client.chat.completions.create(model="default", messages=HI, max_tokens=2)
    assert kinds == {NAME: "embeddings", "nano": "llm"}
    assert chat.model == "default"


@pytest.mark.parametrize("asked", ["vectors", "text-embedding-vectors", NAME])
def test_names(server: LiveServer, asked: str) -> None:
    with sdk(server) as client:
        assert client.embeddings.create(model=asked, input="x").model == asked


def test_tokens_as_input(server: LiveServer) -> None:
    answer = httpx.post(f"{server.url}/v1/tokenize", json={"model": NAME, "prompt": "the sea"}, timeout=60).json()
    with sdk(server) as client:
        by_ids = client.embeddings.create(model=NAME, input=[answer["tokens"]])
        by_text = client.embeddings.create(model=NAME, input="the sea")
    np.testing.assert_allclose(by_ids.data[0].embedding, by_text.data[0].embedding, atol=1e-6)
    assert by_ids.usage == by_text.usage


def test_too_long_is_refused_and_says_which(server: LiveServer) -> None:
    with sdk(server) as client, pytest.raises(openai.BadRequestError, match=r"input\[1\] resulted in 102") as error:
        client.embeddings.create(model=NAME, input=["fits", "x" * 100])
    assert (error.value.code, error.value.param) == ("context_length_exceeded", "input")


@pytest.mark.parametrize(("options", "param"), [({"dimensions": 65}, "dimensions"), ({"input": [[300]]}, "input")])
def test_what_the_model_refuses(server: LiveServer, options: dict[str, object], param: str) -> None:
    body = {"model": NAME, "input": "x", **options}
    answer = httpx.post(f"{server.url}/v1/embeddings", json=body, timeout=60)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_a_model_that_talks_makes_none_and_one_that_makes_them_does_not_talk(server: LiveServer) -> None:
    with sdk(server) as client:
        with pytest.raises(openai.APIStatusError, match="embeddings") as none:
            client.embeddings.create(model="nano", input="x")
        with pytest.raises(openai.APIStatusError, match="embedding model") as mute:
            client.chat.completions.create(model=NAME, messages=HI)
    assert (none.value.status_code, mute.value.status_code) == (501, 501)


def test_many_clients_at_once_get_their_own(server: LiveServer) -> None:
    texts = [f"text number {number}" for number in range(40)]

    async def ask() -> list[list[float]]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="many", timeout=120) as client:
            answers = await asyncio.gather(*(client.embeddings.create(model=NAME, input=text) for text in texts))
        return [answer.data[0].embedding for answer in answers]

    with sdk(server) as client:
        together = client.embeddings.create(model=NAME, input=texts)
    for alone, item in zip(asyncio.run(ask()), together.data, strict=True):
        np.testing.assert_allclose(alone, item.embedding, atol=1e-5)


def test_it_is_one_worker_that_holds_no_kv(server: LiveServer) -> None:
    with sdk(server) as client:
        client.embeddings.create(model=NAME, input=["x" * (CONTEXT - 2)] * 100)
    assert pid_of(server, NAME)
    [loaded] = [model for model in admin(server, "models/loaded")["models"] if model["model_id"] == NAME]
    assert (loaded["kv_bytes"], loaded["capabilities"]) == (0, ["embeddings", "batching"])


@pytest.mark.slow
def test_the_real_one(tmp_path: Path) -> None:
    place(minilm(), tmp_path / "models" / "sentence-transformers" / "all-MiniLM-L6-v2")
    with real_server(tmp_path) as server, sdk(server) as client:
        answer = client.embeddings.create(
            model="all-minilm-l6-v2", input=["a cat sits", "a kitten rests", "stock market"]
        )
        cat, kitten, market = (np.array(item.embedding) for item in answer.data)
        assert float(cat @ kitten) == pytest.approx(0.66054, abs=1e-4)
        assert float(cat @ market) == pytest.approx(0.08202, abs=1e-4)
        assert answer.usage.prompt_tokens == 14
        [model] = list(client.models.list())
        told = model.to_dict()
        assert (told["type"], told["context_length"]) == ("embeddings", 256)
