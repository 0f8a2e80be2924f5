"""Messages of real models: SmolLM2 counts and talks, forced calls validate; a model that writes a call of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from anthropic.types import Message, ToolUseBlock

from tests.conformance.strict import Allowance, check
from tests.live.real import real_server
from tests.material import place, spoken_model, tiny_model
from tests.worker.backends.real import smollm2

pytestmark = [pytest.mark.live, pytest.mark.slow]
SAYS = ("Let me ", "look.", "<tool_call>", '{"name": "weather", "argu', 'ments": {"city": "Os', 'lo"}}', "</tool_call>")
QUESTION: Any = [{"role": "user", "content": "What is the capital of France?"}]
WEATHER: Any = {
    "name": "weather",
    "description": "The weather of a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"enum": ["Oslo", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[anthropic.Anthropic]:
    home = tmp_path_factory.mktemp("home")
    spoken_model(home / "models" / "caller", SAYS)
    place(smollm2(), home / "models" / "smol")
    place(tiny_model(), home / "models" / "tiny")
    with (
        real_server(home) as server,
        anthropic.Anthropic(base_url=server.url, api_key="agent", max_retries=0, timeout=120) as found,
    ):
        yield found


def create(client: anthropic.Anthropic, model: str, messages: Any, **more: Any) -> Message:
    greedy = {"temperature": 0, **more.pop("extra_body", {})}  # the newest client has no parameter for it
    answer: Message = client.messages.create(
        model=model, messages=messages, max_tokens=more.pop("max_tokens", 24), extra_body=greedy, **more
    )
    check(answer.to_dict(mode="json"), Message, Allowance())
    return answer


def read(message: Message) -> int:
    """All tokens of the prompt."""
    return message.usage.input_tokens + (message.usage.cache_read_input_tokens or 0)


@pytest.mark.parametrize("model", ["smol", "tiny"])
def test_a_count_is_what_is_read(client: anthropic.Anthropic, model: str) -> None:
    conversation = [*QUESTION, {"role": "assistant", "content": "Paris."}, {"role": "user", "content": "Of Norway?"}]
    begun = [*QUESTION, {"role": "assistant", "content": "It is"}]
    for asked in (
        {"messages": QUESTION},
        {
            "messages": conversation,
            "system": [{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Please."}],
        },
        {"messages": begun},
    ):
        counted = client.messages.count_tokens(model=model, **asked)
        assert counted.input_tokens == read(create(client, model, max_tokens=2, **asked))


def test_a_count_has_the_tools(client: anthropic.Anthropic) -> None:
    without = client.messages.count_tokens(model="caller", messages=QUESTION)
    counted = client.messages.count_tokens(model="caller", messages=QUESTION, tools=[WEATHER])
    assert counted.input_tokens > without.input_tokens
    assert counted.input_tokens == read(create(client, "caller", QUESTION, tools=[WEATHER]))


def test_it_talks_and_goes_on(client: anthropic.Anthropic) -> None:
    answer = create(client, "smol", QUESTION)
    assert answer.content[0].type == "text"
    assert "Paris" in answer.content[0].text
    with client.messages.stream(
        model="smol", messages=QUESTION, max_tokens=24, extra_body={"temperature": 0}
    ) as stream:
        assert stream.get_final_text() == answer.content[0].text
    begun = answer.content[0].text.split("Paris")[0].rstrip()
    more = create(client, "smol", [*QUESTION, {"role": "assistant", "content": begun}])
    assert more.content[0].type == "text"
    assert more.content[0].text.startswith(" Paris")


def test_a_call_is_forced(client: anthropic.Anthropic) -> None:
    tools = [WEATHER, {**WEATHER, "name": "time"}]
    for choice, names in (({"type": "tool", "name": "time"}, ["time"]), ({"type": "any"}, ["weather", "time"])):
        answer = create(
            client,
            "tiny",
            QUESTION,
            tools=tools,
            tool_choice={**choice, "disable_parallel_tool_use": True},
            max_tokens=200,
        )
        [call] = answer.content
        assert isinstance(call, ToolUseBlock)
        assert call.name in names
        assert call.input["city"] in ("Oslo", "Rome")
        assert answer.stop_reason == "tool_use"


def test_a_call_that_the_model_writes_itself(client: anthropic.Anthropic) -> None:
    with client.messages.stream(
        model="caller", messages=QUESTION, max_tokens=64, tools=[WEATHER], extra_body={"temperature": 0}
    ) as stream:
        final = stream.get_final_message()
    said, call = final.content
    assert (said.type, call.type, final.stop_reason) == ("text", "tool_use", "tool_use")
    assert isinstance(call, ToolUseBlock)
    assert call.input == {"city": "Oslo"}
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "rain"}
    history: Any = [*QUESTION, {"role": "assistant", "content": final.content}, {"role": "user", "content": [result]}]
    assert read(create(client, "caller", history, tools=[WEATHER])) > read(final)


def test_a_schema_is_kept(client: anthropic.Anthropic) -> None:
    wanted: Any = {"format": {"type": "json_schema", "schema": {"enum": ["Oslo", "Rome"]}}}
    answer = create(client, "tiny", QUESTION, output_config=wanted)
    assert answer.content[0].type == "text"
    assert answer.content[0].text.strip() in ('"Oslo"', '"Rome"')


def test_what_cannot_be_is_named_as_it_was_sent(client: anthropic.Anthropic) -> None:
    odd: Any = {"format": {"type": "json_schema", "schema": {"type": "no such type"}}}
    with pytest.raises(anthropic.BadRequestError) as refused:
        create(client, "tiny", QUESTION, output_config=odd)
    told: Any = refused.value.body
    assert told["error"]["details"]["param"].startswith("output_config.format")
    assert "response_format" not in told["error"]["message"]
    with pytest.raises(anthropic.BadRequestError, match=r"prompt is too long: \d+ tokens > 2048 maximum"):
        create(client, "tiny", [{"role": "user", "content": "word " * 3000}])


def test_the_end_of_the_context(client: anthropic.Anthropic) -> None:
    answer = create(client, "tiny", [{"role": "user", "content": "a " * 900}], max_tokens=100_000)
    assert answer.stop_reason == "model_context_window_exceeded"
    assert read(answer) + answer.usage.output_tokens == 2048
