"""Tools through the whole server: a real model that writes a call, the official client that gets and answers it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.live.real import real_server, sdk
from tests.material import spoken_model

pytestmark = [pytest.mark.live, pytest.mark.slow]
SAYS = ("Let me ", "look.", "<tool_call>", '{"name": "weather", "argu', 'ments": {"city": "Os', 'lo"}}', "</tool_call>")
QUESTION: list[Any] = [{"role": "user", "content": "What is the weather in Oslo?"}]
TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather of a city.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    home = tmp_path_factory.mktemp("home")
    spoken_model(home / "models" / "caller", SAYS)
    with real_server(home) as server, sdk(server) as found:
        yield found


def ask(client: openai.OpenAI, messages: list[Any], **options: Any) -> Any:
    return client.chat.completions.create(model="caller", messages=messages, temperature=0, **options)


@pytest.mark.parametrize("choice", [{}, {"tool_choice": "auto"}])
def test_a_call_and_its_result(client: openai.OpenAI, choice: dict[str, Any]) -> None:
    first = ask(client, QUESTION, tools=TOOLS, **choice).choices[0]
    assert first.finish_reason == "tool_calls"
    assert first.message.content == "Let me look."
    [call] = first.message.tool_calls
    assert (call.type, call.function.name) == ("function", "weather")
    assert json.loads(call.function.arguments) == {"city": "Oslo"}
    history = [*QUESTION, first.message.to_dict(), {"role": "tool", "tool_call_id": call.id, "content": "rain"}]
    second = ask(client, history, tools=TOOLS, **choice)
    assert second.choices[0].message.tool_calls[0].id != call.id
    assert second.usage.prompt_tokens > ask(client, QUESTION, tools=TOOLS).usage.prompt_tokens


def test_streamed_it_is_the_same(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model="caller", messages=QUESTION, temperature=0, tools=TOOLS) as events:
        seen = list(events)
        final = events.get_final_completion().choices[0]
    assert final.finish_reason == "tool_calls"
    assert final.message.content == "Let me look."
    [call] = final.message.tool_calls or []
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Oslo"})
    text = [event for event in seen if event.type == "content.delta" and event.delta]
    assert len(text) == 2, "the text before a call comes as it is made"


@pytest.mark.parametrize("options", [{"tools": TOOLS, "tool_choice": "none"}, {}])
def test_without_tools_it_is_text(client: openai.OpenAI, options: dict[str, Any]) -> None:
    only = ask(client, QUESTION, **options).choices[0]
    assert (only.message.content, only.message.tool_calls, only.finish_reason) == ("".join(SAYS), None, "stop")


def test_a_tool_that_is_not_offered_is_left_to_the_caller(client: openai.OpenAI) -> None:
    other = [{"type": "function", "function": {"name": "other", "parameters": {"type": "object"}}}]
    [call] = ask(client, QUESTION, tools=other).choices[0].message.tool_calls
    assert call.function.name == "weather"


def test_several_choices_call_apart(client: openai.OpenAI) -> None:
    answer = ask(client, QUESTION, tools=TOOLS, n=2)
    calls = [choice.message.tool_calls[0] for choice in answer.choices]
    assert len({call.id for call in calls}) == 2
    assert {choice.finish_reason for choice in answer.choices} == {"tool_calls"}
