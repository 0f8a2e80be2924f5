"""The commands of ``lmx`` that look at the Hub before anything is fetched."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import click

from lmx_site.cli_base import KEY, URL, connected

_MOST = 100


@click.command()
@click.argument("text", required=False)
@click.option("--author", help="Only models of this author or organisation.")
@click.option("--quantization", help="Only models of this quantization, such as 4bit.")
@click.option(
    "--format", "kind", type=click.Choice(["mlx", "safetensors", "gguf", "any"]), default="mlx", help="Default: mlx."
)
@click.option("--sort", type=click.Choice(["downloads", "likes", "updated", "trending"]), default="downloads")
@click.option("--limit", type=click.IntRange(1, _MOST), default=20, help="How many; default 20.")
@URL
@KEY
def search(
    text: str | None,
    author: str | None,
    quantization: str | None,
    kind: str,
    sort: str,
    limit: int,
    url: str | None,
    key: str | None,
) -> None:
    """Search the Hub for models whose name has TEXT in it."""
    asked = {"q": text or "", "author": author or "", "quantization": quantization or ""}
    query = urlencode(asked | {"format": kind, "sort": sort, "limit": limit})
    with connected(url, key) as client:
        # The Hub may take longer than an answer of the server's own.
        said = client.get(f"/admin/hub/search?{query}", patient=True)
    for line in found_lines(said):
        click.echo(line)


@click.command()
@click.argument("name")
@click.option("--context", type=click.IntRange(1, 2**31 - 1), help="Tokens; default: the model's own, 32,768 at most.")
@URL
@KEY
def fit(name: str, context: int | None, url: str | None, key: str | None) -> None:
    """Say whether the model NAME, on disk or at the Hub, fits this machine."""
    with connected(url, key) as client:
        said = client.post("/admin/model/fit", {"model_id": name} | ({} if context is None else {"context": context}))
    for line in fit_lines(said):
        click.echo(line)


def found_lines(said: dict[str, Any]) -> Iterator[str]:
    """``/admin/hub/search`` for people."""
    from lmx_site import terminal

    rows = [
        [
            model["model_id"],
            terminal.size(model["weight_bytes"]),
            model["quantization"] or "–",
            f"{model['downloads']:,}",
            time.strftime("%Y-%m-%d", time.gmtime(model["updated_at"])) if model["updated_at"] else "–",
            ", ".join([*(["on disk"] if model["here"] else []), *(["gated"] if model["gated"] else [])]),
        ]
        for model in said["models"]
    ]
    if not rows:
        yield "nothing was found; --format any looks beyond MLX models"
        return
    yield from terminal.table(["MODEL", "SIZE", "QUANTIZATION", "DOWNLOADS", "UPDATED", ""], rows)
    if said["cursor"]:
        yield "there is more: --limit shows up to 100, a longer TEXT finds less"


def fit_lines(said: dict[str, Any]) -> Iterator[str]:
    """``/admin/model/fit`` for people: the verdict, and the numbers behind it."""
    from lmx_site import terminal

    yield f"{said['model_id']}: {said['sentence']}"
    facts = [said["format"], said["architecture"], said["quantization"], said["gated"] and "gated"]
    context = f"up to {said['context_length']:,} tokens" if said["context_length"] else ""
    yield "  " + ", ".join(fact for fact in [*facts, terminal.size(said["weight_bytes"]), context] if fact)
    if memory := said["memory"]:
        free = terminal.size(memory["now"]["free_bytes"])
        yield f"  memory: needs {terminal.size(memory['needed_bytes'])}, {free} is free{_longest(memory)}"
    if disk := said["disk"]:
        part = f" ({terminal.size(disk['have_bytes'])} is here)" if disk["have_bytes"] else ""
        yield f"  disk: {terminal.size(disk['needed_bytes'])} to fetch{part}, {terminal.size(disk['free_bytes'])} free"
    for here in said["here"]:
        older = ", the Hub has a newer one" if here["current"] is False else ""
        revision = here["revision"][:12] or "unknown"
        yield f"  on disk: {here['model_id']}, revision {revision} ({here['disk_state']}){older}"


def _longest(memory: dict[str, Any]) -> str:
    most = memory["now"]["max_context"]
    return f", room for {most:,} tokens now" if most else ""
