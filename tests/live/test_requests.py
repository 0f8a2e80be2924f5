"""The edge and the streams of the real server, over real sockets."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from pathlib import Path

import httpx
import openai
import pytest
import websockets

from lmx_site.policy import MAX_BODY_BYTES
from tests.live.process import MODEL, LiveServer, script, until

pytestmark = pytest.mark.live
Start = Callable[..., LiveServer]


def chat(text: str, **fields: object) -> dict[str, object]:
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], **fields}


def running(server: LiveServer) -> int:
    status = httpx.get(f"{server.url}/admin/models/loaded").json()
    return sum(model["running"] + model["queued"] for model in status["models"])


def test_the_openai_client_streams(lmx_server: LiveServer) -> None:
    with openai.OpenAI(base_url=f"{lmx_server.url}/v1", api_key="bot-3") as client:
        assert [model.id for model in client.models.list()] == [MODEL]
        stream = client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "hello"}], stream=True
        )
        text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
        whole = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "hello"}])
        assert text == whole.choices[0].message.content
        with pytest.raises(openai.NotFoundError, match=MODEL):
            client.chat.completions.create(model="fake-b", messages=[{"role": "user", "content": "x"}])
    until(lambda: '"POST"' in lmx_server.log, "the access line")
    line = next(entry for entry in map(json.loads, lmx_server.log.splitlines()) if entry.get("method") == "POST")
    assert (line["client"], line["model"], line["status"]) == ("bot-3", MODEL, 200)


def test_a_chat_of_the_page_is_logged_with_its_model(lmx_server: LiveServer) -> None:
    with httpx.Client(base_url=lmx_server.url) as client:
        assert client.get("/").status_code == 200
        token = {"X-CSRFToken": client.cookies["lmx_csrf"]}
        answer = client.post("/chat/stream", json=chat("hello", stream=True), headers=token)
        assert answer.text.endswith("data: [DONE]\n\n")
        assert client.post("/chat/stream", json=chat("hello"), headers={}).status_code == 403
    until(lambda: "/chat/stream" in lmx_server.log, "the access line")
    line = next(entry for entry in map(json.loads, lmx_server.log.splitlines()) if entry.get("path") == "/chat/stream")
    assert (line["client"], line["model"], line["status"]) == ("owner", MODEL, 200)


def test_a_prompt_is_never_in_the_log(start_server: Start) -> None:
    server = start_server(LMX_LOGGING__LEVEL="DEBUG")
    secret = "xyzzy-plugh"
    for body in (
        chat(secret),
        chat(secret, temperature=secret),
        chat(secret, messages=secret),
        chat(secret, stream=True),
    ):
        httpx.post(f"{server.url}/v1/chat/completions", json=body)
    httpx.post(f"{server.url}/v1/chat/completions", content=secret, headers={"Content-Type": "application/json"})
    assert server.stop() == 0
    assert secret not in server.log
    assert secret not in server.stderr


def test_headers_come_before_the_first_token(lmx_server: LiveServer, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    body = chat(script("x", hold_after=0, gate=str(gate)), stream=True)
    with httpx.stream("POST", f"{lmx_server.url}/v1/chat/completions", json=body, timeout=30) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        gate.touch()
        assert list(response.iter_lines())[-2] == "data: [DONE]"


def test_a_client_that_leaves_stops_the_decoding(lmx_server: LiveServer, tmp_path: Path) -> None:
    body = chat(script("x", hold_after=2, gate=str(tmp_path / "gate")), stream=True)
    with httpx.stream("POST", f"{lmx_server.url}/v1/chat/completions", json=body, timeout=30) as response:
        lines = response.iter_lines()  # kept: a forgotten iterator would close the connection
        assert any('"content"' in line for line in lines)
        until(lambda: running(lmx_server) == 1, "the worker to report it")
    until(lambda: running(lmx_server) == 0, "the request to end with its client")


def test_a_cross_site_post_is_refused(lmx_server: LiveServer) -> None:
    for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}):
        answer = httpx.post(f"{lmx_server.url}/v1/chat/completions", json=chat("x"), headers=headers)
        assert answer.status_code == 403
        assert answer.json()["error"]["code"] == "origin_not_allowed"
    answer = httpx.post(f"{lmx_server.url}/v1/chat/completions", json=chat("x"), headers={"Origin": lmx_server.url})
    assert answer.status_code == 200


@pytest.mark.parametrize("chunked", [False, True])
def test_33_megabytes_are_413(lmx_server: LiveServer, chunked: bool) -> None:
    body = b"x" * (33_000_000)
    content = iter([body[: 1 << 20]] * 33) if chunked else body
    headers = {"Content-Type": "application/json"}
    with httpx.Client() as client:
        answer = client.post(f"{lmx_server.url}/v1/chat/completions", content=content, headers=headers, timeout=30)
        assert answer.status_code == 413
        assert answer.json()["error"]["code"] == "request_too_large"
        assert client.get(f"{lmx_server.url}/v1/models").status_code == 200


def test_a_declared_giant_is_answered_before_it_is_sent(lmx_server: LiveServer) -> None:
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {MAX_BODY_BYTES * 100}\r\nExpect: 100-continue\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", lmx_server.port), timeout=30) as connection:
        connection.sendall(head.encode())
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"request_too_large" in answer


def test_every_answer_has_one_request_id(lmx_server: LiveServer) -> None:
    for method, path in (
        ("GET", "/v1/models"), ("GET", "/v1/none"), ("PUT", "/v1/models"), ("POST", "/v1/completions"),
        ("GET", "/admin/health"), ("GET", "/static/none"), ("GET", "/none"), ("GET", "/static/../x"), ("GET", "/%00"),
    ):  # fmt: skip
        answer = httpx.request(method, lmx_server.url + path)
        assert len(answer.headers.get_list("x-request-id")) == 1, path
        assert answer.status_code < 500, path


def test_a_header_cannot_move_a_path_under_another_rule(start_server: Start) -> None:
    server = start_server(LMX_SECURITY__ADMIN_KEY="adm")
    for path, prefix in (
        ("/static/admin/status", "/static"),
        ("/v1/admin/status", "/v1"),
        ("/login/admin/status", "/login"),
    ):
        answer = httpx.get(server.url + path, headers={"Daphne-Root-Path": prefix})
        assert answer.status_code in (302, 401, 404), path
        assert "memory" not in answer.text
    assert httpx.get(f"{server.url}/admin/status").status_code == 401
    assert httpx.get(f"{server.url}/admin/status", headers={"x-api-key": "adm"}).status_code == 200
    assert server.stop() == 0


async def test_the_websocket_obeys_the_same_rules(start_server: Start) -> None:
    server = await asyncio.to_thread(start_server, LMX_SECURITY__ADMIN_KEY="adm")
    url = server.url.replace("http", "ws") + "/ws"
    login = httpx.AsyncClient(base_url=server.url)
    async with login:
        page = await login.get("/login")
        form = {"key": "adm", "next": "/", "csrfmiddlewaretoken": login.cookies["lmx_csrf"]}
        assert page.status_code == 200
        assert (await login.post("/login", data={**form, "key": "guess"})).status_code == 403
        assert (await login.post("/login", data=form)).headers["location"] == "/"
    cookie = {"Cookie": f"lmx_owner={login.cookies['lmx_owner']}"}
    async with websockets.connect(url, additional_headers=cookie):
        pass
    async with websockets.connect(url, additional_headers=cookie, origin=server.url):  # type: ignore[arg-type]
        pass
    for headers in ({}, {**cookie, "Origin": "http://evil.example"}, {**cookie, "Host": "evil.example"}):
        with pytest.raises((websockets.InvalidStatus, websockets.InvalidHandshake)):
            async with websockets.connect(url, additional_headers=headers):
                pass
    with pytest.raises(websockets.InvalidStatus):
        async with websockets.connect(server.url.replace("http", "ws") + "/other", additional_headers=cookie):
            pass
    assert await asyncio.to_thread(server.stop) == 0


def test_a_client_that_reads_nothing_holds_up_nobody(lmx_server: LiveServer) -> None:
    body = json.dumps(chat(script("x", tokens=30_000), stream=True, max_tokens=30_000)).encode()
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        connection.connect(("127.0.0.1", lmx_server.port))
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{lmx_server.port}\r\nConnection: close\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        status = connection.recv(15)
        answer = httpx.post(f"{lmx_server.url}/v1/chat/completions", json=chat("hello"), timeout=30)
        assert answer.status_code == 200
        until(lambda: running(lmx_server) == 0, "the answer to be over for the model")
        received = status
        while data := connection.recv(1 << 20):
            received += data
    assert received.startswith(b"HTTP/1.1 200")
    assert b"data: [DONE]" in received
    assert b'"finish_reason":"length"' in received or b'"finish_reason":"stop"' in received
