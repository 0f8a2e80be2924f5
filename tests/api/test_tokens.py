"""``POST /v1/tokenize`` and ``/v1/detokenize``."""

from __future__ import annotations

from tests.api.conftest import Api
from tests.api.fake_engine import FakeEngine

TOKENIZE = "/v1/tokenize"


async def test_it_works(api: Api) -> None:
    status, body = await api.post(TOKENIZE, {"model": "small", "prompt": "ab"})
    assert status == 200
    assert body == {"count": 3, "max_model_len": 2048, "tokens": [256, 97, 98], "token_strs": None}
    assert (await api.post("/v1/detokenize", {"model": "small", "tokens": [97, 98]})) == (200, {"prompt": "ab"})


async def test_without_special_tokens_and_with_texts(api: Api) -> None:
    _, body = await api.post(TOKENIZE, {"text": "ab", "add_special_tokens": False, "return_token_strs": True})
    assert (body["tokens"], body["token_strs"]) == ([97, 98], ["a", "b"])


async def test_a_conversation(api: Api, engine: FakeEngine) -> None:
    tools = [{"type": "function", "function": {"name": "now"}}]
    asked = {"messages": [{"role": "user", "content": "ab"}], "tools": tools, "chat_template_kwargs": {"mood": "calm"}}
    _, body = await api.post(TOKENIZE, asked)
    assert body["tokens"] == [97, 98]
    [(_, request), _] = engine.asked
    assert request.messages == [{"role": "user", "content": "ab"}]
    assert request.tools[0]["function"]["name"] == "now"
    assert request.template_kwargs == {"mood": "calm"}


async def test_the_context_is_the_loaded_models(api: Api, engine: FakeEngine) -> None:
    await engine.load("acme/tiny", context=512, slots=None, pin=None)
    assert (await api.post(TOKENIZE, {"prompt": ""}))[1]["max_model_len"] == 512


async def test_what_is_wrong_is_named(api: Api) -> None:
    for asked, param in (
        ({}, "prompt"),
        ({"prompt": "a", "messages": [{"role": "user", "content": "b"}]}, "prompt"),
        ({"messages": []}, "messages"),
        ({"prompt": "a", "model": "nobody"}, "model"),
    ):
        status, body = await api.post(TOKENIZE, asked)
        assert (status // 100, body["error"]["param"]) == (4, param)
