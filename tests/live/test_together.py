"""Sixteen different requests at once over HTTP: each gives exactly what it gives alone, streamed or whole."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.live.process import LiveServer
from tests.live.real import real_server
from tests.material import EOS_TOKEN_ID, models_dir

pytestmark = [pytest.mark.live, pytest.mark.slow]

SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}, "n": {"enum": [1, 2, 3]}},
    "required": ["ok", "n"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}


def chat(text: str, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 24} | fields


BODIES: list[dict[str, Any]] = [
    chat("greedy"),
    chat("a long prompt beside the others " * 40),
    chat("hot", temperature=1.3, seed=1),
    chat("hot", temperature=1.3, seed=2, n=3),
    chat("top p", temperature=1, top_p=0.4, seed=3),
    chat("top k", temperature=2, top_k=3, seed=4),
    chat("min p", temperature=1.5, min_p=0.3, seed=5),
    chat("presence", presence_penalty=1.5),
    chat("frequency", frequency_penalty=1.5, temperature=0.7, seed=6),
    chat("repetition", repetition_penalty=1.4),
    chat("bias", logit_bias={"70": 100}, max_tokens=6),
    chat("ends", logit_bias={str(EOS_TOKEN_ID): 100}, temperature=1, seed=8),
    chat("stop", stop=["e", "a", "t"], max_tokens=60),
    chat("logprobs", logprobs=True, top_logprobs=3, temperature=0.9, seed=7),
    chat(
        "schema",
        temperature=1,
        seed=9,
        max_tokens=200,
        response_format={"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA, "strict": True}},
    ),
    chat(
        "tools",
        tools=[TOOL],
        tool_choice="auto",
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "The weather?"}]},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
        ],
    ),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    home = tmp_path_factory.mktemp("home")
    models_dir(home / "models", "tiny", "nano")
    with real_server(home) as found:
        yield found


class Choice:
    """One choice of an answer, the same whichever way it came."""

    def __init__(self) -> None:
        self.content = ""
        self.logprobs: list[tuple[Any, ...]] = []
        self.reason = ""

    def add(self, part: dict[str, Any], finish: str | None, logprobs: dict[str, Any] | None) -> None:
        self.content += part.get("content") or ""
        for entry in (logprobs or {}).get("content") or []:
            top = [(other["token"], round(other["logprob"], 4)) for other in entry["top_logprobs"]]
            self.logprobs.append((entry["token"], round(entry["logprob"], 4), top))
        self.reason = finish or self.reason

    def seen(self) -> tuple[Any, ...]:
        return (self.content, self.logprobs, self.reason)


def counted(usage: dict[str, Any]) -> dict[str, Any]:
    """All but what was found of the prompt, which is more the second time."""
    return {name: value for name, value in usage.items() if name != "prompt_tokens_details"}


def whole(server: LiveServer, body: dict[str, Any]) -> tuple[Any, ...]:
    answer = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=120)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    choices = [Choice() for _ in range(body.get("n", 1))]
    for entry in found["choices"]:
        choices[entry["index"]].add(entry["message"], entry["finish_reason"], entry["logprobs"])
    return ([choice.seen() for choice in choices], counted(found["usage"]))


def streamed(server: LiveServer, body: dict[str, Any]) -> tuple[Any, ...]:
    asked = body | {"stream": True, "stream_options": {"include_usage": True}}
    choices = [Choice() for _ in range(body.get("n", 1))]
    usage: Any = None
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=asked, timeout=120) as response:
        assert response.status_code == 200, response.read()
        lines = [line for line in response.iter_lines() if line.startswith("data: ")]
    assert lines.pop() == "data: [DONE]"
    for line in lines:
        chunk = json.loads(line[6:])
        assert "error" not in chunk, chunk
        usage = chunk.get("usage") or usage
        for entry in chunk["choices"]:
            choices[entry["index"]].add(entry["delta"], entry["finish_reason"], entry.get("logprobs"))
    return ([choice.seen() for choice in choices], counted(usage))


@pytest.mark.parametrize("model", ["tiny", "nano"])
def test_together_as_alone(server: LiveServer, model: str) -> None:
    bodies = [body | {"model": model} for body in BODIES]
    assert len(bodies) == 16
    alone = [whole(server, body) for body in bodies]
    order = list(range(16))
    random.Random(9).shuffle(order)
    with ThreadPoolExecutor(32) as pool:
        streams = {index: pool.submit(streamed, server, bodies[index]) for index in order}
        wholes = {index: pool.submit(whole, server, bodies[index]) for index in reversed(order)}
        for index in range(16):
            assert streams[index].result() == alone[index], f"request {index}, streamed"
            assert wholes[index].result() == alone[index], f"request {index}"


def test_json_is_streamed_as_it_is_decoded_and_never_repaired(server: LiveServer) -> None:
    """Cut at every length, it is a beginning of the whole text, and says that it was cut."""
    body = BODIES[14] | {"model": "tiny"}
    [(text, _, reason)], usage = whole(server, body)
    assert (reason, set(json.loads(text))) == ("stop", {"ok", "n"})
    tokens = usage["completion_tokens"]
    for length in (1, 3, tokens // 2, tokens - 2):
        [(cut, _, reason)], _ = streamed(server, body | {"max_tokens": length})
        assert text.startswith(cut)
        assert (cut != text, reason) == (True, "length")
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body | {"stream": True}, timeout=60) as answer:
        chunks = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: {")]
    assert len([chunk for chunk in chunks if chunk["choices"][0]["delta"].get("content")]) > 3


def test_each_parameter_did_something(server: LiveServer) -> None:
    answers = [whole(server, body | {"model": "tiny"})[0] for body in BODIES]
    content = [choices[0][0] for choices in answers]
    assert len({content[2], *(choice[0] for choice in answers[3])}) == 4
    assert len(set(content[10])) <= len(content[10]) // 6
    assert answers[11][0] == ("", [], "stop")
    assert not set(content[12]) & {"e", "a", "t"}
    assert [len(entry[2]) for entry in answers[13][0][1]] == [3] * 24
    assert json.loads(content[14])["n"] in (1, 2, 3)
    assert content[15]
