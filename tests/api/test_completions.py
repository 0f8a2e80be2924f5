"""``POST /v1/completions``."""

from __future__ import annotations

from openai.types import Completion

from inference.ipc import TokenLogprob, TopLogprob
from tests.api.conftest import COMPLETIONS, Api
from tests.api.fake_engine import FakeEngine, Script, finished, started, text, thought

ONCE = {"model": "acme/tiny", "prompt": "Once "}


async def test_it_works(api: Api, engine: FakeEngine) -> None:
    status, body = await api.post(COMPLETIONS, ONCE)
    assert status == 200
    Completion.model_validate(body, strict=True)
    assert body["choices"] == [{"index": 0, "text": "Hello", "logprobs": None, "finish_reason": "stop"}]
    assert engine.requests[0].prompt == "Once "


async def test_a_stream_gives_the_same(api: Api) -> None:
    *chunks, last, done = await api.stream(COMPLETIONS, {**ONCE, "stream_options": {"include_usage": True}})
    assert done == "[DONE]"
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == "Hello"
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, "stop"]
    assert all(chunk["usage"] is None and chunk["object"] == "text_completion" for chunk in chunks)
    assert last["choices"] == []
    assert last["usage"] == (await api.post(COMPLETIONS, ONCE))[1]["usage"]


async def test_logprobs(api: Api, engine: FakeEngine) -> None:
    tokens = [
        TokenLogprob(1, "Hé", "Hé".encode(), -0.1, [TopLogprob(1, "Hé", "Hé".encode(), -0.1)]),
        TokenLogprob(2, "llo", b"llo", -2.0, [TopLogprob(3, "y", b"y", -0.2)]),
    ]
    script: Script = [[started()], [text("Hé", logprobs=tokens[:1])], [text("llo", logprobs=tokens[1:])], [finished()]]
    engine.scripts += [script, script]
    _, body = await api.post(COMPLETIONS, {**ONCE, "logprobs": 1})
    Completion.model_validate(body, strict=True)
    expected = {
        "tokens": ["Hé", "llo"],
        "token_logprobs": [-0.1, -2.0],
        "top_logprobs": [{"Hé": -0.1}, {"y": -0.2, "llo": -2.0}],
        "text_offset": [0, 2],
    }
    assert body["choices"][0]["logprobs"] == expected
    chunks = (await api.stream(COMPLETIONS, {**ONCE, "logprobs": 1}))[:-1]
    parts = [chunk["choices"][0]["logprobs"] for chunk in chunks if chunk["choices"][0]["logprobs"]]
    assert {name: [item for part in parts for item in part[name]] for name in expected} == expected


async def test_reasoning_is_part_of_the_text(api: Api, engine: FakeEngine) -> None:
    script: Script = [[started()], [thought("hm ")], [text("yes"), finished()]]
    engine.scripts += [script, script]
    assert (await api.post(COMPLETIONS, ONCE))[1]["choices"][0]["text"] == "hm yes"
    chunks = (await api.stream(COMPLETIONS, ONCE))[:-1]
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == "hm yes"
