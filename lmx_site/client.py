"""What the command line asks a running server, over its own HTTP API."""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2

from lmx_site import paths

DEFAULT_URL = "http://127.0.0.1:1234"
# Seconds. An answer about the server's state is at hand; loading a model takes what it takes.
_CONNECT, _READ = 3.0, 15.0


class ClientError(Exception):
    """The server cannot be reached or refused; the text is one line for people."""


def running_url(home: Path) -> str | None:
    """The address that the server of that home wrote down, None when it wrote none (or something else)."""
    try:
        said = json.loads(paths.server_file(home).read_text(encoding="utf-8"))
        return str(said["url"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


class Client:
    """One server. ``key`` is sent as bearer; proxies of the environment are not used for it."""

    def __init__(self, url: str | None = None, key: str | None = None) -> None:
        self.url = (url or os.environ.get("LMX_URL") or running_url(paths.home()) or DEFAULT_URL).rstrip("/")
        headers = {"User-Agent": "lmx"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        timeout = httpx2.Timeout(_READ, connect=_CONNECT)
        self._http = httpx2.Client(base_url=self.url, headers=headers, timeout=timeout, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._http.close()

    def get(self, path: str, *, patient: bool = False) -> Any:
        """The JSON answer of a GET, ``patient``: however long it takes; raises ``ClientError``."""
        return self._json("GET", path, None, None if patient else _READ)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """The JSON answer of a POST, however long it takes; raises ``ClientError``."""
        return self._json("POST", path, body, None)

    def stream(self, path: str, body: dict[str, Any]) -> Generator[dict[str, Any], None, None]:
        """The JSON of each server-sent frame of a streamed answer; raises ``ClientError``, also for an error frame."""
        try:
            with self._http.stream("POST", path, json=body, timeout=httpx2.Timeout(None, connect=_CONNECT)) as answer:
                if answer.status_code >= 400:
                    answer.read()
                    raise ClientError(_refusal(answer))
                yield from _frames(answer.iter_lines())
        except httpx2.HTTPError as error:
            raise self._unreachable(error) from error

    def _json(self, method: str, path: str, body: dict[str, Any] | None, read: float | None) -> Any:
        timeout = httpx2.Timeout(read, connect=_CONNECT)
        try:
            answer = self._http.request(method, path, json=body, timeout=timeout)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise self._unreachable(error) from error
        if answer.status_code >= 400:
            raise ClientError(_refusal(answer))
        try:
            return answer.json()
        except ValueError as error:
            raise ClientError(f"what answers at {self.url} is no Opta-LMX server (no JSON at {path})") from error

    def _unreachable(self, error: Exception) -> ClientError:
        if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
            return ClientError(f"no server answers at {self.url}: start it with 'lmx serve', or name another by --url")
        if isinstance(error, httpx2.ReadTimeout):
            return ClientError(f"{self.url} takes connections but does not answer: see its log")
        return ClientError(f"the connection to {self.url} failed: {error or type(error).__name__}")


def _frames(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        data = line.removeprefix("data:").strip() if line.startswith("data:") else ""
        if data == "[DONE]":
            return
        if not data:
            continue
        frame = json.loads(data)
        if "error" in frame:
            raise ClientError(str(frame["error"].get("message", frame["error"])))
        yield frame


def _refusal(answer: httpx2.Response) -> str:
    """The sentence of an error answer; the key's option for a 401, as the server cannot know how it was asked."""
    try:
        said = str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        said = f"{answer.request.url.path} answered {answer.status_code} {answer.reason_phrase}"
    return f"{said} (with lmx: --key KEY, or LMX_KEY)" if answer.status_code == 401 else said
