"""The official ``openai`` client against the application."""

from __future__ import annotations

import openai
import pytest

from inference.errors import InsufficientMemory, ModelUnavailable
from tests.api.fake_engine import FakeEngine, failed, finished, started, text, tool


async def test_it_works(sdk: openai.AsyncOpenAI) -> None:
    answer = await sdk.chat.completions.create(model="small", messages=[{"role": "user", "content": "Hi"}])
    assert answer.choices[0].message.content == "Hello"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 9


async def test_streaming(sdk: openai.AsyncOpenAI) -> None:
    chunks = [
        chunk
        async for chunk in await sdk.chat.completions.create(
            model="small",
            messages=[{"role": "user", "content": "Hi"}],
            stream=True,
            stream_options={"include_usage": True},
        )
    ]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "Hello"
    assert chunks[-1].usage is not None


async def test_the_streaming_helper_gathers_tool_calls(sdk: openai.AsyncOpenAI, engine: FakeEngine) -> None:
    engine.scripts.append(
        [
            [started()],
            [tool(0, id="call_1", name="weather", arguments='{"city":')],
            [tool(0, arguments='"Oslo"}'), finished("tool_calls")],
        ]
    )
    async with sdk.chat.completions.stream(
        model="small",
        messages=[{"role": "user", "content": "Hi"}],
        tools=[{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}],
    ) as events:
        answer = await events.get_final_completion()
    [call] = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert (call.id, call.function.name, call.function.arguments) == ("call_1", "weather", '{"city":"Oslo"}')


async def test_models(sdk: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in sdk.models.list()] == ["acme/tiny"]
    assert (await sdk.models.retrieve("acme/tiny")).owned_by == "acme"


async def test_completions(sdk: openai.AsyncOpenAI) -> None:
    answer = await sdk.completions.create(model="small", prompt="Once", max_tokens=5)
    assert answer.choices[0].text == "Hello"


async def test_errors_have_their_own_types(sdk: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        await sdk.chat.completions.create(model="nobody", messages=[{"role": "user", "content": "Hi"}])
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as wrong:
        await sdk.chat.completions.create(model="small", messages=[])
    assert wrong.value.param == "messages"


async def test_final_refusals_are_not_tried_again(sdk: openai.AsyncOpenAI, engine: FakeEngine) -> None:
    patient = sdk.with_options(max_retries=2)
    engine.scripts += [[InsufficientMemory("too large")]] * 2
    with pytest.raises(openai.InternalServerError):
        await patient.chat.completions.create(model="small", messages=[{"role": "user", "content": "Hi"}])
    assert len(engine.requests) == 1


async def test_passing_refusals_are_tried_again(sdk: openai.AsyncOpenAI, engine: FakeEngine) -> None:
    patient = sdk.with_options(max_retries=2)
    engine.scripts.append([ModelUnavailable("draining")])
    answer = await patient.chat.completions.create(model="small", messages=[{"role": "user", "content": "Hi"}])
    assert answer.choices[0].message.content == "Hello"
    assert len(engine.requests) == 2


async def test_an_error_frame_reaches_the_caller(sdk: openai.AsyncOpenAI, engine: FakeEngine) -> None:
    engine.scripts.append([[started()], [text("Hel")], [failed("worker_died", "the model's process died")]])
    stream = await sdk.chat.completions.create(model="small", messages=[{"role": "user", "content": "Hi"}], stream=True)
    said: list[str] = []

    async def read() -> None:
        async for chunk in stream:
            said.append(chunk.choices[0].delta.content or "")

    with pytest.raises(openai.APIError, match="process died"):
        await read()
    assert "".join(said) == "Hel"
