"""Responses of the real server through the official client: fake models in real workers, restarts, what is on disk."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel

from tests.conformance.strict import Allowance, check
from tests.live.process import MODEL, LiveServer, fake_model, script, until

pytestmark = pytest.mark.live
Start = Callable[..., LiveServer]
WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": False,
}


def client_of(server: LiveServer, name: str = "bot-1") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=name, max_retries=0, timeout=60)


@pytest.fixture
def client(lmx_server: LiveServer) -> Iterator[openai.OpenAI]:
    with client_of(lmx_server) as found:
        yield found


def strictly(value: Any, kind: Any = Response) -> None:
    check(value.to_dict(mode="json"), kind, Allowance())


def test_create_and_stream(client: openai.OpenAI) -> None:
    whole = client.responses.create(model=MODEL, input="hello", temperature=0)
    strictly(whole)
    events = list(client.responses.create(model=MODEL, input="hello", temperature=0, stream=True))
    for event in events:
        strictly(event, ResponseStreamEvent)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.output_text == whole.output_text
    assert last.response.usage == whole.usage
    assert client.responses.retrieve(whole.id) == whole


def test_the_helpers(client: openai.OpenAI) -> None:
    class Answer(BaseModel):
        answer: str

    parsed = client.responses.parse(model=MODEL, input="hello", text_format=Answer)
    assert parsed.output_parsed == Answer(answer="the sea")
    with client.responses.stream(model=MODEL, input="hello", text_format=Answer) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()
    assert final.output_parsed == parsed.output_parsed
    assert text == final.output_text


def test_a_tool_round_over_a_stored_response(client: openai.OpenAI) -> None:
    call = script("weather?", reasoning=3, tools=[{"name": "weather", "arguments": {"city": "Oslo"}}])
    with client.responses.stream(model=MODEL, input=call, tools=[WEATHER]) as stream:
        first = stream.get_final_response()
    [reasoning, called] = first.output
    assert (reasoning.type, called.type) == ("reasoning", "function_call")
    assert called.type == "function_call"
    assert json.loads(called.arguments) == {"city": "Oslo"}
    output: Any = [{"type": "function_call_output", "call_id": called.call_id, "output": "rain"}]
    second = client.responses.create(model=MODEL, input=output, previous_response_id=first.id, tools=[WEATHER])
    assert second.previous_response_id == first.id
    assert second.usage is not None
    assert first.usage is not None
    assert second.usage.input_tokens > first.usage.input_tokens
    assert first.usage.output_tokens_details.reasoning_tokens == 3
    items = list(client.responses.input_items.list(second.id, order="asc"))
    assert [item.type for item in items] == ["function_call_output"]


def test_background(client: openai.OpenAI, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    held = script("hello", tokens=8, hold_after=2, gate=str(gate))
    made = client.responses.create(model=MODEL, input=held, background=True)
    assert made.status == "queued"
    until(lambda: client.responses.retrieve(made.id).status == "in_progress", "its start")
    gate.touch()
    until(lambda: client.responses.retrieve(made.id).status == "completed", "its end")
    strictly(client.responses.retrieve(made.id))


def test_a_background_stream_is_followed_again(client: openai.OpenAI, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    held = script("hello", tokens=8, hold_after=2, gate=str(gate))
    seen: list[Any] = []
    with client.responses.create(model=MODEL, input=held, background=True, stream=True) as stream:
        for event in stream:
            seen.append(event)
            if event.type == "response.output_text.delta":
                break
    response_id = seen[0].response.id
    gate.touch()
    rest = list(client.responses.retrieve(response_id, stream=True, starting_after=seen[-1].sequence_number))
    assert rest[0].sequence_number == len(seen)
    assert rest[-1].type == "response.completed"
    assert list(client.responses.retrieve(response_id, stream=True)) == seen + rest
    with client.responses.stream(response_id=response_id, starting_after=2) as helped:
        assert helped.get_final_response().id == response_id


def test_cancel_and_delete(client: openai.OpenAI, tmp_path: Path) -> None:
    held = script("hello", hold_after=0, gate=str(tmp_path / "never"))
    made = client.responses.create(model=MODEL, input=held, background=True)
    until(lambda: client.responses.retrieve(made.id).status == "in_progress", "its start")
    cancelled = client.responses.cancel(made.id)
    strictly(cancelled)
    assert cancelled.status == "cancelled"
    assert client.responses.cancel(made.id) == cancelled
    client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)
    with pytest.raises(openai.BadRequestError) as refusal:
        client.responses.create(model=MODEL, input="x", previous_response_id=made.id)
    assert refusal.value.code == "previous_response_not_found"
    counted = client.responses.input_tokens.count(model=MODEL, input="one two")
    assert counted.input_tokens > 0


async def test_the_asynchronous_client(lmx_server: LiveServer) -> None:
    async with openai.AsyncOpenAI(base_url=f"{lmx_server.url}/v1", api_key="bot-2", max_retries=0) as client:
        first = await client.responses.create(model=MODEL, input="hello")
        async with client.responses.stream(model=MODEL, input="again", previous_response_id=first.id) as stream:
            second = await stream.get_final_response()
        assert second.previous_response_id == first.id
        items = [item async for item in client.responses.input_items.list(second.id)]
        assert len(items) == 1
        await client.responses.delete(second.id)


def test_it_survives_a_restart_and_a_crash(start_server: Start, tmp_path: Path) -> None:
    home = tmp_path / "home"
    fake_model(home)
    server = start_server(home)
    with client_of(server) as client:
        first = client.responses.create(model=MODEL, input="one")
        held = script("two", hold_after=1, gate=str(tmp_path / "never"))
        running = client.responses.create(model=MODEL, input=held, background=True, stream=True)
        running_id = next(iter(running)).response.id  # type: ignore[union-attr]
        running.close()
        until(lambda: client.responses.retrieve(running_id).status == "in_progress", "its start")
    for file in home.glob("responses.sqlite3*"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    server.kill()
    server = start_server(home)
    with client_of(server, "bot-9") as client:
        assert client.responses.retrieve(first.id) == first
        second = client.responses.create(model=MODEL, input="who?", previous_response_id=first.id)
        assert second.previous_response_id == first.id
        cut_off = client.responses.retrieve(running_id)
        assert cut_off.status == "failed"
        last = list(client.responses.retrieve(running_id, stream=True, starting_after=3))[-1]
        assert last.type == "response.failed"
    assert server.stop() == 0, server.stderr


def test_a_clean_stop_tells_what_it_cut_off(start_server: Start, tmp_path: Path) -> None:
    home = tmp_path / "home"
    fake_model(home)
    server = start_server(home, LMX_ENGINE__DRAIN_SEC="1")
    with client_of(server) as client:
        held = script("two", hold_after=1, gate=str(tmp_path / "never"))
        made = client.responses.create(model=MODEL, input=held, background=True)
        until(lambda: client.responses.retrieve(made.id).status == "in_progress", "its start")
    assert server.stop() == 0, server.stderr
    server = start_server(home)
    with client_of(server) as client:
        assert client.responses.retrieve(made.id).status == "failed"
    assert server.stop() == 0, server.stderr


def test_nothing_is_on_disk_where_the_owner_does_not_want_it(start_server: Start, tmp_path: Path) -> None:
    home = tmp_path / "home"
    fake_model(home)
    server = start_server(home, LMX_RESPONSES__STORE="false")
    secret = "xyzzy-plugh"
    with client_of(server) as client:
        first = client.responses.create(model=MODEL, input=secret)
        assert client.responses.create(model=MODEL, input="x", previous_response_id=first.id).status == "completed"
    assert server.stop() == 0, server.stderr
    found = [file for file in home.rglob("*") if file.is_file() and secret.encode() in file.read_bytes()]
    assert found == []
    server = start_server(home, LMX_RESPONSES__STORE="false")
    assert httpx.get(f"{server.url}/v1/responses/{first.id}").status_code == 404
    assert server.stop() == 0, server.stderr


def test_a_client_that_leaves_ends_its_stream(client: openai.OpenAI, lmx_server: LiveServer, tmp_path: Path) -> None:
    held = script("hello", hold_after=1, gate=str(tmp_path / "never"))
    with client.responses.create(model=MODEL, input=held, stream=True) as stream:
        next(iter(stream))
    until(lambda: not httpx.get(f"{lmx_server.url}/admin/status").json()["requests"], "nothing in flight")
