"""What no HTTP library sends, byte by byte: refused in a sentence, nothing of it runs, and the server serves on."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.live.process import MODEL, PATIENCE_S, LiveServer, fake_model, until

pytestmark = pytest.mark.live
CHAT = b"/v1/chat/completions"
BODY = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}).encode()
LENGTH = b"Content-Length: %d" % len(BODY)
CHUNKED = b"Transfer-Encoding: chunked"
IN_CHUNKS = b"%x\r\n%b\r\n0\r\n\r\n" % (len(BODY), BODY)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def error(self) -> dict[str, Any]:
        """The error, in the one shape and with the headers that every error has."""
        assert self.headers["content-type"] == "application/json", self
        assert int(self.headers["content-length"]) == len(self.content)
        assert self.headers["x-request-id"].startswith("req_")
        assert self.headers["x-should-retry"] == "false"
        found: dict[str, Any] = json.loads(self.content)["error"]
        assert found["message"]
        return found


class Wire:
    """The server as bytes see it."""

    def __init__(self, server: LiveServer) -> None:
        self.server = server

    def sent(self, data: bytes, *, ends: bool = False) -> bytes:
        """All that comes back until the server hangs up; ``ends``: the client says nothing more from then on."""
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=PATIENCE_S) as connection:
            connection.sendall(data)
            if ends:
                connection.shutdown(socket.SHUT_WR)
            received = b""
            while piece := connection.recv(65536):
                received += piece
        return received

    def ask(self, data: bytes) -> Answer:
        """The one answer to those bytes."""
        received = self.sent(data)
        head, found, content = received.partition(b"\r\n\r\n")
        assert found, f"no answer: {received[:100]!r}"
        first, *lines = head.decode("latin1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return Answer(int(first.split()[1]), headers, content)

    def post(self, *headers: bytes, body: bytes = BODY, kind: bytes = b"application/json") -> Answer:
        return self.ask(request(b"POST", CHAT, b"Content-Type: " + kind, *headers, body=body))

    def get(self, path: bytes, *headers: bytes) -> Answer:
        return self.ask(request(b"GET", path, *headers))


def request(method: bytes, path: bytes, *headers: bytes, body: bytes = b"") -> bytes:
    lines = [b"%b %b HTTP/1.1" % (method, path), b"Host: 127.0.0.1", b"Connection: close", *headers, b"", body]
    return b"\r\n".join(lines)


@pytest.fixture(scope="module")
def wire(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wire]:
    home = tmp_path_factory.mktemp("raw") / "home"
    fake_model(home)
    server = LiveServer(home)
    try:
        yield Wire(server.start())
        # The server's own end says so too: no request was left open, and nothing went wrong unseen.
        assert httpx.get(f"{server.url}/admin/status").json()["requests"] == []
        assert server.stop() == 0, server.stderr
        assert '"ERROR"' not in server.log
        assert server.stderr == ""
    finally:
        server.close()


@pytest.mark.parametrize("framing", [(LENGTH, BODY), (CHUNKED, IN_CHUNKS), (b"Content-Length:  %d " % len(BODY), BODY)])
def test_what_is_right_is_answered(wire: Wire, framing: tuple[bytes, bytes]) -> None:
    header, body = framing
    answer = wire.post(header, body=body)
    assert answer.status == 200
    assert json.loads(answer.content)["object"] == "chat.completion"


@pytest.mark.parametrize(
    "headers",
    [
        [b"Content-Length: -1"],
        [b"Content-Length: +45"],
        [b"Content-Length: 4_5"],
        [b"Content-Length: 0x2d"],
        [b"Content-Length: 1e1"],
        [b"Content-Length: \xb2"],
        [b"Content-Length:"],
        [b"Content-Length: 45, 45"],
        [b"Content-Length: 3", LENGTH],
        [LENGTH, CHUNKED],
        [b"Transfer-Encoding: gzip"],
        [b"no colon", LENGTH],
        [b": no name", LENGTH],
        [b"Space : before", LENGTH],
        [b"X-Nul: a\0b", LENGTH],
    ],
    ids=lambda headers: repr(b" + ".join(headers)),
)
def test_a_head_that_is_no_http_is_a_400_and_nothing_runs(wire: Wire, headers: list[bytes]) -> None:
    answer = wire.post(*headers, b"X-Last: 1")
    assert answer.status == 400
    assert answer.error["type"] == "invalid_request_error"


def test_what_comes_after_a_bad_line_does_not_run(wire: Wire) -> None:
    assert wire.get(b"/v1/models/behind-a-bad-line", b"no colon", b"X-More: 1", b"X-Last: 1").status == 400
    twice = request(b"GET", b"/v1/models", b"no colon") + request(b"GET", b"/v1/models/behind-a-bad-request")
    assert wire.ask(twice).status == 400
    assert wire.get(b"/v1/models/seen").status == 404
    until(lambda: "/v1/models/seen" in wire.server.log, "the access line of the last request")
    assert "GET /v1/models/behind-a-bad-line 400" in wire.server.log
    assert wire.server.log.count('/v1/models/behind-a-bad-line"') == 1
    assert "behind-a-bad-request" not in wire.server.log


@pytest.mark.parametrize("chunks", [b"zz\r\n", b"-1\r\n", b"0x2d\r\n", b"0" * 100_000 + b"\r\n", b"3\r\nabcd\r\n"])
def test_chunks_that_are_none_are_a_400(wire: Wire, chunks: bytes) -> None:
    assert wire.post(CHUNKED, body=chunks + IN_CHUNKS).error["message"]


def test_a_length_that_no_computer_has_is_a_413(wire: Wire) -> None:
    for digits in (19, 300, 5000):
        answer = wire.post(b"Content-Length: " + b"9" * digits, b"Expect: 100-continue", body=b"")
        assert answer.status == 413
        assert answer.error["code"] == "request_too_large"


def test_a_body_that_is_longer_than_it_says_is_cut_there(wire: Wire) -> None:
    assert wire.post(b"Content-Length: 10").error["code"] == "invalid_json"


@pytest.mark.parametrize(
    ("header", "body"), [(b"Content-Length: 1000", BODY), (CHUNKED, IN_CHUNKS[:20]), (CHUNKED, b"ffffffff\r\nabc")]
)
def test_a_body_that_is_cut_off_is_no_request(wire: Wire, header: bytes, body: bytes) -> None:
    data = request(b"POST", b"/v1/chat/completions/cut-off", b"Content-Type: application/json", header, body=body)
    assert wire.sent(data, ends=True) == b""
    assert "cut-off" not in wire.server.log


@pytest.mark.parametrize(
    "body",
    [
        b"\0" + BODY,
        BODY.replace(b"Hi", b"H\0i"),
        b"\xef\xbb\xbf" + BODY,
        BODY.decode().encode("utf-16"),
        BODY.replace(b"Hi", b"\\udc00\\ud800"),
        BODY.replace(b"Hi", b"\xed\xa0\x80"),
        BODY[:-1] + b', "model": "b"}',
        BODY[:-1] + b', "seed": ' + b"9" * 100_000 + b"}",
        BODY[:-1] + b', "temperature": 1e999}',
        BODY[:-1] + b', "metadata": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
        BODY[:-1] + b', "metadata": ' + b'{"a":' * 200_000,
        b'{"messages": ' * 50,
    ],
    ids=[
        "nul",
        "nul in text",
        "bom",
        "utf-16",
        "surrogates",
        "surrogate bytes",
        "twice",
        "int",
        "float",
        "deep",
        "open",
        "cut",
    ],
)
def test_bodies(wire: Wire, body: bytes) -> None:
    answer = wire.post(b"Content-Length: %d" % len(body), body=body)
    assert answer.status == 400
    assert answer.error["code"] == "invalid_json"


def test_a_compressed_body_is_refused_by_name(wire: Wire) -> None:
    body = gzip.compress(BODY)
    for name in (b"gzip", b"br", b"x-unknown"):
        answer = wire.post(b"Content-Encoding: " + name, b"Content-Length: %d" % len(body), body=body)
        assert answer.status == 415
        assert f"Content-Encoding: {name.decode()}" in answer.error["message"]
    assert wire.post(b"Content-Encoding: identity", LENGTH).status == 200


@pytest.mark.parametrize("method", [b"FOO", b"TRACE", b"CONNECT", b"PATCH", b"PROPFIND", b"M" * 1000])
def test_unknown_methods_are_a_405(wire: Wire, method: bytes) -> None:
    for path, allowed in ((b"/v1/models", "GET"), (CHAT, "POST")):
        answer = wire.ask(request(method, path, b"Content-Type: application/json"))
        assert answer.status == 405
        assert answer.error["code"] == "method_not_allowed"
        assert allowed in answer.headers["allow"]


@pytest.mark.parametrize(
    "path",
    [b"/%00", b"/%zz", b"/%ff", b"/%", b"/../models", b"/%2e%2e/x", b"/%ed%a0%80", b"/#x", b"/" + b"a" * 10_000],
    ids=repr,
)
def test_odd_paths_are_a_404(wire: Wire, path: bytes) -> None:
    for before in (b"/v1/models", b"/v1/responses", b"/api/v0/models", b"/admin/jobs"):
        answer = wire.get(before + path)
        assert answer.status == 404 or (before == b"/admin/jobs" and answer.status == 400), answer
        assert answer.error["message"]


@pytest.mark.parametrize("size", [20_000, 1_000_000])
def test_a_path_that_is_too_long_is_a_414(wire: Wire, size: int) -> None:
    answer = wire.get(b"/v1/models?after_id=" + b"a" * size)
    assert answer.status == 414
    assert answer.error["code"] == "uri_too_long"


@pytest.mark.parametrize(
    "headers",
    [
        [b"X-Long: " + b"a" * 20_000],
        [b"X-Long: " + b"a" * 1_000_000],
        [b"X-Many: a"] * 1000,
        [b"X: " + b"a" * 500] * 100,
    ],
    ids=["long", "very long", "many", "long together"],
)
def test_headers_that_are_too_long_are_a_431(wire: Wire, headers: list[bytes]) -> None:
    answer = wire.get(b"/v1/models", *headers)
    assert answer.status == 431
    assert answer.error["code"] == "headers_too_large"


def test_what_is_no_http_at_all_is_answered_in_words(wire: Wire) -> None:
    for data in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET /v1/models\r\n\r\n",
        b"\r\n" * 10,
        b"PRI * HTTP/2.0\r\n\r\n",
    ):
        received = wire.sent(data)
        assert received.startswith(b"HTTP/1.1 400 Bad Request\r\n"), received
        assert b"HTTP/1.1" in received.partition(b"\r\n\r\n")[2], "the body says what is spoken here"


def test_odd_headers_do_no_harm(wire: Wire) -> None:
    for header in (
        b"Authorization: Bearer \xff\xfe",
        b'Cookie: \xff=;;"=,',
        b"X-Folded: a\r\n b",
        b"Accept: \xff",
        b"X-Client: \xff",
    ):
        assert wire.get(b"/v1/models", header).status == 200
    for header in (b"X-Priority: \xff", b"X-Timeout: 1e400", b"X-Timeout: \xb2"):
        assert wire.get(b"/v1/models", header).error["param"] == header.partition(b":")[0].decode()
    assert wire.get(b"/admin/events", b"Last-Event-ID: \xb2").error["param"] == "Last-Event-ID"
