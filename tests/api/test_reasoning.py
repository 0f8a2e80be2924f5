"""Reasoning in chat answers: shown, hidden, budgeted, and in the history. Usage told while an answer is streamed."""

from __future__ import annotations

from typing import Any

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.api.conftest import CHAT, COMPLETIONS, Api, chat
from tests.api.fake_engine import FakeEngine, Script, finished, started, text, thought, tool
from tests.conformance.strict import check

CALLING: Script = [
    [started(), thought("Hm. ")],
    [text("Let me see.")],
    [tool(0, id="call_1", name="now"), tool(0, arguments="{"), tool(0, arguments="}")],
    [tool(1, id="call_2", name="now", arguments="{}"), finished("tool_calls", tokens=9)],
]
TOOLS = [{"type": "function", "function": {"name": "now"}}]


async def test_reasoning_content_and_calls_are_apart(api: Api, engine: FakeEngine) -> None:
    engine.scripts += [CALLING, CALLING]
    _, body = await api.post(CHAT, chat(tools=TOOLS))
    check(body, ChatCompletion)
    message = body["choices"][0]["message"]
    assert (message["reasoning_content"], message["reasoning"]) == ("Hm. ", "Hm. ")
    assert message["content"] == "Let me see."
    assert [call["function"]["arguments"] for call in message["tool_calls"]] == ["{}", "{}"]
    chunks = (await api.stream(CHAT, chat(tools=TOOLS)))[:-1]
    for chunk in chunks:
        check(chunk, ChatCompletionChunk)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "Hm. "
    parts = [part for delta in deltas for part in delta.get("tool_calls", [])]
    assert [(part["index"], part.get("id"), part["function"]["arguments"]) for part in parts] == [
        (0, "call_1", ""),
        (0, None, "{"),
        (0, None, "}"),
        (1, "call_2", ""),
        (1, None, "{}"),
    ]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("hide", [{"include_reasoning": False}, {"reasoning": {"exclude": True}}])
async def test_hidden_it_is_counted_and_not_shown(api: Api, engine: FakeEngine, hide: dict[str, Any]) -> None:
    script: Script = [[started(), thought("secret")], [text("yes"), finished()]]
    engine.scripts += [script, script]
    _, headers, content = await api.send("POST", CHAT, chat(**hide))
    assert b"secret" not in content
    assert b'"reasoning_tokens":1' in content
    assert "x-lmx-ignored" not in headers
    chunks = await api.stream(CHAT, chat(**hide))
    assert "secret" not in str(chunks)
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks[:-1]) == "yes"


@pytest.mark.parametrize(
    ("asked", "budget", "template"),
    [
        ({"thinking_token_budget": 5}, 5, {}),
        ({"thinking_token_budget": 0}, 0, {}),
        ({"reasoning": {"max_tokens": 5, "effort": "low"}}, 5, {"reasoning_effort": "low"}),
        ({"thinking": {"type": "enabled", "budget_tokens": 5}}, 5, {"enable_thinking": True}),
        ({"thinking": {"type": "disabled"}}, None, {"enable_thinking": False}),
        ({"reasoning": {"enabled": False}}, None, {"enable_thinking": False}),
        ({"reasoning_effort": "none", "enable_thinking": True}, None, {"enable_thinking": True}),
        ({"reasoning_effort": "none"}, None, {"enable_thinking": False}),
        ({"thinking": {"type": "adaptive"}, "reasoning": {}}, None, {}),
    ],
)
async def test_every_name_of_it_arrives(
    api: Api, engine: FakeEngine, asked: dict[str, Any], budget: int | None, template: dict[str, Any]
) -> None:
    assert (await api.post(CHAT, chat(**asked)))[0] == 200
    [request] = engine.requests
    assert request.thinking_budget == budget
    assert {**request.template_kwargs, **template} == request.template_kwargs


async def test_earlier_thoughts_reach_the_template(api: Api, engine: FakeEngine) -> None:
    said = [*chat()["messages"], {"role": "assistant", "content": "So", "reasoning": "hm"}]
    await api.post(CHAT, chat(messages=said, continue_final_message=True))
    [request] = engine.requests
    assert request.continue_final
    assert (request.messages or [])[-1] == {"role": "assistant", "content": "So", "reasoning_content": "hm"}


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_usage_so_far_in_every_chunk(api: Api, engine: FakeEngine, path: str) -> None:
    engine.scripts.append([[started()], [text("a")], [text("b")], [finished(tokens=2)]])
    options = {"include_usage": True, "continuous_usage_stats": True}
    *chunks, _ = await api.stream(path, {**chat(), "prompt": "x", "stream_options": options})
    assert all(isinstance(chunk["usage"], dict) for chunk in chunks)
    counted = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert counted == sorted(counted)
    assert counted[-1] == 2
