"""However an answer is cut into deltas and batches, streamed and not, the client gets the same."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.engine import set_engine
from inference.ipc import Delta, RequestEvent, TokenLogprob
from inference.principal import Principal
from inference.protocols.openai import chat_call, completion_call
from inference.protocols.serving import complete, stream
from tests.api.conftest import chat, payloads
from tests.api.fake_engine import FakeEngine, Script, at_once, finished, one_by_one, small_catalog, started, tool

OWNER = Principal("owner", "tests", frozenset({"inference"}))
pieces = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
logprobs = st.builds(
    TokenLogprob, st.integers(0, 9), pieces, st.binary(max_size=3), st.floats(-20, 0) | st.just(float("-inf"))
)
deltas = st.builds(
    Delta,
    st.just(""),
    choice=st.integers(0, 1),
    content=pieces,
    reasoning=pieces,
    logprobs=st.lists(logprobs, max_size=2),
)
tools = st.builds(tool, st.integers(0, 1), arguments=pieces)
batches = st.lists(st.lists(deltas | tools, min_size=1, max_size=4), max_size=6)


def script(parts: list[list[RequestEvent]], reason: Any) -> Script:
    named: list[RequestEvent] = [tool(number, id=f"call_{number}", name=f"f{number}") for number in range(2)]
    return [[started()], named, *parts, [finished(choice=1, tokens=3)], [finished(reason, tokens=5)]]


def gathered(chunks: list[Any]) -> dict[str, Any]:
    """What a client puts together from a stream of chat chunks."""
    choices: dict[int, dict[str, Any]] = {}
    usage = None
    for chunk in chunks:
        usage = chunk["usage"] or usage
        for part in chunk["choices"]:
            choice = choices.setdefault(
                part["index"], {"content": "", "reasoning": "", "tools": {}, "logprobs": [], "reason": None}
            )
            delta = part["delta"]
            choice["content"] += delta.get("content", "")
            choice["reasoning"] += delta.get("reasoning_content", "")
            choice["logprobs"] += (part["logprobs"] or {"content": []})["content"]
            choice["reason"] = part["finish_reason"] or choice["reason"]
            for call in delta.get("tool_calls", []):
                known = choice["tools"].setdefault(call["index"], ["", "", ""])
                known[0] = call.get("id", known[0])
                known[1] = call["function"].get("name", known[1])
                known[2] += call["function"]["arguments"]
    return {"choices": [choices[index] for index in sorted(choices)], "usage": usage}


def whole(body: dict[str, Any]) -> dict[str, Any]:
    choices = []
    for choice in body["choices"]:
        message = choice["message"]
        calls = message.get("tool_calls", [])
        found = {
            "content": message["content"] or "",
            "reasoning": message.get("reasoning_content", ""),
            "tools": {
                index: [call["id"], call["function"]["name"], call["function"]["arguments"]]
                for index, call in enumerate(calls)
            },
            "logprobs": choice["logprobs"]["content"],
            "reason": choice["finish_reason"],
        }
        choices.append(found)
    return {"choices": choices, "usage": body["usage"]}


async def both(parse: Any, body: dict[str, Any], played: Script, joined: bool) -> tuple[Any, list[Any]]:
    engine = FakeEngine(small_catalog())
    engine.between_batches = at_once if joined else one_by_one
    engine.scripts += [played, played]
    set_engine(engine)
    try:
        single = orjson.loads(await complete(parse(orjson.dumps(body), OWNER)))
        streamed = parse(orjson.dumps({**body, "stream": True, "stream_options": {"include_usage": True}}), OWNER)
        frames = payloads(b"".join([chunk async for chunk in stream(streamed)]))
    finally:
        set_engine(None)
    assert frames.pop() == "[DONE]"
    return single, frames


@settings(max_examples=60, deadline=None)
@given(batches, st.sampled_from(["stop", "length", "tool_calls"]), st.booleans())
def test_chat(parts: list[list[RequestEvent]], reason: str, joined: bool) -> None:
    single, frames = asyncio.run(both(chat_call, chat(n=2, logprobs=True), script(parts, reason), joined))
    assert gathered(frames) == whole(single)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(deltas, min_size=1, max_size=4), max_size=6), st.booleans())
def test_completions(parts: list[list[RequestEvent]], joined: bool) -> None:
    played: Script = [[started()], *parts, [finished(choice=1)], [finished("length")]]
    body: dict[str, Any] = {"prompt": "Once ", "n": 2, "logprobs": 2}
    single, frames = asyncio.run(both(completion_call, body, played, joined))
    for choice in single["choices"]:
        mine = [part for frame in frames for part in frame["choices"] if part["index"] == choice["index"]]
        assert "".join(part["text"] for part in mine) == choice["text"]
        assert [part["finish_reason"] for part in mine if part["finish_reason"]] == [choice["finish_reason"]]
        for name, values in (choice["logprobs"] or {}).items():
            assert [item for part in mine if part["logprobs"] for item in part["logprobs"][name]] == values
    assert frames[-1]["usage"] == single["usage"]
