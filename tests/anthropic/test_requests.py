"""What reaches the engine of a message's parameters, and of a token count's."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from inference.ipc import GenerateRequest, OutputFormat
from inference.protocols.anthropic.requests import MAX_STOPS
from tests.anthropic.conftest import COUNT, MESSAGES, MessagesApi, asking
from tests.api.fake_engine import FakeEngine

USER = {"role": "user", "content": "Hi"}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = {"name": "weather", "description": "Tells it.", "input_schema": SCHEMA}
TIME = {"name": "time", "input_schema": {"type": "object"}, "type": "custom", "cache_control": {"type": "ephemeral"}}
CACHED = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
USE = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Oslo"}}


def said(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": text, **more}


def result(identity: str, content: Any = None, **more: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": identity, **({} if content is None else {"content": content}), **more}


async def asked(api: MessagesApi, engine: FakeEngine, *messages: dict[str, Any], **more: Any) -> GenerateRequest:
    """The request that the engine got. Nothing of the body was ignored, and a count is of the same prompt."""
    body = asking(messages=list(messages) or [USER], **more)
    status, headers, content = await api.send("POST", MESSAGES, body)
    assert status == 200, content
    assert "x-lmx-ignored" not in headers
    del body["max_tokens"]
    status, headers, content = await api.send("POST", COUNT, body)
    assert status == 200, content
    assert "x-lmx-ignored" not in headers
    request, counted = engine.requests[-2:]
    for name in ("messages", "tools", "tool_choice", "template_kwargs", "continue_final"):
        assert getattr(request, name) == getattr(counted, name)
    return request


async def test_system_as_text_and_as_blocks(api: MessagesApi, engine: FakeEngine) -> None:
    request = await asked(api, engine, system="Be brief.")
    assert request.messages == [{"role": "system", "content": "Be brief."}, USER]
    blocks = [said("Be brief.", **CACHED), said(""), said("Be kind.", citations=None)]
    request = await asked(api, engine, system=blocks)
    assert request.messages == [{"role": "system", "content": "Be brief.\n\nBe kind."}, USER]
    assert (await asked(api, engine, system=[])).messages == [USER]


async def test_what_tells_anthropic_who_pays_is_no_prompt(api: MessagesApi, engine: FakeEngine) -> None:
    system = [said("x-anthropic-billing-header: cc_version=9; cch=1f2e3;"), said("You are an agent.")]
    assert (await asked(api, engine, system=system)).messages == [
        {"role": "system", "content": "You are an agent."},
        USER,
    ]


async def test_a_round_with_tools(api: MessagesApi, engine: FakeEngine) -> None:
    messages = [
        {"role": "user", "content": [said("What"), said("now?", **CACHED)]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "of another model"},
                {"type": "redacted_thinking", "data": "xyz"},
                said("Let me "),
                said("see."),
                {**USE, **CACHED, "caller": {"type": "direct"}},
                {"type": "tool_use", "id": "toolu_2", "name": "time", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                said("Here:"),
                result("toolu_1", [said("rain"), said("cold")], **CACHED),
                result("toolu_2", "no clock", is_error=True),
                said("And?"),
            ],
        },
    ]
    request = await asked(api, engine, *messages, tools=[WEATHER, TIME])
    assert request.messages == [
        {"role": "user", "content": "What\nnow?"},
        {
            "role": "assistant",
            "content": "Let me see.",
            "reasoning_content": "Hm.",
            "tool_calls": [
                {"id": "toolu_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}},
                {"id": "toolu_2", "type": "function", "function": {"name": "time", "arguments": "{}"}},
            ],
        },
        {"role": "tool", "tool_call_id": "toolu_1", "content": "rain\ncold"},
        {"role": "tool", "tool_call_id": "toolu_2", "content": "Error: no clock"},
        {"role": "user", "content": "Here:\nAnd?"},
    ]
    assert request.tools == [
        {"type": "function", "function": {"name": "weather", "description": "Tells it.", "parameters": SCHEMA}},
        {"type": "function", "function": {"name": "time", "parameters": {"type": "object"}}},
    ]
    assert (request.tool_choice, request.tool_names, request.parallel_tool_calls) == ("auto", [], True)


@pytest.mark.parametrize(
    ("block", "text"),
    [
        (result("t"), ""),
        (result("t", ""), ""),
        (result("t", []), ""),
        (result("t", is_error=True), "Error"),
        (result("t", "an error: 5", is_error=True), "an error: 5"),
        (result("t", [{"type": "tool_reference", "tool_name": "weather"}]), "weather"),
    ],
)
async def test_results_of_few_words(api: MessagesApi, engine: FakeEngine, block: dict[str, Any], text: str) -> None:
    call = {"role": "assistant", "content": [{**USE, "id": "t"}]}
    request = await asked(api, engine, USER, call, {"role": "user", "content": [block]})
    assert request.messages is not None
    assert request.messages[-1] == {"role": "tool", "tool_call_id": "t", "content": text}


async def test_turns_of_one_role_are_one(api: MessagesApi, engine: FakeEngine) -> None:
    turns = [("user", "a"), ("user", [said("b")]), ("assistant", "c"), ("assistant", "d"), ("user", "e")]
    request = await asked(api, engine, *({"role": role, "content": content} for role, content in turns))
    assert request.messages == [
        {"role": "user", "content": "a\nb"},
        {"role": "assistant", "content": "c\nd"},
        {"role": "user", "content": "e"},
    ]


async def test_a_system_message_in_between(api: MessagesApi, engine: FakeEngine) -> None:
    late = {"role": "system", "content": [said("Now in rhyme.")]}
    request = await asked(api, engine, USER, {"role": "assistant", "content": "Ho"}, late, USER)
    assert request.messages is not None
    assert request.messages[2] == {"role": "system", "content": "Now in rhyme."}


@pytest.mark.parametrize(
    ("block", "text"),
    [
        ({"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "abc"}}, "abc"),
        (
            {
                "type": "document",
                "title": "T",
                "context": "C",
                "citations": {"enabled": False},
                "source": {"type": "content", "content": [said("abc"), said("d")]},
            },
            "T\nC\nabc\nd",
        ),
        ({"type": "document", "source": {"type": "content", "content": "abc"}, **CACHED}, "abc"),
        ({"type": "search_result", "title": "T", "source": "http://x", "content": [said("abc")]}, "T\nhttp://x\nabc"),
    ],
)
async def test_documents_are_text(api: MessagesApi, engine: FakeEngine, block: dict[str, Any], text: str) -> None:
    request = await asked(api, engine, {"role": "user", "content": [block, said("Well?")]})
    assert request.messages == [{"role": "user", "content": f"{text}\nWell?"}]


async def test_an_answer_that_has_begun_goes_on(api: MessagesApi, engine: FakeEngine) -> None:
    request = await asked(api, engine, USER, {"role": "assistant", "content": "The answer is ("})
    assert request.continue_final
    assert request.messages is not None
    assert request.messages[-1] == {"role": "assistant", "content": "The answer is ("}
    nothings: list[Any] = ["", []]
    for nothing in nothings:
        request = await asked(api, engine, USER, {"role": "assistant", "content": nothing})
        assert (request.messages, request.continue_final) == ([USER], False)


@pytest.mark.parametrize(
    ("choice", "mode", "names", "parallel"),
    [
        ({"type": "auto"}, "auto", [], True),
        ({"type": "auto", "disable_parallel_tool_use": True}, "auto", [], False),
        ({"type": "any"}, "required", [], True),
        ({"type": "tool", "name": "time", "disable_parallel_tool_use": True}, "required", ["time"], False),
        ({"type": "none"}, "none", [], True),
    ],
)
async def test_tool_choice(
    api: MessagesApi, engine: FakeEngine, choice: dict[str, Any], mode: str, names: list[str], parallel: bool
) -> None:
    request = await asked(api, engine, tools=[WEATHER, TIME], tool_choice=choice)
    assert (request.tool_choice, request.tool_names, request.parallel_tool_calls) == (mode, names, parallel)


async def test_tools_may_be_strict_and_have_examples(api: MessagesApi, engine: FakeEngine) -> None:
    tool = {**WEATHER, "strict": True, "input_examples": [{"city": "Oslo"}], "defer_loading": True}
    request = await asked(api, engine, tools=[{**tool, "eager_input_streaming": True, "allowed_callers": ["direct"]}])
    function = request.tools[0]["function"]
    assert function["strict"] is True
    assert function["description"] == 'Tells it.\n\nExamples of input:\n{"city":"Oslo"}'


@pytest.mark.parametrize(
    ("thinking", "template", "budget"),
    [
        ({"type": "enabled", "budget_tokens": 2048}, {"enable_thinking": True}, 2048),
        ({"type": "enabled"}, {"enable_thinking": True}, None),
        ({"type": "adaptive"}, {"enable_thinking": True}, None),
        ({"type": "disabled"}, {"enable_thinking": False}, None),
        (None, {}, None),
    ],
)
async def test_thinking(
    api: MessagesApi, engine: FakeEngine, thinking: dict[str, Any] | None, template: dict[str, Any], budget: int | None
) -> None:
    request = await asked(api, engine, thinking=thinking)
    assert (request.template_kwargs, request.thinking_budget) == (template, budget)


async def test_output_config(api: MessagesApi, engine: FakeEngine) -> None:
    wanted = {"type": "json_schema", "schema": SCHEMA}
    request = await asked(api, engine, output_config={"effort": "high", "format": wanted})
    assert request.template_kwargs == {"reasoning_effort": "high"}
    assert request.output_format == OutputFormat("json_schema", schema=SCHEMA)
    assert (await asked(api, engine, output_format=wanted)).output_format == request.output_format


async def test_sampling(api: MessagesApi, engine: FakeEngine) -> None:
    body = asking(temperature=0, top_p=0.5, top_k=7, stop_sequences=["A", "\n"], ttl=60)
    assert (await api.post(MESSAGES, body))[0] == 200
    [request] = engine.requests
    sampling = request.sampling
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.0, 0.5, 7)
    assert request.stop == ["A", "\n"]
    assert engine.asked[-1][-1] == 60


@pytest.mark.parametrize(
    ("keep", "kept"),
    [("all", 3), ({"type": "all"}, 3), ({"type": "thinking_turns", "value": 2}, 2), (None, 1)],
)
async def test_old_thoughts_are_cleared(api: MessagesApi, engine: FakeEngine, keep: Any, kept: int) -> None:
    def turn(number: int) -> list[dict[str, Any]]:
        thought = {"type": "thinking", "thinking": f"{number}", "signature": ""}
        return [USER, {"role": "assistant", "content": [thought, said("Ho")]}]

    edit = {"type": "clear_thinking_20251015", **({} if keep is None else {"keep": keep})}
    messages = [*turn(1), *turn(2), *turn(3), USER]
    request = await asked(api, engine, *messages, context_management={"edits": [edit]})
    thoughts = [
        message.get("reasoning_content") for message in request.messages or [] if message["role"] == "assistant"
    ]
    assert thoughts == [None] * (3 - kept) + ["1", "2", "3"][3 - kept :]


async def test_what_an_agent_sends_around_it_is_known(api: MessagesApi, engine: FakeEngine) -> None:
    await asked(
        api,
        engine,
        metadata={"user_id": "u"},
        service_tier="auto",
        cache_control={"type": "ephemeral"},
        inference_geo=None,
        speed="fast",
        container=None,
        mcp_servers=[],
        diagnostics={"previous_message_id": None},
        context_management={"edits": []},
    )


async def test_what_is_unknown_is_named(api: MessagesApi) -> None:
    body = asking([said("Hi", colour="red")], shape=1)
    status, headers, _ = await api.send("POST", MESSAGES + "?beta=true", body)
    assert (status, headers["x-lmx-ignored"]) == (200, "shape, messages[].content[].colour")


async def test_a_count(api: MessagesApi, engine: FakeEngine) -> None:
    headers = {"anthropic-version": "2023-06-01", "anthropic-beta": "token-counting-2024-11-01"}
    body = {"model": "small", "system": "Be brief.", "messages": [{"role": "user", "content": "one two"}]}
    status, _, content = await api.send("POST", COUNT + "?beta=true", body, headers=headers)
    assert (status, orjson.loads(content)) == (200, {"input_tokens": 4})
    assert engine.asked[-1][:2] == ("count", "acme/tiny")
    status, headers, _ = await api.send("POST", COUNT, {**body, "max_tokens": 5, "stream": True, "shape": 1})
    assert (status, headers["x-lmx-ignored"]) == (200, "shape")


async def test_many_stops(api: MessagesApi, engine: FakeEngine) -> None:
    assert (await api.post(MESSAGES, asking(stop_sequences=[f"s{n}" for n in range(MAX_STOPS)])))[0] == 200
    assert len(engine.requests[0].stop) == MAX_STOPS
