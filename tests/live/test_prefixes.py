"""The prefix cache as clients see it: turns, agents, and a restart, over HTTP with real models."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anthropic
import httpx
import numpy as np
import pytest
from openai.types import CompletionUsage

from tests.live.process import LiveServer, until
from tests.live.real import admin, idle, load, real_server, sdk
from tests.material import place, tiny_model

pytestmark = pytest.mark.live

SYSTEM = "You are one of many agents. " * 60
TURNS: list[Any] = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "Name a river."}]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    home = tmp_path_factory.mktemp("home")
    place(tiny_model(), home / "models" / "tiny")
    with real_server(home) as made:
        yield made


def cache(server: LiveServer) -> dict[str, Any]:
    found: dict[str, Any] = admin(server, "status")["models"][0]["prefix_cache"]
    return found


def prompt(length: int, seed: int) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(100, 49_000, length)]


def cached_tokens(usage: CompletionUsage | None) -> int:
    assert usage is not None
    assert usage.prompt_tokens_details is not None
    assert usage.prompt_tokens_details.cached_tokens is not None
    return usage.prompt_tokens_details.cached_tokens


def test_a_second_turn_reads_only_what_is_new(server: LiveServer) -> None:
    options: dict[str, Any] = {"model": "tiny", "max_tokens": 20, "temperature": 0}
    with sdk(server) as client:
        first = client.chat.completions.create(messages=TURNS, **options)
        said = {"role": "assistant", "content": first.choices[0].message.content}
        options["messages"] = [*TURNS, said, {"role": "user", "content": "And a lake."}]
        second = client.chat.completions.create(**options)
        stream = client.chat.completions.create(stream=True, stream_options={"include_usage": True}, **options)
        *chunks, last = list(stream)
    assert first.usage is not None
    assert second.usage is not None
    assert cached_tokens(first.usage) == 0
    assert cached_tokens(second.usage) >= first.usage.prompt_tokens - 1
    assert cached_tokens(last.usage) == second.usage.prompt_tokens - 1
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == second.choices[0].message.content


def test_anthropics_usage_divides_the_prompt(server: LiveServer) -> None:
    asked: dict[str, Any] = {
        "model": "tiny",
        "max_tokens": 8,
        "system": "Another agent. " * 50,
        "messages": [{"role": "user", "content": "Name a town."}],
    }
    with anthropic.Anthropic(base_url=server.url, api_key="bot", max_retries=0) as client:
        first, second = client.messages.create(**asked), client.messages.create(**asked)
        whole = client.messages.count_tokens(**{key: asked[key] for key in ("model", "system", "messages")})
        with client.messages.stream(**asked) as stream:
            streamed = stream.get_final_message()
    assert (first.usage.cache_read_input_tokens, first.usage.input_tokens) == (0, whole.input_tokens)
    for answer in (second, streamed):
        assert (answer.usage.cache_read_input_tokens, answer.usage.input_tokens) == (whole.input_tokens - 1, 1)


def test_agents_at_once_share_what_they_share(server: LiveServer) -> None:
    shared = prompt(1200, 1)
    bodies = [
        {"model": "tiny", "prompt": [*shared, *prompt(60, 10 + agent)], "max_tokens": 4, "temperature": 0}
        for agent in range(6)
    ]

    def ask(body: dict[str, Any]) -> Any:
        return httpx.post(f"{server.url}/v1/completions", json=body, timeout=120).json()

    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(ask, bodies))
    found = sorted(answer["usage"]["prompt_tokens_details"]["cached_tokens"] for answer in together)
    assert found[0] == 0
    assert found[1:] == [1200] * 5
    again = [ask(body) for body in bodies]
    assert [one["choices"][0]["text"] for one in again] == [one["choices"][0]["text"] for one in together]


def test_the_status_tells_what_it_holds_and_finds(server: LiveServer) -> None:
    ask = {"model": "tiny", "prompt": prompt(300, 3), "max_tokens": 2}
    for _ in range(3):
        httpx.post(f"{server.url}/v1/completions", json=ask, timeout=60).raise_for_status()
    until(lambda: cache(server)["bytes"] > 0 and cache(server)["found_percent"], "statistics of the cache")
    until(lambda: idle(server), "the server to be idle")


def test_a_restart_loses_nothing_and_a_setting_switches_it_off(tmp_path: Path) -> None:
    place(tiny_model(), tmp_path / "models" / "tiny")
    ask = {"model": "tiny", "prompt": prompt(700, 4), "max_tokens": 4, "temperature": 0}

    def cached(server: LiveServer) -> tuple[int, str]:
        answer = httpx.post(f"{server.url}/v1/completions", json=ask, timeout=120).json()
        return answer["usage"]["prompt_tokens_details"]["cached_tokens"], answer["choices"][0]["text"]

    with real_server(tmp_path) as server:
        before, text = cached(server)
        assert before == 0
    files = list((tmp_path / "cache" / "prefix").glob("*/*.prefix"))
    assert len(files) == 1
    assert files[0].stat().st_mode & 0o777 == 0o600
    with real_server(tmp_path) as server:
        load(server, "tiny")
        assert cached(server) == (699, text)
    with real_server(tmp_path, LMX_CACHE__MEMORY_MB="0") as server:
        assert [cached(server), cached(server)] == [(0, text), (0, text)]
