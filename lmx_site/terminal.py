"""What the command line shows: tables of the server's state, and a chat. Pure text but for ``chat``."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import click

from lmx_site.client import Client

_GB = 1024**3
_MB = 1024**2
_RIGHT = frozenset({"MEMORY", "SIZE", "CONTEXT", "TOK/S", "PLACE", "FREE", "OF", "DOWNLOADS"})


def size(count: float | None) -> str:
    """Bytes as people read them; a dash for nothing."""
    if not count:
        return "–"
    return f"{count / _GB:.1f} GB" if count >= 1000 * _MB else f"{count / _MB:.0f} MB"


def duration(seconds: float) -> str:
    """The two largest units: ``3 d 4 h``, ``5 min 2 s``."""
    left = int(seconds)
    parts: list[str] = []
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, length)
        if count or (unit == "s" and not parts):
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Aligned columns, numbers to the right."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    for row in [head, *rows]:
        cells = zip(row, widths, head, strict=True)
        aligned = (cell.rjust(width) if name in _RIGHT else cell.ljust(width) for cell, width, name in cells)
        yield "  ".join(aligned).rstrip()


def status_lines(url: str, said: dict[str, Any]) -> Iterator[str]:
    """``/admin/status`` for people."""
    up = duration(said["uptime_s"])
    yield f"{said['status']}: {url}, version {said['version']}, up {up}, {_requests(len(said['requests']))} in flight"
    for reason in said["reasons"]:
        yield f"  {reason}"
    memory = said["memory"]
    if memory.get("total_bytes"):
        used, total, free = (size(memory.get(name)) for name in ("used_bytes", "total_bytes", "free_bytes"))
        yield f"memory: {used} of {total} in use, {free} free for models"
    rows = [_running_row(model) for model in said["models"]]
    if not rows:
        yield "no model is loaded"
        return
    yield from table(["MODEL", "STATE", "MEMORY", "RUNNING+QUEUED", "TOK/S", "PREFIX CACHE", "TTL"], rows)
    yield from _waiting(said["requests"])


def _waiting(requests: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Who waits for a slot of a model, the next first."""
    waiting = sorted((r for r in requests if r.get("queue_position")), key=lambda r: (r["model"], r["queue_position"]))
    if waiting:
        rows = [[r["model"], str(r["queue_position"]), r["client"], r["priority"], r["id"]] for r in waiting]
        yield from table(["WAITING FOR", "PLACE", "CLIENT", "PRIORITY", "REQUEST"], rows)


def model_lines(said: dict[str, Any]) -> Iterator[str]:
    """``/admin/models/list`` for people."""
    rows = [_disk_row(model) for model in said["models"]]
    if not rows:
        yield "no model is on disk here"
        return
    yield from table(["MODEL", "STATE", "SIZE", "CONTEXT", "QUANTIZATION"], rows)
    for model in said["models"]:
        if model["reason"]:
            yield f"{model['model_id']}: {model['reason']}"


def hidden_lines(said: dict[str, Any]) -> Iterator[str]:
    """``/admin/models/hidden`` for people."""
    if not said["models"]:
        yield "no model was taken off the list"
        return
    rows = [[model["name"], size(model["weight_bytes"]), model["path"]] for model in said["models"]]
    yield from table(["MODEL", "SIZE", "PATH"], rows)


def disk_lines(said: dict[str, Any]) -> Iterator[str]:
    """``/admin/disk`` for people."""
    yield from table(
        ["VOLUME", "FREE", "OF"],
        [[volume["path"], size(volume["free_bytes"]), size(volume["total_bytes"])] for volume in said["volumes"]],
    )
    rows = [["models", model["name"], size(model["bytes"])] for root in said["roots"] for model in root["models"]]
    rows += [
        [_KINDS.get(use["kind"], use["kind"]), use["name"] or use["path"], size(use["bytes"])] for use in said["others"]
    ]
    yield ""
    yield from table(["KIND", "WHAT", "SIZE"], rows)
    for root in said["roots"]:
        absent = "" if root["present"] else ", not there now"
        yield f"{root['path']} ({root['owner']}{absent}): {size(root['bytes'])} in all"
    for twice in said["duplicates"]:
        yield f"there twice: {', '.join(twice['models'])}; {size(twice['bytes'])} would be saved by keeping one"
    for quota in said["quotas"]:
        if quota["used_bytes"] > quota["limit_bytes"]:
            over = _KINDS.get(quota["kind"], quota["kind"])
            yield f"over its limit: {over}, {size(quota['used_bytes'])} of {size(quota['limit_bytes'])}"
    for use in said["reclaimable"]:
        yield f"could be deleted: {use['path']}, {size(use['reclaimable'])}: {use['why']}"


def reclaimed_lines(said: dict[str, Any]) -> Iterator[str]:
    """``/admin/disk/reclaim`` for people."""
    for one in said["skipped"]:
        yield f"left: {one['path']}: {one['why']}"
    yield f"{size(said['freed_bytes'])} freed"


_KINDS = {"partial": "unfinished downloads", "leftover": "leftovers", "prefix_cache": "prefix caches"}
_KINDS |= {"hub_cache": "Hub cache", "demo_cache": "demo cache", "hidden_model": "off the list", "orphan": "no model's"}


def _requests(count: int) -> str:
    return "1 request" if count == 1 else f"{count or 'no'} requests"


def _running_row(model: dict[str, Any]) -> list[str]:
    requests = f"{model['running']}+{model['queued']}"
    speed = f"{model['tokens_per_second']:.1f}"
    ttl = duration(model["ttl"]) if model.get("ttl") else "–"
    return [model["model_id"], state(model), size(model["memory_used_bytes"]), requests, speed, _prefix(model), ttl]


def _prefix(model: dict[str, Any]) -> str:
    """The prefix cache: its size, and how much of the prompts it had."""
    cache = model.get("prefix_cache") or {}
    found = cache.get("found_percent")
    return size(cache.get("bytes")) if found is None else f"{size(cache.get('bytes'))}, {found:.0f} % found"


def _disk_row(model: dict[str, Any]) -> list[str]:
    context = str(model["context_length"] or "–")
    return [model["model_id"], state(model), size(model["size_bytes"]), context, model["quantization"] or "–"]


def state(model: dict[str, Any]) -> str:
    """The run state, with what loading is at."""
    load = model["load"]
    if model["state"] == "loading" and load["total"]:
        return f"loading {100 * load['done'] // load['total']} %"
    return str(model["state"])


def chat(client: Client, model: str) -> None:
    """A conversation until end of input. Raises ``ClientError``; Ctrl-C keeps what was said of an answer."""
    messages: list[dict[str, str]] = []
    while (question := _question()) is not None:
        if not question.strip():
            continue
        messages.append({"role": "user", "content": question})
        messages.append({"role": "assistant", "content": _answer(client, model, messages)})


def _question() -> str | None:
    try:
        return input("> ")
    except (EOFError, KeyboardInterrupt):
        click.echo()
        return None


def _answer(client: Client, model: str, messages: list[dict[str, str]]) -> str:
    body = {"model": model, "messages": messages, "stream": True, "stream_options": {"include_usage": True}}
    said, usage, begun = "", None, time.monotonic()
    frames = client.stream("/v1/chat/completions", body)
    try:
        for frame in frames:
            usage = frame.get("usage") or usage
            for choice in frame.get("choices", []):
                text = choice["delta"].get("content") or ""
                said += text
                click.echo(text, nl=False)
    except KeyboardInterrupt:
        click.echo(" [stopped]", nl=False)
    finally:
        # Closing the stream is what tells the server to stop decoding.
        frames.close()
    tail = f"[{usage['completion_tokens']} tokens, {time.monotonic() - begun:.1f} s]" if usage else ""
    click.echo(f"\n{click.style(tail, dim=True)}" if tail else "")
    return said
