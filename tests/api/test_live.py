"""The real server, a real model in a real worker, the official client over a real socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.conformance.strict import check
from tests.live.process import LiveServer
from tests.material import models_dir

pytestmark = [pytest.mark.live, pytest.mark.slow]
HI: list[Any] = [{"role": "user", "content": "Say something."}]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """One for all tests of this file: the worker's start takes longer than they do."""
    home = tmp_path_factory.mktemp("home")
    models_dir(home / "models", "tiny")
    found = LiveServer(home, {"LMX_ENGINE__BACKEND": "vllm_mlx"})
    try:
        yield found.start()
        assert found.stop() == 0, found.stderr
    finally:
        found.close()


@pytest.fixture
def client(server: LiveServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="bot-3", max_retries=0) as found:
        yield found


def chunk_text(chunks: list[ChatCompletionChunk], choice: int = 0) -> str:
    return "".join(c.delta.content or "" for chunk in chunks for c in chunk.choices if c.index == choice)


def test_every_parameter_of_the_first_release(client: openai.OpenAI) -> None:
    parameters: dict[str, Any] = {
        "model": "tiny",
        "messages": [{"role": "developer", "content": "Be odd."}, *HI],
        "max_completion_tokens": 12,
        "temperature": 1.2,
        "top_p": 0.9,
        "seed": 11,
        "n": 2,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.5,
        "logit_bias": {"40": 3},
        "logprobs": True,
        "top_logprobs": 3,
        "stop": ["\x00never"],
        "user": "somebody",
        "extra_body": {"top_k": 50, "min_p": 0.01, "repetition_penalty": 1.1, "unheard_of": 1},
    }
    raw = client.chat.completions.with_raw_response.create(**parameters)
    assert raw.headers["x-lmx-ignored"] == "unheard_of"
    whole = ChatCompletion.model_validate(json.loads(raw.text), strict=True)
    chunks = list(client.chat.completions.create(**parameters, stream=True, stream_options={"include_usage": True}))
    for index, choice in enumerate(whole.choices):
        assert choice.message.content == chunk_text(chunks, index)
        assert choice.logprobs is not None
        tokens = choice.logprobs.content or []
        assert len(tokens) == 12
        assert all(len(token.top_logprobs) == 3 for token in tokens)
    assert whole.choices[0].message.content != whole.choices[1].message.content
    assert chunks[-1].usage == whole.usage
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 24
    assert {choice.finish_reason for choice in whole.choices} == {"length"}


def test_completions(client: openai.OpenAI) -> None:
    completion = client.completions.create(model="tiny", prompt="Once", max_tokens=5, logprobs=2, seed=1)
    Completion.model_validate(completion.model_dump(), strict=True)
    echoed = client.completions.create(model="tiny", prompt="Once", max_tokens=5, seed=1, echo=True)
    assert echoed.choices[0].text == "Once" + completion.choices[0].text


def test_json_is_enforced(client: openai.OpenAI) -> None:
    schema = {"type": "object", "properties": {"a": {"enum": ["x", "y"]}}, "required": ["a"]}
    wanted: Any = {
        "type": "json_schema",
        "json_schema": {"name": "s", "schema": schema | {"additionalProperties": False}},
    }
    answer = client.chat.completions.create(model="tiny", messages=HI, max_tokens=60, response_format=wanted, seed=3)
    assert json.loads(answer.choices[0].message.content or "")["a"] in ("x", "y")


WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Oslo", "Rome"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_a_call_is_forced(client: openai.OpenAI, choice: Any) -> None:
    asked: dict[str, Any] = {"model": "tiny", "messages": HI, "tools": [WEATHER], "tool_choice": choice, "seed": 5}
    raw = client.chat.completions.with_raw_response.create(**asked, max_tokens=200, parallel_tool_calls=False)
    check(json.loads(raw.text), ChatCompletion)
    [answer] = raw.parse().choices
    [call] = answer.message.tool_calls or []
    assert answer.finish_reason == ("tool_calls" if choice == "required" else "stop")  # as OpenAI has it
    assert call.type == "function"
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments)["city"] in ("Oslo", "Rome")


def test_names_of_formats(client: openai.OpenAI) -> None:
    for body in (
        {"guided_choice": ["yes", "no"]},
        {"structured_outputs": {"regex": "(yes|no)"}},
        {"guided_json": '{"enum": ["yes", "no"]}'},
    ):
        chat = client.chat.completions.create(model="tiny", messages=HI, max_tokens=20, extra_body=body)
        assert (chat.choices[0].message.content or "").strip('"') in ("yes", "no")
        text = client.completions.create(model="tiny", prompt="Once", max_tokens=20, extra_body=body)
        assert text.choices[0].text.strip('"') in ("yes", "no")


def test_several_prompts_are_as_each_alone(client: openai.OpenAI) -> None:
    prompts = ["Once", "Twice upon", "Three"]
    asked: dict[str, Any] = {"model": "tiny", "max_tokens": 6, "seed": 9, "n": 2}
    alone = [client.completions.create(prompt=prompt, **asked) for prompt in prompts]
    together = client.completions.create(prompt=prompts, **asked)
    texts = [choice.text for one in alone for choice in one.choices]
    assert [(choice.index, choice.text) for choice in together.choices] == list(enumerate(texts))
    assert together.usage is not None
    assert together.usage.prompt_tokens == sum(one.usage.prompt_tokens for one in alone if one.usage)
    assert together.usage.completion_tokens == 36
    chunks = list(client.completions.create(prompt=prompts, stream=True, **asked))
    for index, text in enumerate(texts):
        assert "".join(c.text for chunk in chunks for c in chunk.choices if c.index == index) == text


def test_the_best_of_several(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "tiny", "prompt": "Once", "max_tokens": 6, "seed": 9}
    made = client.completions.create(n=4, logprobs=0, **asked).choices
    best = max(made, key=lambda choice: sum(choice.logprobs.token_logprobs or []) if choice.logprobs else 0)
    answer = client.completions.create(best_of=4, **asked)
    assert [choice.text for choice in answer.choices] == [best.text]
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 24


def test_tokens(client: openai.OpenAI, server: LiveServer) -> None:
    def post(path: str, **body: Any) -> Any:
        return httpx.post(f"{server.url}/v1/{path}", json={"model": "tiny", **body}).raise_for_status().json()

    found = post("tokenize", prompt="Once upon", return_token_strs=True)
    assert found["count"] == len(found["tokens"]) == len(found["token_strs"])
    assert "".join(found["token_strs"]).endswith("Once upon")
    assert post("detokenize", tokens=found["tokens"])["prompt"].endswith("Once upon")
    asked = post("tokenize", messages=HI, tools=[WEATHER])
    usage = client.chat.completions.create(model="tiny", messages=HI, tools=[WEATHER], max_tokens=1).usage
    assert usage is not None
    assert asked["count"] == usage.prompt_tokens
    assert asked["max_model_len"] > 0


def test_what_the_model_cannot_do_is_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as long:
        client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "word " * 9000}])
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model="tiny", messages=HI, logit_bias={"2000000000": 5})


def test_the_owner_sees_and_unloads(client: openai.OpenAI, server: LiveServer) -> None:
    client.completions.create(model="tiny", prompt="Once", max_tokens=1)
    listed = client.models.retrieve("tiny")
    assert listed.model_extra is not None
    assert listed.model_extra["state"] == "ready"

    status = httpx.get(f"{server.url}/admin/status").json()
    assert status["requests"] == []
    assert status["models"][0]["memory_used_bytes"] > 0
    gone = httpx.request("DELETE", f"{server.url}/admin/model/unload", params={"model_id": "tiny"}).json()
    assert gone["status"] == "unloaded"
    assert gone["memory_freed_bytes"] > 0
