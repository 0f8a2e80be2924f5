"""Anthropic's client and the real server over real sockets, with fake models."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import pytest

from tests.live.process import MODEL, LiveServer, fake_model, until

pytestmark = pytest.mark.live
Start = Callable[..., LiveServer]
ALIAS = "claude-haiku-4-5-20251001"
WEATHER: Any = {"name": "weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    home = tmp_path_factory.mktemp("home")
    fake_model(home)
    found = LiveServer(home, {"LMX_MODELS__ALIASES": json.dumps({ALIAS: MODEL})})
    yield found.start()
    assert found.stop() == 0, found.stderr
    found.close()


@pytest.fixture(scope="module")
def client(server: LiveServer) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.url, api_key="agent-1", max_retries=0, timeout=60) as found:
        yield found


def ask(said: str, model: str = MODEL, /, **fields: Any) -> Any:
    content = f"{said} <<fake {json.dumps(fields)}>>" if fields else said
    messages = [{"role": "user", "content": content}]
    return {"model": model, "max_tokens": 64, "messages": messages}


def test_streamed_and_whole(client: anthropic.Anthropic) -> None:
    whole = client.messages.create(**ask("hello", reasoning=3))
    with client.messages.stream(**ask("hello", reasoning=3)) as stream:
        texts = list(stream.text_stream)
        final = stream.get_final_message()
    assert [block.to_dict() for block in final.content] == [block.to_dict() for block in whole.content]
    assert [block.type for block in whole.content] == ["thinking", "text"]
    assert "".join(texts) == whole.content[1].text
    assert final.usage.output_tokens == whole.usage.output_tokens
    assert final.usage.output_tokens_details is not None
    assert final.usage.output_tokens_details.thinking_tokens == 3


def test_an_alias_and_a_count(client: anthropic.Anthropic) -> None:
    assert ALIAS in [model.id for model in client.models.list()]
    asked = ask("hello", ALIAS)
    answer = client.messages.create(**asked)
    assert answer.model == ALIAS
    counted = client.messages.count_tokens(model=ALIAS, messages=asked["messages"])
    assert counted.input_tokens == answer.usage.input_tokens + (answer.usage.cache_read_input_tokens or 0)


def test_tools(client: anthropic.Anthropic) -> None:
    tools = [{"name": "weather", "arguments": {"city": "Oslo"}}, {"name": "time"}]
    with client.messages.stream(**ask("hello", tools=tools), tools=[WEATHER]) as stream:
        final = stream.get_final_message()
    assert final.stop_reason == "tool_use"
    calls = [(block.name, block.input) for block in final.content if block.type == "tool_use"]
    assert calls == [("weather", {"city": "Oslo"}), ("time", {})]


def test_stops(client: anthropic.Anthropic) -> None:
    answer = client.messages.create(**ask("hello", text="one two END three"), stop_sequences=["END", "other"])
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", "END")
    assert client.messages.create(**{**ask("hello", tokens=9), "max_tokens": 3}).stop_reason == "max_tokens"


async def test_the_asynchronous_client(server: LiveServer) -> None:
    async with anthropic.AsyncAnthropic(base_url=server.url, auth_token="agent-2", max_retries=0) as client:
        async with client.messages.stream(**ask("hello")) as stream:
            text = "".join([piece async for piece in stream.text_stream])
        assert text == (await client.messages.create(**ask("hello"))).content[0].text
    until(lambda: '"agent-2"' in server.log, "the access line")


def test_the_request_is_named_everywhere(client: anthropic.Anthropic, server: LiveServer) -> None:
    answer = client.messages.create(**ask("hello"))
    assert answer._request_id is not None
    assert answer._request_id.startswith("req_")
    with pytest.raises(anthropic.NotFoundError) as missing:
        client.messages.create(**ask("hello", "claude-nobody"))
    body: Any = missing.value.body
    assert missing.value.request_id == body["request_id"]
    until(lambda: str(missing.value.request_id) in server.log, "the access line")
    with (
        pytest.raises(anthropic.APIStatusError) as failed,
        client.messages.stream(**ask("hello", fail_after=2)) as stream,
    ):
        stream.get_final_message()
    told: Any = failed.value.body
    assert told["request_id"] == failed.value.request_id


def test_a_worker_that_dies_is_an_error_event(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.APIStatusError) as died, client.messages.stream(**ask("hello", die_after=2)) as stream:
        stream.get_final_message()
    assert (died.value.type, died.value.error_code) == ("overloaded_error", "worker_died")
    assert client.messages.create(**ask("hello")).stop_reason == "end_turn"


def test_a_client_that_leaves_is_forgotten(server: LiveServer, tmp_path: Path) -> None:
    gate = str(tmp_path / "gate")
    body = {**ask("hello", hold_after=2, gate=gate), "stream": True}
    with httpx.stream("POST", f"{server.url}/v1/messages", json=body, timeout=60) as answer:
        until(Path(gate + ".reached").exists, "the answer to be under way")
        assert answer.headers["request-id"] == answer.headers["x-request-id"]
    until(lambda: not httpx.get(f"{server.url}/admin/status").json()["requests"], "nothing to be in flight")


def test_keys(start_server: Start) -> None:
    server = start_server(LMX_SECURITY__API_KEY="right")
    for key, token in (("wrong", None), (None, "wrong")):
        with anthropic.Anthropic(base_url=server.url, api_key=key, auth_token=token, max_retries=0) as client:
            with pytest.raises(anthropic.AuthenticationError) as refused:
                client.messages.create(**ask("hello"))
            assert refused.value.type == "authentication_error"
            with pytest.raises(anthropic.AuthenticationError):
                client.models.list()
    for key, token in (("right", None), (None, "right")):
        with anthropic.Anthropic(base_url=server.url, api_key=key, auth_token=token, max_retries=0) as client:
            assert client.messages.create(**ask("hello")).stop_reason == "end_turn"
    assert [httpx.request(method, server.url + "/").status_code for method in ("GET", "HEAD")] == [200, 200]
    assert server.stop() == 0, server.stderr


def test_probes_of_the_root(server: LiveServer, start_server: Start) -> None:
    assert httpx.get(server.url + "/").status_code == 200
    assert httpx.head(server.url + "/").status_code == 200
    assert httpx.head(server.url + "/v1/models").status_code == 200
    assert httpx.head(server.url + "/v1/messages").status_code == 405
    guarded = start_server(LMX_SECURITY__ADMIN_KEY="right")
    assert [httpx.request(method, guarded.url + "/").status_code for method in ("GET", "HEAD")] == [302, 302]
    assert guarded.stop() == 0, guarded.stderr
