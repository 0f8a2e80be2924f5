"""One server for all clients: real models in real workers, a key, and no unknown parameter let pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.clients.running import KEY
from tests.live.process import LiveServer
from tests.live.real import real_server
from tests.material import encoder_model, place, spoken_model, tiny_model

SAYS = (
    "Let me ",
    "look.",
    "<tool_call>",
    '{"name": "weather", "argu',
    'ments": {"city": "Os',
    'lo"}}',
    "</tool_call>",
)
THINKS = ("<think>", "Rain ", "maybe.", "</think>", "It ", "rains.")


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """``org/tiny`` says what is random but always the same, ``caller`` calls, ``thinker`` thinks, ``org/vectors``."""
    home = tmp_path_factory.mktemp("home")
    place(tiny_model(), home / "models" / "org" / "tiny")
    place(encoder_model(), home / "models" / "org" / "vectors")
    spoken_model(home / "models" / "caller", SAYS)
    spoken_model(home / "models" / "thinker", THINKS)
    with real_server(home, LMX_SECURITY__API_KEY=KEY, LMX_SERVER__STRICT="true") as found:
        yield found


def ask(server: LiveServer, path: str, **body: Any) -> Any:
    answer = httpx.post(f"{server.url}/v1/{path}", json=body, headers={"x-api-key": KEY}, timeout=120)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.fixture(scope="package")
def brief(server: LiveServer) -> dict[str, Any]:
    """What tiny says when it is to be brief: ``text`` and the numbers of tokens ``read`` and ``made``."""
    return said(server, {"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say something."})


@pytest.fixture(scope="package")
def plain(server: LiveServer) -> dict[str, Any]:
    """The same without being told to be brief."""
    return said(server, {"role": "user", "content": "Say something."})


def said(server: LiveServer, *messages: dict[str, str]) -> dict[str, Any]:
    answer = ask(server, "chat/completions", model="org/tiny", messages=messages, temperature=0, max_tokens=60)
    usage = answer["usage"]
    text = answer["choices"][0]["message"]["content"]
    return {"text": text, "read": usage["prompt_tokens"], "made": usage["completion_tokens"]}


@pytest.fixture(scope="package")
def once(server: LiveServer) -> str:
    """How tiny goes on after the word "Once"."""
    answer = ask(server, "completions", model="org/tiny", prompt="Once", temperature=0, max_tokens=20)
    return str(answer["choices"][0]["text"])


@pytest.fixture(scope="package")
def vectors(server: LiveServer) -> list[list[float]]:
    """Of "the sea" and "a stock market"."""
    answer = ask(server, "embeddings", model="org/vectors", input=["the sea", "a stock market"])
    return [item["embedding"] for item in answer["data"]]
