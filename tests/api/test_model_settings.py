"""What the owner keeps for a model holds in every protocol where a request says nothing; the routes to change it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from inference.api import deps
from inference.ipc import GenerateRequest, Sampling
from inference.model_settings import ModelSettings, SettingsView, Values
from tests.api.conftest import Api, chat
from tests.api.fake_engine import FakeEngine

KEPT = ModelSettings(
    temperature=0.25,
    top_p=0.75,
    top_k=7,
    min_p=0.125,
    seed=11,
    repetition_penalty=1.5,
    presence_penalty=0.5,
    frequency_penalty=-0.5,
    max_tokens=33,
    stop=("END",),
    system_prompt="Be brief.",
    enable_thinking=False,
    chat_template_kwargs={"tone": "dry", "more": 1},
)
SAMPLING = Sampling(
    temperature=0.25,
    top_p=0.75,
    top_k=7,
    min_p=0.125,
    seed=11,
    repetition_penalty=1.5,
    presence_penalty=0.5,
    frequency_penalty=-0.5,
)
BRIEF = {"role": "system", "content": "Be brief."}
VARIABLES = {"tone": "dry", "more": 1, "enable_thinking": False}
HI = [{"role": "user", "content": "Hi"}]


@pytest.fixture(autouse=True)
def kept(engine: FakeEngine) -> None:
    refs = engine.catalog._refs
    refs[:] = [replace(ref, settings=KEPT) if ref.id == "acme/tiny" else ref for ref in refs]


async def asked(api: Api, engine: FakeEngine, path: str, body: dict[str, Any]) -> GenerateRequest:
    status, answer = await api.post(path, {"model": "small", **body})
    assert status == 200, answer
    return engine.requests[-1]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": HI, "temperature": None}),
        ("/api/v0/chat/completions", {"messages": HI}),
        ("/v1/messages", {"messages": HI, "max_tokens": 33}),
        ("/v1/responses", {"input": "Hi"}),
    ],
)
async def test_a_conversation(api: Api, engine: FakeEngine, path: str, body: dict[str, Any]) -> None:
    request = await asked(api, engine, path, body)
    assert (request.sampling, request.max_tokens, request.stop) == (SAMPLING, 33, ["END"])
    assert request.messages is not None
    assert request.messages[0] == BRIEF
    assert [message["role"] for message in request.messages] == ["system", "user"]
    assert request.template_kwargs == VARIABLES


async def test_a_text(api: Api, engine: FakeEngine) -> None:
    request = await asked(api, engine, "/v1/completions", {"prompt": "Once"})
    assert (request.sampling, request.max_tokens, request.stop) == (SAMPLING, 33, ["END"])
    assert (request.prompt, request.messages, request.template_kwargs) == ("Once", None, {})
    assert (await asked(api, engine, "/v1/completions", {"prompt": "Once", "max_tokens": 2})).max_tokens == 2


async def test_several_texts(api: Api, engine: FakeEngine) -> None:
    await asked(api, engine, "/v1/completions", {"prompt": ["One", "Two"]})
    assert {request.max_tokens for request in engine.requests} == {33}
    assert all(request.sampling == SAMPLING for request in engine.requests)


async def test_what_a_request_says_wins(api: Api, engine: FakeEngine) -> None:
    own = {
        "temperature": 1,
        "top_p": 1,
        "top_k": 0,
        "min_p": 0,
        "seed": 1,
        "repeat_penalty": 1,
        "presence_penalty": 0,
        "frequency_penalty": 0,
        "max_completion_tokens": -1,
        "stop": [],
        "enable_thinking": True,
        "chat_template_kwargs": {"tone": "warm"},
        "messages": [{"role": "developer", "content": "Be long."}, *HI],
    }
    request = await asked(api, engine, "/v1/chat/completions", own)
    assert (request.sampling, request.max_tokens, request.stop) == (Sampling(seed=1), None, [])
    assert [message["content"] for message in request.messages or []] == ["Be long.", "Hi"]
    assert request.template_kwargs == {"tone": "warm", "more": 1, "enable_thinking": True}
    request = await asked(api, engine, "/v1/messages", {"max_tokens": 5, "system": "Be long.", "messages": HI})
    assert request.max_tokens == 5
    assert [message["content"] for message in request.messages or []] == ["Be long.", "Hi"]
    request = await asked(
        api, engine, "/v1/responses", {"input": "Hi", "instructions": "Be long.", "max_output_tokens": 5}
    )
    assert request.max_tokens == 5
    assert [message["content"] for message in request.messages or []] == ["Be long.", "Hi"]


@pytest.mark.parametrize("more", [{"reasoning_effort": "high"}, {"thinking_token_budget": 100}])
async def test_who_says_how_long_to_think_wants_it_thought(api: Api, engine: FakeEngine, more: dict[str, Any]) -> None:
    request = await asked(api, engine, "/v1/chat/completions", {"messages": HI, **more})
    assert "enable_thinking" not in request.template_kwargs


async def test_counts_are_those_of_what_is_asked(api: Api, engine: FakeEngine) -> None:
    status, told = await api.post("/v1/messages/count_tokens", {"model": "small", "messages": HI})
    assert (status, told) == (200, {"input_tokens": 3})
    assert engine.requests[-1].template_kwargs == VARIABLES
    await api.post("/v1/tokenize", {"model": "small", "messages": HI})
    template = next(one[1] for one in engine.asked if one[0] == "template")
    assert template.messages == [BRIEF, *HI]


async def test_a_response_tells_what_it_was_made_with(api: Api) -> None:
    _, made = await api.post("/v1/responses", {"model": "small", "input": "Hi", "top_p": 1})
    assert (made["temperature"], made["top_p"], made["instructions"]) == (0.25, 1, None)
    _, after = await api.post(
        "/v1/responses", {"model": "small", "input": "And?", "previous_response_id": made["id"], "store": False}
    )
    assert after["status"] == "completed"


async def test_a_model_without_any(api: Api, engine: FakeEngine) -> None:
    engine.catalog._refs[:] = [replace(ref, settings=ModelSettings()) for ref in engine.catalog._refs]
    request = await asked(api, engine, "/v1/chat/completions", {"messages": HI})
    assert request == GenerateRequest(messages=HI)
    assert (await api.post("/v1/chat/completions", chat(model="nobody")))[0] == 404


class Keeper:
    """Keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Values]] = []

    def show(self, model_id: str) -> SettingsView:
        return SettingsView("acme/tiny", "acme/tiny", {"slots": 2}, {}, {"slots": 2}, ())

    async def change(self, model_id: str, changes: Values) -> SettingsView:
        self.told.append((model_id, changes))
        return replace(self.show(model_id), changed=tuple(changes))


async def test_the_routes(api: Api, engine: FakeEngine) -> None:
    keeper = Keeper()
    deps.configure(catalog=engine.catalog, settings=keeper)
    status, told = await api.get("/admin/model/settings?model_id=small")
    assert (status, told["settings"], told["reload_needed"]) == (200, {"slots": 2}, False)
    engine.states["acme/tiny"].reload_needed = True
    body = {"model_id": "small", "settings": {"slots": 3, "ttl": None}}
    status, told = await api.post("/admin/model/settings", body)
    assert (status, told["changed"], told["reload_needed"]) == (200, ["slots", "ttl"], True)
    assert (await api.post("/admin/model/pin", {"model_id": "small"}))[0] == 200
    assert keeper.told == [("small", {"slots": 3, "ttl": None}), ("small", {"pinned": True})]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"settings": {}}, "model_id"),
        ({"model_id": "small"}, "settings"),
        ({"model_id": "small", "settings": []}, "settings"),
        ({"model_id": "x" * 513, "settings": {}}, "model_id"),
        ({"model_id": "small", "settings": {}, "more": 1}, "more"),
    ],
)
async def test_wrong_bodies(api: Api, engine: FakeEngine, body: dict[str, Any], param: str) -> None:
    deps.configure(catalog=engine.catalog, settings=Keeper())
    status, told = await api.post("/admin/model/settings", body)
    assert (status, told["error"]["param"]) == (400, param)
    assert (await api.get("/admin/model/settings"))[0] == 400
    assert (await api.get("/admin/model/settings?model_id=" + "x" * 513))[0] == 400
