"""The commands of ``lmx`` that keep the models on disk in order."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from lmx_site.cli_base import KEY, URL, Failure, UsageFailure, connected

if TYPE_CHECKING:
    from lmx_site.client import Client

_LOOK_EVERY_S = 0.3
_GONE = ("absent", "offline")


@click.command()
@click.argument("name", required=False)
@click.option("--all", "every", is_flag=True, help="Every model on disk, one after the other.")
@URL
@KEY
def verify(name: str | None, every: bool, url: str | None, key: str | None) -> None:
    """Read every file of the model NAME and compare it with what it should be. Ctrl-C stops; the next run goes on."""
    if every == (name is not None):
        raise UsageFailure("name one model, or --all; see 'lmx verify --help'")
    with connected(url, key) as client:
        names = [name] if name else _on_disk(client)
        bad = [one for one in names if not _verify(client, one, alone=not every)]
    if bad:
        raise Failure(f"{len(bad)} of {len(names)} could not be found sound: {', '.join(bad)}")


@click.command()
@click.argument("name")
@click.option("--dry-run", is_flag=True, help="Say what it would free, and delete nothing.")
@click.option("--forget", is_flag=True, help="Only take it off the list, until its files change.")
@click.option("--yes", is_flag=True, help="Do not ask first.")
@URL
@KEY
def delete(name: str, dry_run: bool, forget: bool, yes: bool, url: str | None, key: str | None) -> None:
    """Delete the model NAME from the disk, after saying what that frees."""
    wanted: dict[str, Any] = {"model_id": name, "forget": forget}
    with connected(url, key) as client:
        plan = client.post("/admin/model/delete", {**wanted, "dry_run": True})
        # What is deleted is what was shown, whatever has the name by then.
        wanted["path"] = plan["path"]
        if forget and not dry_run:
            client.post("/admin/model/delete", wanted)
            click.echo(f"{plan['model_id']}: off the list until its files change; nothing was deleted")
            return
        click.echo(_plan(plan))
        if dry_run or not (yes or _agreed()):
            return
        done = client.post("/admin/model/delete", wanted)
    click.echo(f"{done['model_id']}: deleted, {_size(done['freed_bytes'])} freed")


@click.command()
@click.argument("name", required=False)
@click.option("--path", help="The directory of the one that is meant, where several have the name.")
@URL
@KEY
def restore(name: str | None, path: str | None, url: str | None, key: str | None) -> None:
    """Bring the model NAME, which was taken off the list, back to it; without NAME, show which there are."""
    from lmx_site import terminal

    with connected(url, key) as client:
        if name is None:
            for line in terminal.hidden_lines(client.get("/admin/models/hidden")):
                click.echo(line)
            return
        back = client.post("/admin/model/restore", {"model_id": name} | ({"path": path} if path else {}))
    click.echo(f"{back['model_id']}: on the list again")


@click.command()
@click.option("--reclaim", metavar="KIND", help="Delete what nobody needs of that kind: as listed, or 'all'.")
@click.option("--dry-run", is_flag=True, help="With --reclaim: say what it would free, and delete nothing.")
@click.option("--yes", is_flag=True, help="With --reclaim: do not ask first.")
@URL
@KEY
def disk(reclaim: str | None, dry_run: bool, yes: bool, url: str | None, key: str | None) -> None:
    """Show what takes space on the disks, and what of it nobody needs."""
    from lmx_site import terminal

    if reclaim is None and (dry_run or yes):
        raise UsageFailure("--dry-run and --yes belong to --reclaim; see 'lmx disk --help'")
    with connected(url, key) as client:
        if reclaim is not None:
            _reclaim(client, reclaim, dry_run=dry_run, yes=yes)
            return
        # Looking at every file of a slow volume takes its time.
        said = client.get("/admin/disk", patient=True)
    for line in terminal.disk_lines(said):
        click.echo(line)


def _reclaim(client: Client, kind: str, *, dry_run: bool, yes: bool) -> None:
    from lmx_site import terminal

    wanted: dict[str, Any] = {} if kind == "all" else {"kind": kind}
    plan = client.post("/admin/disk/reclaim", {**wanted, "dry_run": True})
    if not plan["freed"]:
        click.echo(f"there is nothing to delete{'' if kind == 'all' else f' of the kind {kind}'}")
        return
    for use in plan["freed"]:
        click.echo(f"{use['path']}, {_size(use['reclaimable'])}: {use['why']}")
    click.echo(f"{_size(plan['freed_bytes'])} would be freed")
    if dry_run or not (yes or _agreed()):
        return
    done = client.post("/admin/disk/reclaim", wanted)
    for line in terminal.reclaimed_lines(done):
        click.echo(line)


def _plan(plan: dict[str, Any]) -> str:
    text = f"{plan['path']}: {plan['files']} files, {_size(plan['freed_bytes'])} would be freed"
    if not plan["shared_bytes"]:
        return text
    others = f" ({', '.join(plan['shared_with'])})" if plan["shared_with"] else ""
    return f"{text}; {_size(plan['shared_bytes'])} more have names elsewhere too{others} and stay"


def _agreed() -> bool:
    """The owner's word; where nobody can be asked, a refusal that names the option."""
    if not sys.stdin.isatty():
        raise Failure("nothing was deleted: give --yes where nobody can be asked")
    return click.confirm("Delete it?")


def _size(count: int) -> str:
    from lmx_site import terminal

    return terminal.size(count)


def _on_disk(client: Client) -> list[str]:
    models = client.get("/admin/models/list")["models"]
    return [model["model_id"] for model in models if model["disk_state"] not in _GONE]


def _verify(client: Client, name: str, *, alone: bool) -> bool:
    """Whether the model was found sound; says what was found. ``alone``: a refusal ends the command."""
    from lmx_site.client import ClientError

    try:
        job = finished(client, client.post("/admin/model/verify", {"model_id": name})["job"])
        if job["state"] != "done":
            click.echo(f"{name}: {job['message']}")
            return False
        model = next(one for one in client.get("/admin/models/list")["models"] if one["path"] == job["result"]["path"])
    except ClientError as error:
        if alone:
            raise
        click.echo(f"{name}: {error}")
        return False
    for line in _found(model, job["result"]):
        click.echo(line)
    return not model["bad_files"]


def _found(model: dict[str, Any], result: dict[str, Any]) -> list[str]:
    from lmx_site import terminal

    read = f"{result['files']} files, {terminal.size(result['bytes'])}"
    if model["bad_files"]:
        return [f"{model['model_id']}: corrupt ({read}): {model['reason']}"]
    lines = [f"{model['model_id']}: sound ({read})"]
    if first := result["first_sight"]:
        lines.append(f"  nobody published a hash of {len(first)} of them: what was read now is expected from now on")
    return lines


def finished(client: Client, job: dict[str, Any]) -> dict[str, Any]:
    """The job's end; on a terminal with its progress in one line that is overwritten. Ctrl-C cancels it."""
    shown = sys.stdout.isatty()
    try:
        while job["state"] == "running":
            if shown and job["message"]:
                click.echo(f"\r\x1b[K{job['subject']}: {job['message']}", nl=False)
            time.sleep(_LOOK_EVERY_S)
            job = client.get(f"/admin/jobs/{job['id']}")
    except KeyboardInterrupt:
        client.post(f"/admin/jobs/{job['id']}/cancel", {})
        raise
    finally:
        if shown:
            click.echo("\r\x1b[K", nl=False)
    return job
