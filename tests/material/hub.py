"""A Hub on this machine: enough of its HTTP API for the real client, with gates and faults.

Model information with sizes, blob ids and LFS hashes; files with Range, ETag and a redirect to "another" place for
LFS files; 401, 403, 404; the list of models (``hub_search``). ``hub.hold(name, after)`` makes a file stop after so
many bytes until ``hub.release()``; ``hub.fault(name, …)`` gives a request for a file's content another answer, once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import numpy as np
from safetensors.numpy import save

from tests.material import nano_model
from tests.material.hub_search import listed

COMMIT = "5" * 40
MIB = 1 << 20
REPO = "acme/nano-4bit"
BIG = "model-big.safetensors"


def nano_files() -> dict[str, bytes]:
    """A model that can be examined, a weight file of some chunks, and what must never be taken."""
    files = {path.name: path.read_bytes() for path in nano_model().iterdir() if path.is_file()}
    files[BIG] = save({"unused": np.arange(4 * MIB, dtype=np.uint8)})
    return files | {"run.py": b"import os", "pytorch_model.bin": b"\x80", "weights.pt": b"\x80", "../../x.json": b"{}"}


@dataclass(frozen=True)
class Fault:
    """What becomes of one request for a file's content. ``after`` so many bytes the connection is cut, or ``hangs``.

    ``status`` is answered in place of the content, with ``headers``. ``length`` bytes are sent in place of all.
    """

    after: int | None = None
    hangs: bool = False
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None


@dataclass
class HubRepo:
    """``files`` by name; the weights have a SHA-256. ``wrong`` ones are sent altered. ``claimed`` is a size in bytes
    that is told of a file in place of its own. ``cdn`` is another host that the files come from; ``before`` has the
    files of older commits.
    """

    files: dict[str, bytes]
    commit: str = COMMIT
    branches: tuple[str, ...] = ("main",)
    gated: bool = False
    wrong: set[str] = field(default_factory=set)
    claimed: dict[str, int] = field(default_factory=dict)
    ignores_range: bool = False
    name: str | None = None
    about: dict[str, Any] = field(default_factory=dict)
    cdn: str = ""
    before: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def described(self, repo: str, revision: str) -> dict[str, Any]:
        files = self.before.get(revision, self.files)
        siblings = [self._sibling(name, content) for name, content in files.items()]
        return {
            "id": self.name or repo,
            "sha": revision if revision in self.before else self.commit,
            "gated": "manual" if self.gated else False,
            "private": False,
            "siblings": siblings,
            "config": self._config(),
            **self.about,
        }

    def _config(self) -> dict[str, Any]:
        config = json.loads(self.files.get("config.json", b"{}"))
        return {name: config[name] for name in ("model_type", "quantization_config") if name in config}

    def _sibling(self, name: str, content: bytes) -> dict[str, Any]:
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        size = self.claimed.get(name, len(content))
        told: dict[str, Any] = {"rfilename": name, "size": size, "blobId": blob}
        if name.endswith(".safetensors"):
            told["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": size, "pointerSize": 134}
        return told

    def sent(self, name: str, commit: str = "") -> bytes:
        content = self.before.get(commit, self.files)[name]
        return bytes([content[0] ^ 1]) + content[1:] if name in self.wrong else content


class Hub:
    """``repos`` by name. ``asked`` keeps (method, path, Range) of every request; ``token`` opens gated ones."""

    def __init__(self, repos: dict[str, HubRepo]) -> None:
        self.repos = repos
        self.token = "hf_sesame"
        self.asked: list[tuple[str, str, str]] = []
        self.tokens: list[tuple[str, str]] = []
        self.sent: dict[str, int] = {}
        self.held: dict[str, int] = {}
        self.waiting: set[str] = set()
        self.faults: dict[str, list[Fault]] = {}
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.said: dict[str, bytes] = {}
        self.searching = threading.Event()
        self.searching.set()
        self._gate = threading.Event()
        hub = self

        class Handler(_Handler):
            the_hub = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="hub")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def hold(self, name: str, after: int) -> None:
        """Send only ``after`` bytes of that file, until ``release``; of no file: do not say what there is."""
        self.held[name] = after
        self._gate.clear()

    def release(self) -> None:
        self.held.clear()
        self._gate.set()

    def wait_for_release(self, name: str, client: socket.socket) -> None:
        """``waiting`` has the name meanwhile. Raises ``ConnectionError`` when the client goes away."""
        self.waiting.add(name)
        try:
            while not self._gate.wait(0.01):
                with contextlib.suppress(BlockingIOError):
                    if not client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT):
                        raise ConnectionError
        finally:
            self.waiting.discard(name)

    def fault(self, name: str, **how: Any) -> None:
        """One more fault for that file's next requests, in their order."""
        self.faults.setdefault(name, []).append(Fault(**how))

    def ranges(self, name: str) -> list[str]:
        """The Range headers of the requests for a file's content."""
        return [wanted for method, path, wanted in self.asked if method == "GET" and path.endswith(f"cdn/{name}")]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
        self.searching.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    """``/api/models/…``, ``/org/name/resolve/…`` and, behind its redirect, ``/org/name/cdn/…``."""

    the_hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # a client that was killed
            super().handle()

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub = self.the_hub
        path = unquote(urlsplit(self.path).path).strip("/")
        hub.asked.append((self.command, path, self.headers.get("Range", "")))
        hub.tokens.append((path, self.headers.get("Authorization", "")))
        if hub.status is not None:
            return self._send(hub.status, hub.headers)
        if path in hub.said:
            return self._send(200, {"Content-Type": "application/json"}, hub.said[path])
        if path == "api/models":
            hub.searching.wait(60)
            described = {name: repo.described(name, "main") for name, repo in hub.repos.items()}
            body, headers = listed(described, urlsplit(self.path).query, hub.url)
            return self._send(200, headers, body)
        steps = path.split("/")
        if steps[:2] == ["api", "models"]:
            return self._info("/".join(steps[2:4]), steps[5] if len(steps) > 5 else "main")
        repo = hub.repos.get("/".join(steps[:2]))
        if repo is None:
            return self._send(401, {"X-Error-Code": "RepoNotFound"})
        if steps[2] == "resolve":
            return self._resolve(repo, steps)
        return self._content(repo, "/".join(steps[3:]), urlsplit(self.path).query)

    def _info(self, name: str, revision: str) -> None:
        if "" in self.the_hub.held:
            self.the_hub.wait_for_release("", self.connection)
        repo = self.the_hub.repos.get(name)
        if repo is None:
            return self._send(401, {"X-Error-Code": "RepoNotFound"})
        if revision not in (*repo.branches, repo.commit, *repo.before):
            return self._send(404, {"X-Error-Code": "RevisionNotFound"})
        return self._send(
            200, {"Content-Type": "application/json"}, json.dumps(repo.described(name, revision)).encode()
        )

    def _resolve(self, repo: HubRepo, steps: list[str]) -> None:
        name = "/".join(steps[4:])
        if repo.gated and self.headers.get("Authorization") != f"Bearer {self.the_hub.token}":
            refused = 403 if self.headers.get("Authorization") else 401
            return self._send(refused, {"X-Error-Code": "GatedRepo"})
        files = repo.before.get(steps[3], repo.files if steps[3] == repo.commit else {})
        if name not in files:
            return self._send(404, {"X-Error-Code": "EntryNotFound"})
        etag = f'"{hashlib.sha256(files[name]).hexdigest()}"'
        headers = {"X-Repo-Commit": repo.commit, "ETag": etag, "X-Linked-Etag": etag}
        headers["X-Linked-Size"] = str(len(files[name]))
        return self._send(302, headers | {"Location": f"{repo.cdn}/{steps[0]}/{steps[1]}/cdn/{name}?{steps[3]}"})

    def _content(self, repo: HubRepo, name: str, commit: str) -> None:
        content, start, status, headers = repo.sent(name, commit), 0, 200, dict[str, str]()
        faults = self.the_hub.faults.get(name)
        fault = faults.pop(0) if faults and self.command == "GET" else Fault()
        if fault.status is not None:
            return self._send(fault.status, fault.headers)
        if fault.length is not None:
            content = (content + bytes(fault.length))[: fault.length]
        wanted = self.headers.get("Range")
        if wanted is not None and not repo.ignores_range:
            start = int(wanted.removeprefix("bytes=").split("-")[0])
            status = 206
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            if start >= len(content):
                return self._send(416, {"Content-Range": f"bytes */{len(content)}"})
        self._head(status, headers | {"Content-Length": str(len(content) - start)})
        if self.command == "HEAD":
            return None
        try:
            self._body(name, content, start, fault)
        except OSError:  # the client was killed
            self.close_connection = True
        return None

    def _body(self, name: str, content: bytes, start: int, fault: Fault) -> None:
        after = self.the_hub.held.get(name)
        if after is not None and start <= after:
            start = self._write(name, content, start, after)
            self.the_hub.wait_for_release(name, self.connection)
        if fault.after is None:
            self._write(name, content, start, len(content))
            return
        self._write(name, content, start, max(start, fault.after))
        if fault.hangs:
            self.the_hub.wait_for_release(name, self.connection)
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _write(self, name: str, content: bytes, start: int, end: int) -> int:
        self.wfile.write(content[start:end])
        self.wfile.flush()
        self.the_hub.sent[name] = self.the_hub.sent.get(name, 0) + max(0, min(end, len(content)) - start)
        return end

    def _send(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        self._head(status, {**(headers or {}), "Content-Length": str(len(body))})
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
