"""The process that asks the Hub: ``python -m models_admin.hub_worker --fd N``, started by ``hub_client``.

It is a process of its own because the Hub's library would add a fifth to the web process, and because what comes from
the network may be anything: it is read here up to a size and a time, and only what ``hub_told`` makes of it goes on. It
keeps nothing but its connections, and ends with its server.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

# Before huggingface_hub is imported, which reads them once.
os.environ |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}

import httpx2
import msgspec
from huggingface_hub import get_session, get_token, hf_hub_url
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

from inference.ipc import FrameSplitter
from inference.lifeline import die_with_parent
from models_admin.fetch_names import endpoint
from models_admin.hub_card import render
from models_admin.hub_protocol import Answer, Ask, Refused, decode_ask, encode
from models_admin.hub_told import MOST_FILES, told_files, told_model
from models_admin.hub_words import HubRefusal, refusal

AT_ONCE = 6
"""Questions at the Hub at one time."""

_CONNECT_S, _SILENCE_S, _WHOLE_S = 5.0, 10.0, 15.0
_LIST_BYTES, _INFO_BYTES, _CONFIG_BYTES = 8 << 20, 8 << 20, 2 << 20
_README_BYTES = 1 << 20
_ERROR_BYTES = 1 << 16
_LONGEST_CURSOR = 2000
_SHOWN = ["author", "config", "downloads", "gated", "gguf", "lastModified", "library_name", "likes", "pipeline_tag"]
_SHOWN += ["safetensors", "sha", "tags"]


def search(params: Mapping[str, Any]) -> dict[str, Any]:
    """A page of the Hub's list; ``cursor`` is the Hub's own for the next one, "" at the end.

    ``text``, ``author``, ``filters`` (tags), ``sort`` (the Hub's word), ``limit``, ``cursor``.
    """
    asked: dict[str, Any] = {"sort": params["sort"], "limit": params["limit"], "expand": _SHOWN}
    for name, key in (("text", "search"), ("author", "author"), ("filters", "filter"), ("cursor", "cursor")):
        if params.get(name):
            asked[key] = params[name]
    content, response = _get(f"{endpoint()}/api/models", asked, _LIST_BYTES)
    listed = msgspec.json.decode(content)
    if not isinstance(listed, list):
        raise ValueError("a search was answered with no list")
    models = [told for told in map(told_model, listed[: params["limit"]]) if told is not None]
    return {"models": models, "count": len(listed), "cursor": _cursor(response)}


def info(params: Mapping[str, Any]) -> dict[str, Any]:
    """``repo`` at ``revision`` ("": the newest): ``model``, ``files``, how many ``more`` there are, ``token``."""
    path = f"{endpoint()}/api/models/{params['repo']}"
    if params["revision"]:
        path += f"/revision/{quote(params['revision'], safe='')}"
    content, _ = _get(path, {"blobs": True}, _INFO_BYTES)
    raw = msgspec.json.decode(content)
    model = told_model(raw)
    if model is None:
        raise ValueError("a model was answered with what is none")
    files = sorted(told_files(raw), key=lambda file: (not file["fetched"], -file["size"], file["name"]))
    fetched = sum(file["size"] for file in files if file["fetched"])
    shown = files[:MOST_FILES]
    about = {"files": shown, "more": len(files) - len(shown), "fetched_bytes": fetched}
    return {"model": model, **about, "token": get_token() is not None}


def config(params: Mapping[str, Any]) -> dict[str, Any]:
    """``config``: the object in ``config.json`` of ``repo`` at the commit ``revision``."""
    found = msgspec.json.decode(_file(params["repo"], params["revision"], "config.json", _CONFIG_BYTES))
    if not isinstance(found, dict):
        raise ValueError("config.json is not a JSON object")
    return {"config": found}


def card(params: Mapping[str, Any]) -> dict[str, Any]:
    """``html`` and ``cut`` of the README of ``repo`` at the commit ``revision``; empty where there is none."""
    repo, revision = params["repo"], params["revision"]
    try:
        text = _file(repo, revision, "README.md", _README_BYTES).decode("utf-8", errors="replace")
    except Exception as error:
        if refusal(error, repo).code not in ("file_not_found", "model_gated"):
            raise
        return {"html": "", "cut": False}
    html, cut = render(text, f"{endpoint()}/{repo}/blob/{revision}/")
    return {"html": html, "cut": cut}


QUESTIONS: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "search": search,
    "info": info,
    "config": config,
    "card": card,
}


def _file(repo: str, revision: str, name: str, most: int) -> bytes:
    return _get(str(hf_hub_url(repo, name, revision=revision)), {}, most)[0]


def _get(url: str, params: Mapping[str, Any], most: int) -> tuple[bytes, httpx2.Response]:
    """The body, of ``most`` bytes at most and within a time as a whole. Raises what the library raises."""
    timeout = httpx2.Timeout(_SILENCE_S, connect=_CONNECT_S)
    deadline = time.monotonic() + _WHOLE_S
    with get_session().stream("GET", url, params=params, headers=build_hf_headers(), timeout=timeout) as response:
        bad = response.status_code >= 400
        most = _ERROR_BYTES if bad else most
        body = bytearray()
        for chunk in response.iter_bytes(1 << 16):
            body += chunk
            if len(body) > most:
                if bad:
                    break
                raise HubRefusal("hub_error", f"{endpoint()} sends more than an answer can have ({most >> 20} MB).")
            if time.monotonic() > deadline:
                raise TimeoutError
    if bad:  # worded by the library, from what was read of it
        headers = {name: value for name, value in response.headers.items() if name != "content-encoding"}
        hf_raise_for_status(
            httpx2.Response(response.status_code, headers=headers, content=bytes(body), request=response.request)
        )
    return bytes(body), response


def _cursor(response: httpx2.Response) -> str:
    """The cursor in the link to the next page; the rest of the link is not followed."""
    link = str(response.links.get("next", {}).get("url", ""))
    found = parse_qs(urlsplit(link).query).get("cursor", [""])[0]
    return found if len(found) <= _LONGEST_CURSOR and found.isprintable() else ""


def _answer(ask: Ask) -> Answer | Refused:
    subject = str(ask.params.get("repo") or "this search")
    try:
        return Answer.of(ask.number, QUESTIONS[ask.what](ask.params))
    except Exception as error:  # whatever it is, its asker must hear of it
        told = refusal(error, subject)
        return Refused(ask.number, told.code, told.message, told.retry_after)


def main() -> None:
    die_with_parent()
    sock = socket.socket(fileno=int(sys.argv[sys.argv.index("--fd") + 1]))
    lock, pool = threading.Lock(), ThreadPoolExecutor(AT_ONCE, thread_name_prefix="ask")

    def work(ask: Ask) -> None:
        frame = encode(_answer(ask))
        with lock:
            sock.sendall(frame)

    splitter = FrameSplitter()
    while data := sock.recv(65536):
        for body in splitter.feed(data):
            pool.submit(work, decode_ask(body))
    os.killpg(os.getpgid(0), signal.SIGKILL)


if __name__ == "__main__":
    main()
