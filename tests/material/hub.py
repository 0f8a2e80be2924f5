"""A Hub on this machine: enough of its HTTP API for the real client, with gates and faults.

Model information with sizes, blob ids and LFS hashes; files with Range, ETag and a redirect to "another" place for LFS
files; 401, 403, 404. ``hub.hold(name, after)`` makes a file stop after so many bytes until ``hub.release()``.
"""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import numpy as np
from safetensors.numpy import save

from tests.material import nano_model

COMMIT = "5" * 40
MIB = 1 << 20
REPO = "acme/nano-4bit"
BIG = "model-big.safetensors"


def nano_files() -> dict[str, bytes]:
    """A model that can be examined, a weight file of some chunks, and what must never be taken."""
    files = {path.name: path.read_bytes() for path in nano_model().iterdir() if path.is_file()}
    files[BIG] = save({"unused": np.arange(4 * MIB, dtype=np.uint8)})
    return files | {"run.py": b"import os", "pytorch_model.bin": b"\x80", "weights.pt": b"\x80", "../../x.json": b"{}"}


@dataclass
class HubRepo:
    """``files`` by name; the weights have a SHA-256. ``wrong`` ones are sent altered. ``claimed`` is a size in bytes
    that is told of a file in place of its own.
    """

    files: dict[str, bytes]
    commit: str = COMMIT
    branches: tuple[str, ...] = ("main",)
    gated: bool = False
    wrong: set[str] = field(default_factory=set)
    claimed: dict[str, int] = field(default_factory=dict)
    ignores_range: bool = False
    name: str | None = None

    def described(self, repo: str) -> dict[str, Any]:
        siblings = [self._sibling(name, content) for name, content in self.files.items()]
        return {
            "id": self.name or repo,
            "sha": self.commit,
            "gated": "manual" if self.gated else False,
            "private": False,
            "siblings": siblings,
        }

    def _sibling(self, name: str, content: bytes) -> dict[str, Any]:
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        size = self.claimed.get(name, len(content))
        told: dict[str, Any] = {"rfilename": name, "size": size, "blobId": blob}
        if name.endswith(".safetensors"):
            told["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": size, "pointerSize": 134}
        return told

    def sent(self, name: str) -> bytes:
        content = self.files[name]
        return bytes([content[0] ^ 1]) + content[1:] if name in self.wrong else content


class Hub:
    """``repos`` by name. ``asked`` keeps (method, path, Range) of every request; ``token`` opens gated ones."""

    def __init__(self, repos: dict[str, HubRepo]) -> None:
        self.repos = repos
        self.token = "hf_sesame"
        self.asked: list[tuple[str, str, str]] = []
        self.held: dict[str, int] = {}
        self.status: int | None = None
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
        """Send only ``after`` bytes of that file, until ``release``."""
        self.held[name] = after
        self._gate.clear()

    def release(self) -> None:
        self.held.clear()
        self._gate.set()

    def wait_for_release(self) -> None:
        self._gate.wait(60)

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
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    """``/api/models/…``, ``/org/name/resolve/…`` and, behind its redirect, ``/org/name/cdn/…``."""

    the_hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub = self.the_hub
        path = unquote(urlsplit(self.path).path).strip("/")
        hub.asked.append((self.command, path, self.headers.get("Range", "")))
        if hub.status is not None:
            return self._send(hub.status)
        steps = path.split("/")
        if steps[:2] == ["api", "models"]:
            return self._info("/".join(steps[2:4]), steps[5] if len(steps) > 5 else "main")
        repo = hub.repos.get("/".join(steps[:2]))
        if repo is None:
            return self._send(401, {"X-Error-Code": "RepoNotFound"})
        if steps[2] == "resolve":
            return self._resolve(repo, steps)
        return self._content(repo, "/".join(steps[3:]))

    def _info(self, name: str, revision: str) -> None:
        repo = self.the_hub.repos.get(name)
        if repo is None:
            return self._send(401, {"X-Error-Code": "RepoNotFound"})
        if revision not in (*repo.branches, repo.commit):
            return self._send(404, {"X-Error-Code": "RevisionNotFound"})
        return self._send(200, {"Content-Type": "application/json"}, json.dumps(repo.described(name)).encode())

    def _resolve(self, repo: HubRepo, steps: list[str]) -> None:
        name = "/".join(steps[4:])
        if repo.gated and self.headers.get("Authorization") != f"Bearer {self.the_hub.token}":
            refused = 403 if self.headers.get("Authorization") else 401
            return self._send(refused, {"X-Error-Code": "GatedRepo"})
        if name not in repo.files or steps[3] != repo.commit:
            return self._send(404, {"X-Error-Code": "EntryNotFound"})
        etag = f'"{hashlib.sha256(repo.files[name]).hexdigest()}"'
        headers = {"X-Repo-Commit": repo.commit, "ETag": etag, "X-Linked-Etag": etag}
        headers["X-Linked-Size"] = str(len(repo.files[name]))
        return self._send(302, headers | {"Location": f"/{steps[0]}/{steps[1]}/cdn/{name}"})

    def _content(self, repo: HubRepo, name: str) -> None:
        content, start, status, headers = repo.sent(name), 0, 200, dict[str, str]()
        wanted = self.headers.get("Range")
        if wanted is not None and not repo.ignores_range:
            start = int(wanted.removeprefix("bytes=").split("-")[0])
            status = 206
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        body = content[start:]
        self._head(status, headers | {"Content-Length": str(len(body))})
        if self.command == "HEAD":
            return
        try:
            after = self.the_hub.held.get(name)
            if after is not None and start < after:
                self.wfile.write(body[: after - start])
                self.wfile.flush()
                self.the_hub.wait_for_release()
                body = body[after - start :]
            self.wfile.write(body)
        except OSError:  # the client was killed
            self.close_connection = True

    def _send(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        self._head(status, {**(headers or {}), "Content-Length": str(len(body))})
        if self.command != "HEAD":
            self.wfile.write(body)

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
