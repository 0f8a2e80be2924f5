"""The official ``anthropic`` client against the application."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import anthropic
import pydantic
import pytest
from anthropic import beta_async_tool
from anthropic.types import ToolUseBlock

from inference.errors import ModelUnavailable
from inference.ipc import GenerateRequest
from tests.anthropic.conftest import MESSAGES, asking
from tests.api.conftest import Wire
from tests.api.fake_engine import FakeEngine, Script, failed, finished, started, text, thought, tool

HI: Any = [{"role": "user", "content": "Hi"}]
WEATHER: Any = {"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}
ASKED: Any = {"model": "small", "max_tokens": 64, "messages": HI}


def calling() -> Script:
    return [
        [started()],
        [thought("Hm.")],
        [text("I look.")],
        [tool(0, id="call_1", name="weather", arguments='{"city":')],
        [tool(0, arguments='"Oslo"}'), finished("tool_calls")],
    ]


async def test_it_works(sdk: anthropic.AsyncAnthropic) -> None:
    answer = await sdk.messages.create(**ASKED)
    assert answer.content[0].type == "text"
    assert answer.content[0].text == "Hello"
    assert answer.usage.output_tokens == 2


async def test_streaming(sdk: anthropic.AsyncAnthropic) -> None:
    async with sdk.messages.stream(**ASKED) as stream:
        texts = [piece async for piece in stream.text_stream]
        final = await stream.get_final_message()
    assert texts == ["Hel", "lo"]
    assert (final.stop_reason, final.usage.input_tokens, final.usage.cache_read_input_tokens) == ("end_turn", 4, 3)
    events = [event.type async for event in await sdk.messages.create(**ASKED, stream=True)]
    assert (events[0], events[-1]) == ("message_start", "message_stop")


async def test_the_streaming_helper_gathers_every_block(sdk: anthropic.AsyncAnthropic, engine: FakeEngine) -> None:
    engine.scripts += [calling(), calling()]
    async with sdk.messages.stream(**ASKED, tools=[WEATHER]) as stream:
        final = await stream.get_final_message()
    whole = await sdk.messages.create(**ASKED, tools=[WEATHER])
    assert [block.to_dict() for block in final.content] == [block.to_dict() for block in whole.content]
    thinking, _, call = whole.content
    assert thinking.type == "thinking"
    assert thinking.signature
    assert isinstance(call, ToolUseBlock)
    assert call.input == {"city": "Oslo"}
    assert final.stop_reason == whole.stop_reason == "tool_use"


async def test_what_it_got_can_be_sent_back(sdk: anthropic.AsyncAnthropic, engine: FakeEngine) -> None:
    engine.scripts.append(calling())
    first = await sdk.messages.create(**ASKED, tools=[WEATHER])
    results: Any = [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "rain"}]
    await sdk.messages.create(
        model="small",
        max_tokens=64,
        messages=[*HI, {"role": "assistant", "content": first.content}, {"role": "user", "content": results}],
        tools=[WEATHER],
    )
    messages = engine.requests[1].messages
    assert messages is not None
    assert messages[1]["reasoning_content"] == "Hm."
    assert messages[1]["tool_calls"][0]["function"] == {"name": "weather", "arguments": '{"city":"Oslo"}'}
    assert messages[2] == {"role": "tool", "tool_call_id": "toolu_1", "content": "rain"}


async def test_the_tool_runner(sdk: anthropic.AsyncAnthropic, engine: FakeEngine) -> None:
    cities: list[str] = []

    @beta_async_tool
    async def weather(city: str) -> str:
        """The weather of a city.

        Args:
            city: Its name.
        """
        cities.append(city)
        return "rain"

    engine.scripts.append(calling())
    final = await sdk.beta.messages.tool_runner(**ASKED, tools=[weather]).until_done()
    assert (cities, final.stop_reason) == (["Oslo"], "end_turn")
    assert len(engine.requests) == 2


async def test_parsed_output(sdk: anthropic.AsyncAnthropic, engine: FakeEngine) -> None:
    class City(pydantic.BaseModel):
        name: str

    engine.scripts.append([[started()], [text('{"name": "Oslo"}'), finished()]])
    answer = await sdk.messages.parse(**ASKED, output_format=City)
    assert answer.parsed_output == City(name="Oslo")
    wanted = engine.requests[0].output_format
    assert (wanted.kind, wanted.schema is not None) == ("json_schema", True)


async def test_betas(sdk: anthropic.AsyncAnthropic, engine: FakeEngine) -> None:
    answer = await sdk.beta.messages.create(
        **ASKED,
        betas=["interleaved-thinking-2025-05-14", "context-1m-2025-08-07", "context-management-2025-06-27"],
        thinking={"type": "enabled", "budget_tokens": 2048},
        context_management={"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        system=[{"type": "text", "text": "You are an agent.", "cache_control": {"type": "ephemeral"}}],
    )
    assert answer.stop_reason == "end_turn"
    assert engine.requests[0].thinking_budget == 2048
    count = await sdk.beta.messages.count_tokens(model="small", messages=HI, betas=["token-counting-2024-11-01"])
    assert count.input_tokens == 1


async def test_count_tokens(sdk: anthropic.AsyncAnthropic) -> None:
    counted = await sdk.messages.count_tokens(model="small", messages=HI, system="Be brief.", tools=[WEATHER])
    assert counted.input_tokens == 3


async def test_errors_have_their_own_types(sdk: anthropic.AsyncAnthropic, engine: FakeEngine) -> None:
    with pytest.raises(anthropic.NotFoundError) as missing:
        await sdk.messages.create(**{**ASKED, "model": "claude-nobody"})
    assert (missing.value.type, missing.value.error_code) == ("not_found_error", "model_not_found")
    with pytest.raises(anthropic.BadRequestError, match="max_tokens") as wrong:
        await sdk.messages.create(**{**ASKED, "max_tokens": 0})
    assert wrong.value.api_message is not None
    engine.scripts.append([[started()], [text("Hel")], [failed("worker_died", "it died")]])
    with pytest.raises(anthropic.APIStatusError, match="it died") as died:
        async with sdk.messages.stream(**ASKED) as stream:
            await stream.get_final_message()
    assert died.value.type == "overloaded_error"


async def test_passing_refusals_are_tried_again(sdk: anthropic.AsyncAnthropic, engine: FakeEngine) -> None:
    patient = sdk.with_options(max_retries=1)
    engine.scripts.append([ModelUnavailable("loading failed", retry_after=0.01)])
    answer = await patient.messages.create(**ASKED)
    assert (answer.stop_reason, len(engine.requests)) == ("end_turn", 2)


async def test_dozens_of_tools_and_a_long_system(sdk: anthropic.AsyncAnthropic, engine: FakeEngine) -> None:
    tools: Any = [{**WEATHER, "name": f"tool_{number}", "description": "x" * 2000} for number in range(60)]
    system: Any = [{"type": "text", "text": "y" * 100_000, "cache_control": {"type": "ephemeral", "ttl": "1h"}}] * 4
    await sdk.messages.create(**ASKED, tools=tools, system=system)
    [request] = engine.requests
    assert len(request.tools) == 60
    assert request.messages is not None
    assert len(request.messages[0]["content"]) == 4 * 100_000 + 6


async def test_many_at_once_keep_apart(sdk: anthropic.AsyncAnthropic, engine: FakeEngine) -> None:
    def echo(request: GenerateRequest) -> Script:
        assert request.messages is not None
        letters: Script = [[text(letter)] for letter in request.messages[0]["content"]]
        return [[started()], *letters, [finished()]]

    async def one(number: int) -> str:
        async with sdk.messages.stream(
            **{**ASKED, "messages": [{"role": "user", "content": f"{number:03d}"}]}
        ) as stream:
            return await stream.get_final_text()

    engine.respond = echo
    assert await asyncio.gather(*map(one, range(20))) == [f"{number:03d}" for number in range(20)]


async def test_a_client_that_leaves_is_forgotten(
    engine: FakeEngine, wire: Callable[[str, dict[str, Any]], Wire]
) -> None:
    engine.scripts.append([[started()], [text("Hel")], asyncio.Event()])
    left = wire(MESSAGES, asking(stream=True))
    await left.send()
    assert await left.start() == 200
    assert b"message_start" in await left.chunk()
    await left.leave()
    await asyncio.wait_for(engine.generations[0].left.wait(), 10)
    assert engine.generations[0].cancelled_by == "client"
