"""Whatever a model says, in whatever pieces: events are valid and in order, and add up to what a whole answer has."""

from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response

from inference.ipc import Delta, Finished, FinishReason, TokenLogprob, ToolFragment, Usage
from inference.principal import Principal
from inference.protocols.responses.requests import ResponsesRequest
from inference.protocols.responses.shown import new_response
from inference.protocols.responses.wording import Gathered, ResponseWording
from inference.records import RequestRecord
from tests.conformance.strict import check
from tests.responses.conftest import EXACTLY, events_of

ID = "resp_" + "0" * 32
TEXTS = st.text(max_size=5)
LOGPROBS = st.lists(
    st.builds(TokenLogprob, st.integers(0, 9), TEXTS, st.binary(max_size=3), st.floats(-9, 0)), max_size=2
)


@st.composite
def answers(draw: st.DrawFn) -> tuple[list[Delta], FinishReason]:
    """Pieces in any order; calls have rising indices, as workers number them."""
    said: list[Delta] = []
    index = 0
    for _ in range(draw(st.integers(0, 8))):
        kind = draw(st.sampled_from(["content", "reasoning", "both", "call", "nothing"]))
        if kind == "call":
            pieces = draw(st.lists(TEXTS, max_size=3))
            said.append(Delta("", tools=[ToolFragment(index, f"call_{index}", "f")]))
            said += [Delta("", tools=[ToolFragment(index, arguments=piece)]) for piece in pieces]
            index += 1
        else:
            content = draw(TEXTS) if kind in ("content", "both") else ""
            reasoning = draw(TEXTS) if kind in ("reasoning", "both") else ""
            said.append(Delta("", content=content, reasoning=reasoning, logprobs=draw(LOGPROBS)))
    return said, draw(st.sampled_from(["stop", "length", "tool_calls"]))


def wording() -> ResponseWording:
    return ResponseWording(new_response(ResponsesRequest(input="x"), ID), seal=False)


def record() -> RequestRecord:
    return RequestRecord(
        id=ID, protocol="", endpoint="", principal=Principal("owner", "x", frozenset()), model_asked="", model="m"
    )


@given(answers())
def test_events_and_whole_answers_agree(answer: tuple[list[Delta], FinishReason]) -> None:
    said, reason = answer
    streamed, usage = wording(), Usage(prompt_tokens=3, completion_tokens=len(said))
    frames = streamed.begin(record()) + b"".join(map(streamed.delta, said))
    frames += streamed.finish(Finished("", reason=reason)) + streamed.end(usage)
    events = events_of(frames)
    last = events[-1]["response"]
    assert added_up(events) == [text_of(item) for item in last["output"]]

    whole = wording()
    gathered = Gathered(1, whole, record())
    for delta in said:
        gathered.add(delta)
    gathered.finish(Finished("", reason=reason))
    gathered.usage = usage
    body = orjson.loads(whole.body(gathered, record()))
    check(body, Response, EXACTLY)
    assert timeless(body) == timeless(last)
    assert "".join(text_of(item) for item in last["output"] if item["type"] == "message") == "".join(
        delta.content for delta in said
    )


def added_up(events: list[dict[str, Any]]) -> list[str]:
    """What each item's deltas say; every item is opened once, before its deltas, and closed once, after them."""
    grown: list[str] = []
    is_open = False
    for event in events:
        match event["type"].removeprefix("response."):
            case "output_item.added":
                assert not is_open
                assert event["output_index"] == len(grown)
                is_open = True
                grown.append("")
            case "output_item.done":
                assert is_open
                is_open = False
            case kind if kind.endswith(".delta"):
                assert is_open
                assert event["output_index"] == len(grown) - 1
                grown[-1] += event["delta"]
    assert not is_open
    return grown


def text_of(item: dict[str, Any]) -> str:
    return str(item["arguments"] if item["type"] == "function_call" else item["content"][0]["text"])


def timeless(response: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in response.items() if name not in ("created_at", "completed_at")}
