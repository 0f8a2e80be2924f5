"""What one client does wrong or gives up ends with that client; the streams beside it say what they say alone."""

from __future__ import annotations

import json
import re
import shutil
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.live.process import LiveServer, until
from tests.live.real import ENDLESS, HI, ROOM, Asked, admin, endless_model, in_flight, load, real_server, settled
from tests.material import broken_models, models_dir

pytestmark = [pytest.mark.live, pytest.mark.slow]
SLOTS = 2
SECRET = "xyzzy-plugh"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """tiny with all its slots, ``endless`` with two; and every broken model beside them."""
    home = tmp_path_factory.mktemp("home")
    models_dir(home / "models", "tiny")
    endless_model(home)
    endless_model(home, "going")
    broken_models(home / "models")
    with real_server(home, LMX_LOGGING__LEVEL="DEBUG", LMX_MODELS__DEFAULT_MODEL="tiny") as found:
        load(found, "tiny")
        answer = httpx.post(
            f"{found.url}/admin/model/load", json={"model_id": ENDLESS, "slots": SLOTS, "context": ROOM}, timeout=120
        )
        assert answer.status_code == 200, answer.text
        yield found
        assert admin(found, "health")["status"] in ("healthy", "degraded")


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "tiny", "messages": HI, "temperature": 0, "max_tokens": 200} | fields


def json_schema(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}


EXPLODING = ("(a|b)*a(a|b){25}", "((a{0,100}){0,100}){0,100}", "([a-z ]*(a|e)[a-z ]{200}){30}")
WRONG: dict[str, tuple[str, dict[str, Any]]] = {
    "a token outside the vocabulary": ("completions", {"model": "tiny", "prompt": [5, 10_000_000]}),
    "a token below zero": ("completions", {"model": "tiny", "prompt": [5, -1]}),
    "a bias outside the vocabulary": ("chat/completions", chat(logit_bias={"10000000": 5})),
    "a schema that is none": ("chat/completions", chat(response_format=json_schema({"type": "banana"}))),
    "a schema without ground": ("chat/completions", chat(response_format=json_schema({"$ref": "#"}))),
    "a pattern that is none": (
        "chat/completions",
        chat(response_format=json_schema({"type": "string", "pattern": "(a"})),
    ),
    "a prompt over the context": ("chat/completions", chat(messages=[{"role": "user", "content": "word " * 9000}])),
}


def test_what_is_refused_touches_nobody(server: LiveServer) -> None:
    alone = Asked(server, "tiny", max_tokens=900).whole()
    beside = [Asked(server, "tiny", max_tokens=900) for _ in range(3)]
    for stream in beside:
        stream.streams()
    for case, (path, body) in WRONG.items():
        for way in ({}, {"stream": True}):
            answer = httpx.post(f"{server.url}/v1/{path}", json=body | way, timeout=60)
            assert answer.status_code == 400, (case, answer.text)
            error = answer.json()["error"]
            assert error["message"], case
            if error["code"] == "context_length_exceeded":
                assert error["context"] == 2048
                assert error["prompt_tokens"] > 2048
                assert "2048" in error["message"]
                assert str(error["prompt_tokens"]) in error["message"]
            else:
                assert error["param"], case
    assert [stream.whole() for stream in beside] == [alone] * 3


@pytest.mark.parametrize("pattern", EXPLODING)
def test_a_regex_that_explodes_ends_alone(server: LiveServer, pattern: str) -> None:
    """It is refused, or fails, or is answered within its length; in no case does anybody else notice."""
    alone = Asked(server, "tiny", max_tokens=900).whole()
    beside = [Asked(server, "tiny", max_tokens=900).streams() for _ in range(2)]
    body = chat(response_format=json_schema({"type": "string", "pattern": f"^{pattern}$"}), temperature=1, seed=3)
    answer = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=120)
    if answer.status_code == 200:
        content = answer.json()["choices"][0]["message"]["content"]
        assert set(content) <= set('abcdefghijklmnopqrstuvwxyz "')
    else:
        assert answer.status_code in (400, 500)
        assert answer.json()["error"]["message"]
    assert [stream.whole() for stream in beside] == [alone] * 2
    assert Asked(server, "tiny", max_tokens=900).whole() == alone


def leave_after(server: LiveServer, body: dict[str, Any], phase: str, stream: bool) -> None:
    """Ask over a socket of our own, wait until the request is in ``phase``, and hang up."""
    content = json.dumps(body | {"stream": stream}).encode()
    before = {one["id"] for one in in_flight(server)}
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
        until(
            lambda: any(one["phase"] == phase for one in in_flight(server) if one["id"] not in before),
            f"a request in {phase}",
        )


@pytest.mark.parametrize("stream", [True, False])
def test_leaving_during_prefill(server: LiveServer, stream: bool) -> None:
    alone = Asked(server, ENDLESS, max_tokens=300).whole()
    beside = Asked(server, ENDLESS, max_tokens=300).streams()
    long = [{"role": "user", "content": "word " * 20000}]
    leave_after(server, chat(model=ENDLESS, messages=long, max_tokens=5000), "prefill", stream)
    assert beside.whole() == alone
    settled(server)


@pytest.mark.parametrize("stream", [True, False])
def test_leaving_in_the_queue(server: LiveServer, stream: bool) -> None:
    running = [Asked(server, ENDLESS, max_tokens=ROOM // 2).streams() for _ in range(SLOTS)]
    leave_after(server, chat(model=ENDLESS), "queued", stream)
    until(lambda: len(in_flight(server)) == SLOTS, "the queued request to be gone")
    assert all(not one.error and one.is_alive() for one in running)
    for one in in_flight(server):
        answer = httpx.post(f"{server.url}/admin/requests/cancel", json={"id": one["id"]})
        assert answer.status_code == 200
    for stream_ in running:
        assert "cancelled" in str(stream_.ended().error)
    settled(server)


@pytest.mark.parametrize("stream", [True, False])
def test_leaving_while_it_decodes(server: LiveServer, stream: bool) -> None:
    alone = Asked(server, ENDLESS, max_tokens=300).whole()
    leave_after(server, chat(model=ENDLESS, max_tokens=ROOM // 2), "decode", stream)
    settled(server)
    assert Asked(server, ENDLESS, max_tokens=300).whole() == alone


REASONS = {
    "truncated": "cut off|shorter|end",
    "unknown-architecture": "perceptron9000",
    "bad-config": "config.json",
    "nan-weights": "not numbers",
    "missing-weight-file": "model-00002-of-00002",
}


def listed(server: LiveServer) -> dict[str, dict[str, Any]]:
    return {model["model_id"]: model for model in admin(server, "models/list")["models"]}


def test_broken_models_are_failed_with_their_reason(server: LiveServer) -> None:
    alone = Asked(server, "tiny", max_tokens=900).whole()
    beside = Asked(server, "tiny", max_tokens=900).streams()
    with ThreadPoolExecutor(8) as pool:
        url = f"{server.url}/v1/chat/completions"
        asked = {name: pool.submit(httpx.post, url, json=chat(model=name), timeout=120) for name in REASONS}
    assert beside.whole() == alone
    models = listed(server)
    for name, reason in REASONS.items():
        answer = asked[name].result()
        assert answer.status_code == 503, (name, answer.text)
        assert models[name]["state"] == "failed", models[name]
        pattern = re.compile(reason)
        assert pattern.search(models[name]["reason"]), (name, models[name]["reason"])
        assert pattern.search(answer.json()["error"]["message"]), (name, answer.text)
    assert "empty" not in models
    absent = httpx.post(url, json=chat(model="missing"), timeout=60)
    assert absent.status_code == 404
    assert Asked(server, "tiny", max_tokens=900).whole() == alone


def test_a_model_that_goes_missing_says_so(server: LiveServer) -> None:
    """It was listed; then its directory is taken away."""
    shutil.rmtree(server.home / "models" / "going")
    answer = httpx.post(f"{server.url}/v1/chat/completions", json=chat(model="going"), timeout=60)
    assert answer.status_code == 503, answer.text
    found = listed(server).get("going", {})
    assert (found["state"], "its directory is gone" in found["reason"]) == ("failed", True), found
    assert found["reason"] in answer.json()["error"]["message"]
    assert Asked(server, "", max_tokens=3).whole()  # the default model answers


def test_several_choices_stream_apart(server: LiveServer) -> None:
    asked = Asked(server, "tiny", n=4, temperature=1, seed=5, max_tokens=30).ended()
    assert asked.error is None
    assert set(asked.text) == set(asked.reasons) == {0, 1, 2, 3}
    assert len(set(asked.text.values())) == 4


def test_a_prompt_is_in_no_file(server: LiveServer) -> None:
    """Neither in a log nor in a database, whatever happened to the request."""
    messages = [{"role": "user", "content": SECRET}]
    Asked(server, "tiny", messages).whole()
    url = f"{server.url}/v1/chat/completions"
    for fields in (
        {"temperature": SECRET},
        {"messages": SECRET},
        {"response_format": json_schema({"type": SECRET})},
        {"response_format": json_schema({"enum": [SECRET]}), "max_tokens": 2},
        {"stop": [SECRET]},
        {"model": "nan-weights"},
        {"tools": [{"type": "function", "function": {"name": SECRET}}]},
        {"chat_template_kwargs": {SECRET: SECRET}},
    ):
        httpx.post(url, json=chat(messages=messages, max_tokens=4) | fields, timeout=60)
    httpx.post(url, content=f'{{"{SECRET}', headers={"Content-Type": "application/json"})
    httpx.post(f"{server.url}/v1/completions", json={"model": "tiny", "prompt": SECRET, "max_tokens": 4}, timeout=60)
    leave_after(server, chat(model=ENDLESS, messages=messages, max_tokens=9000), "decode", True)
    settled(server)
    files = [path for path in server.home.rglob("*") if path.is_file() and "models" not in path.parts]
    assert any(path.suffix == ".sqlite3" for path in files)
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []
    assert SECRET not in server.stderr
    assert SECRET not in server.stdout
