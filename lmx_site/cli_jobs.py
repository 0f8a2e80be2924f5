"""The commands of ``lmx`` for downloads and other jobs of the server."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from lmx_site.cli_base import KEY, URL, Failure, UsageFailure, connected

if TYPE_CHECKING:
    from lmx_site.client import Client

_LOOK_EVERY_S = 0.3
_OPEN = ("queued", "running")
_WORK = ("pause", "resume", "cancel")
_INTERRUPTED = 130


@click.command()
@click.argument("name")
@click.option("--quantization", help="Such as 4bit: the name must end in it.")
@click.option("--revision", help="A branch, tag or commit; default: main.")
@click.option("--wait/--no-wait", default=True, help="Stay until it has ended (the default), or only start it.")
@click.option("--load", is_flag=True, help="Load it when it is there.")
@URL
@KEY
def download(
    name: str,
    quantization: str | None,
    revision: str | None,
    wait: bool,
    load: bool,
    url: str | None,
    key: str | None,
) -> None:
    """Fetch the model NAME (org/name, or its address) from the Hub. Ctrl-C leaves it running in the server."""
    from lmx_site import terminal

    wanted: dict[str, Any] = {"model_id": name, "quantization": quantization, "revision": revision, "auto_load": load}
    with connected(url, key) as client:
        answer = client.post("/admin/model/download", wanted)
        job = answer["job"]
        if job["state"] in _OPEN:
            if not wait:
                click.echo(f"{job['subject']}: {job['message'] or job['state']}\n{_hint(job)}")
                return
            job = _follow(client, job)
        if job["state"] in ("failed", "paused", "cancelled"):
            raise Failure(f"{job['subject']}: {job['state']}: {job['message']} (job {job['id']})")
        words = "is here already" if job["state"] == "already_downloaded" else "downloaded"
        click.echo(f"{job['subject']}: {words}, {terminal.size(job['total'])}, in {job['result']['path']}")
        if load:
            _load(client, job["result"]["path"])


@click.command()
@click.argument("action", required=False)
@click.argument("number", required=False, type=click.IntRange(1, 2**31))
@URL
@KEY
def jobs(action: str | None, number: int | None, url: str | None, key: str | None) -> None:
    """List the jobs of the server, or pause, resume or cancel one: lmx jobs pause 12."""
    if action is not None and (action not in _WORK or number is None):
        raise UsageFailure("write pause, resume or cancel and the job's number; see 'lmx jobs --help'")
    with connected(url, key) as client:
        if action is None:
            for line in _lines(client.get("/admin/jobs")["jobs"]):
                click.echo(line)
            return
        job = client.post(f"/admin/jobs/{number}/{action}", {})
    told = f": {job['message']}" if job["message"] not in ("", job["state"]) else ""
    click.echo(f"job {number}: {job['state']}{told}")


def _load(client: Client, path: str) -> None:
    """Wait for the load that follows the download, and say how it ended."""
    from lmx_site import terminal

    listed = client.get("/admin/models/list")["models"]
    name = next((model["model_id"] for model in listed if model["path"] == path), path)
    answer = client.post("/admin/model/load", {"model_id": name})
    click.echo(f"{name}: {answer['status']}, {terminal.size(answer['memory_used_bytes'])} in use")


def _follow(client: Client, job: dict[str, Any]) -> dict[str, Any]:
    """The job once it has ended or stands; on a terminal with its progress in one line that is overwritten."""
    shown = sys.stdout.isatty()
    try:
        while job["state"] in _OPEN:
            if shown:
                click.echo(f"\r\x1b[K{_progress(job)}", nl=False)
            time.sleep(_LOOK_EVERY_S)
            job = _job(client, job)
    except KeyboardInterrupt:
        click.echo(f"\n{job['subject']} is still being downloaded by the server.\n{_hint(job)}")
        sys.exit(_INTERRUPTED)
    finally:
        if shown:
            click.echo("\r\x1b[K", nl=False)
    return job


def _job(client: Client, job: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"/admin/jobs/{job['id']}")
    return found


def _hint(job: dict[str, Any]) -> str:
    return f"See it with 'lmx jobs', end it with 'lmx jobs cancel {job['id']}'."


def _progress(job: dict[str, Any]) -> str:
    from lmx_site import terminal

    rate = f", {terminal.size(job['bytes_per_second'])}/s" if job["bytes_per_second"] else ""
    left = f", {terminal.duration(job['seconds_left'])} left" if job["seconds_left"] else ""
    return f"{job['subject']}: {job['message'] or job['state']}{rate}{left}"


def _lines(listed: list[dict[str, Any]]) -> Iterator[str]:
    from lmx_site import terminal

    if not listed:
        yield "there are no jobs"
        return
    rows = [[str(job["id"]), job["kind"], job["state"], _part(job), job["subject"]] for job in listed]
    yield from terminal.table(["JOB", "KIND", "STATE", "DONE", "WHAT"], rows)
    for job in listed:
        if job["message"] and job["state"] in ("queued", "running", "paused", "failed"):
            yield f"job {job['id']}: {job['message']}"


def _part(job: dict[str, Any]) -> str:
    return f"{100 * job['done'] // job['total']} %" if job["total"] else "–"
