"""Responses of real models: SmolLM2 in a conversation, forced calls and JSON; a model that writes a call of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import openai
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel

from tests.conformance.strict import Allowance, check
from tests.live.process import LiveServer
from tests.live.real import real_server, sdk
from tests.material import place, spoken_model, tiny_model
from tests.worker.backends.real import smollm2

pytestmark = [pytest.mark.live, pytest.mark.slow]
SAYS = ("Let me ", "look.", "<tool_call>", '{"name": "weather", "argu', 'ments": {"city": "Os', 'lo"}}', "</tool_call>")
WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "description": "The weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"enum": ["Oslo", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    home = tmp_path_factory.mktemp("home")
    spoken_model(home / "models" / "caller", SAYS)
    place(smollm2(), home / "models" / "smol")
    place(tiny_model(), home / "models" / "tiny")
    with real_server(home) as found:
        yield found


@pytest.fixture
def client(server: LiveServer) -> Iterator[openai.OpenAI]:
    with sdk(server) as found:
        yield found


def test_a_conversation_of_a_real_model(client: openai.OpenAI) -> None:
    first = client.responses.create(
        model="smol", input="What is the capital of France?", temperature=0, max_output_tokens=24
    )
    check(first.to_dict(mode="json"), Response, Allowance())
    assert "Paris" in first.output_text
    events = list(
        client.responses.create(
            model="smol",
            input="Say that again.",
            previous_response_id=first.id,
            temperature=0,
            max_output_tokens=24,
            stream=True,
        )
    )
    for event in events:
        check(event.to_dict(mode="json"), ResponseStreamEvent, Allowance())
    last = events[-1]
    assert last.type in ("response.completed", "response.incomplete")
    assert "Paris" in last.response.output_text
    by_hand = client.responses.create(
        model="smol",
        input=[
            {"role": "user", "content": "What is the capital of France?"},
            *first.output,  # type: ignore[list-item]
            {"role": "user", "content": "Say that again."},
        ],
        temperature=0,
        max_output_tokens=24,
    )
    assert by_hand.output_text == last.response.output_text
    counted = client.responses.input_tokens.count(model="smol", input="Say that again.", previous_response_id=first.id)
    assert by_hand.usage is not None
    assert counted.input_tokens == by_hand.usage.input_tokens


def test_a_schema_is_kept(client: openai.OpenAI) -> None:
    class City(BaseModel):
        name: str
        size: Literal["small", "large"]

    with client.responses.stream(
        model="smol", input="Describe Paris.", text_format=City, temperature=0, max_output_tokens=200
    ) as stream:
        final = stream.get_final_response()
    assert final.output_parsed is not None
    assert final.output_parsed.size in ("small", "large")


def test_a_call_is_forced_and_answered(client: openai.OpenAI) -> None:
    first = client.responses.create(
        model="tiny",
        input="What is the weather in Oslo?",
        tools=[WEATHER],
        tool_choice={"type": "function", "name": "weather"},
        parallel_tool_calls=False,
        temperature=0,
        max_output_tokens=200,
    )
    assert first.status == "completed"
    [call] = [item for item in first.output if item.type == "function_call"]
    assert json.loads(call.arguments)["city"] in ("Oslo", "Rome")
    second = client.responses.create(
        model="tiny",
        input=[{"type": "function_call_output", "call_id": call.call_id, "output": "Rain."}],
        previous_response_id=first.id,
        temperature=0,
        max_output_tokens=16,
    )
    assert second.output_text


def test_a_call_that_the_model_writes_itself(client: openai.OpenAI) -> None:
    with client.responses.stream(model="caller", input="Weather?", tools=[WEATHER | {"strict": False}]) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    message, call = final.output
    assert (message.type, final.output_text) == ("message", "Let me look.")
    assert call.type == "function_call"
    assert json.loads(call.arguments) == {"city": "Oslo"}
    assert kinds.count("response.output_item.done") == 2
