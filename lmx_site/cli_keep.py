"""The commands of ``lmx`` that keep models up to date, and convert them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lmx_site.cli_base import KEY, URL, Failure, UsageFailure, connected
from lmx_site.cli_models import finished

if TYPE_CHECKING:
    from lmx_site.client import Client

_LOOK_EVERY_S = 0.3


@click.command()
@click.argument("name", required=False)
@click.option("--check", is_flag=True, help="Only say what the Hub has; without NAME for all models from there.")
@URL
@KEY
def update(name: str | None, check: bool, url: str | None, key: str | None) -> None:
    """Fetch what the Hub has now of the model NAME; it takes the name once it has answered."""
    if name is None and not check:
        raise UsageFailure("name a model, or --check; see 'lmx update --help'")
    with connected(url, key) as client:
        if check:
            looked = client.post("/admin/model/check-updates", {} if name is None else {"model_id": name})["models"]
            for line in _looked(looked):
                click.echo(line)
            return
        click.echo(_update(client, name))


@click.command()
@click.argument("name")
@click.option("--to", "revision", help="The revision to go to, or its beginning; default: the one before this one.")
@click.option("--forward", is_flag=True, help="Go to the newer one.")
@URL
@KEY
def rollback(name: str, revision: str | None, forward: bool, url: str | None, key: str | None) -> None:
    """Let the model NAME mean its older revision on this disk again."""
    if forward and revision:
        raise UsageFailure("--to names where to go, so --forward says nothing; see 'lmx rollback --help'")
    wanted: dict[str, Any] = {"model_id": name} | ({"revision": revision} if revision else {})
    with connected(url, key) as client:
        done = client.post("/admin/model/rollback", wanted | ({"forward": True} if forward else {}))
    if done["revision"] == done["previous"]:
        click.echo(f"{done['model_id']}: is {_short(done['revision'])} already")
    else:
        click.echo(f"{done['model_id']}: {_short(done['revision'])} now; the other is {done['previous_id']}")


@click.command()
@click.argument("source", metavar="MODEL")
@click.option("--bits", type=click.Choice(["3", "4", "6", "8"]), help="Of each weight; a GGUF file's own if left out.")
@click.option("--group-size", type=click.Choice(["32", "64", "128"]), help="Weights that share a scale; default 64.")
@click.option("--dtype", type=click.Choice(["float16", "bfloat16", "float32"]), help="Of what is not quantised.")
@click.option("--name", help="What the result is called: local/NAME.")
@URL
@KEY
def convert(
    source: str,
    bits: str | None,
    group_size: str | None,
    dtype: str | None,
    name: str | None,
    url: str | None,
    key: str | None,
) -> None:
    """Quantise MODEL, or make an MLX model of a GGUF file (MODEL is its path then)."""
    file = Path(source).expanduser()
    is_file = file.suffix.lower() == ".gguf"
    to = {"bits": int(bits) if bits else None, "group_size": int(group_size) if group_size else None, "dtype": dtype}
    wanted: dict[str, Any] = {"path": str(file.absolute())} if is_file else {"model_id": source}
    wanted |= {"to": {name: value for name, value in to.items() if value is not None}}
    with connected(url, key) as client:
        begun = client.post("/admin/model/convert", wanted | ({"name": name} if name else {}))
        job = finished(client, begun["job"])
    if job["state"] != "done":
        raise Failure(f"{begun['model_id']} was not made: {job['message']}")
    click.echo(f"{begun['model_id']}: {_size(job['result']['bytes'])} in {begun['path']}")


def _update(client: Client, name: str | None) -> str:
    """The whole of an update, with its progress on a terminal; what came of it."""
    begun = client.post("/admin/model/update", {"model_id": name})
    job = finished(client, begun["job"])
    if job["state"] not in ("done", "already_downloaded"):
        raise Failure(f"{begun['model_id']} stays as it was: {job['message']}")
    if job["result"]["revision"] == begun["previous"]:
        return f"{begun['model_id']}: up to date"
    while True:
        models = client.get("/admin/models/list")["models"]
        new = next((model for model in models if model["path"] == job["result"]["path"]), None)
        if new is None or (new["trial"] and (new["trial"]["state"] == "failed" or new["trial"]["reason"])):
            reason = new["trial"]["reason"] if new else "the new revision is not on the disk any more"
            raise Failure(f"{begun['model_id']} stays as it was: {reason}")
        if new["is_current"]:
            break
        time.sleep(_LOOK_EVERY_S)
    text = f"{new['model_id']}: {_short(new['revision'])} now"
    old = next((model for model in models if model["revision"] == begun["previous"]), None)
    return text if old is None else f"{text}; the one before is {old['model_id']}, 'lmx delete' says what that frees"


def _looked(models: list[dict[str, Any]]) -> list[str]:
    from lmx_site import terminal

    lines = []
    for model in models:
        found = model["update"]
        if model["problem"]:
            lines.append(f"{model['model_id']}: {model['problem']}")
        elif found is None:
            lines.append(f"{model['model_id']}: up to date")
        else:
            only = " (documents only: the model is the same)" if found["documents_only"] else ""
            lines.append(f"{model['model_id']}: {_short(found['commit'])}, {terminal.size(found['bytes'])}{only}")
            lines += [f"  {file['change']} {file['name']}, {terminal.size(file['bytes'])}" for file in found["files"]]
            lines += [f"  removed {name}" for name in found["removed"]]
    return lines or ["no model here came from the Hub"]


def _size(count: int) -> str:
    from lmx_site import terminal

    return terminal.size(count)


def _short(revision: str) -> str:
    return revision[:12]
