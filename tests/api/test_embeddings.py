"""``POST /v1/embeddings``."""

from __future__ import annotations

import base64
import struct

import openai
from openai.types import CreateEmbeddingResponse

from inference.errors import Unsupported
from tests.api.conftest import Api
from tests.api.fake_engine import FakeEngine
from tests.conformance.strict import check

EMBEDDINGS = "/v1/embeddings"


async def test_it_works(api: Api, engine: FakeEngine) -> None:
    status, body = await api.post(EMBEDDINGS, {"model": "small", "input": ["ab", "c"]})
    assert status == 200
    check(body, CreateEmbeddingResponse)
    assert [one["embedding"] for one in body["data"]] == [[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]]
    assert [one["index"] for one in body["data"]] == [0, 1]
    assert body["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    assert body["model"] == "small"
    assert engine.asked == [("embed", "acme/tiny", ["ab", "c"], None)]


async def test_base64_is_of_little_endian_floats(api: Api) -> None:
    _, body = await api.post(EMBEDDINGS, {"input": [[1, 2]], "encoding_format": "base64", "dimensions": 3})
    assert struct.unpack("<3f", base64.b64decode(body["data"][0]["embedding"])) == (1.0, 0.0, 0.0)


async def test_the_sdk_which_asks_for_base64_by_itself(sdk: openai.AsyncOpenAI) -> None:
    answer = await sdk.embeddings.create(model="small", input="ab", dimensions=2)
    assert answer.data[0].embedding == [1.0, 0.0]
    plain = await sdk.embeddings.create(model="small", input=[1, 2], dimensions=2, encoding_format="float")
    assert plain.data[0].embedding == [1.0, 0.0]


async def test_many_inputs(api: Api) -> None:
    assert len((await api.post(EMBEDDINGS, {"input": ["x"] * 2048}))[1]["data"]) == 2048
    status, body = await api.post(EMBEDDINGS, {"input": ["x"] * 2049})
    assert (status, body["error"]["param"]) == (400, "input")
    status, body = await api.post(EMBEDDINGS, {"input": [[1], []]})
    assert (status, body["error"]["param"]) == (400, "input[1]")


async def test_a_model_that_makes_none(api: Api, engine: FakeEngine) -> None:
    engine.embed_error = Unsupported("acme/tiny makes no embeddings", param="model")
    status, body = await api.post(EMBEDDINGS, {"input": "x"})
    assert (status, body["error"]["code"], body["error"]["param"]) == (501, "unsupported", "model")


async def test_unknown_parameters_are_named_in_a_header(api: Api) -> None:
    _, headers, _ = await api.send("POST", EMBEDDINGS, {"input": "x", "banana": 1, "user": "u"})
    assert headers["x-lmx-ignored"] == "banana"
