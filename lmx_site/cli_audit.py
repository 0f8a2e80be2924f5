"""``lmx audit``: who loaded, deleted or changed what."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast
from urllib.parse import urlencode

import click

from lmx_site.cli_base import KEY, URL, Failure, UsageFailure, connected

if TYPE_CHECKING:
    from lmx_site.client import Client
    from monitoring.audit_export import Format

_MOST = 1000
_UNITS = {"m": 60, "h": 3600, "d": 86_400}


@click.command()
@click.option("--who", default="", help="Only what that client did.")
@click.option("--action", default="", help="Only that action, as delete_model.")
@click.option("--model", default="", help="Only what was about a model or job whose name has this in it.")
@click.option("--since", default="", metavar="SPAN", help="Only the last 30m, 12h or 7d.")
@click.option("--limit", type=click.IntRange(1, _MOST), default=50, show_default=True, help="At most so many.")
@click.option("--export", type=click.Path(dir_okay=False, path_type=Path), help="Write all into a .csv or .jsonl file.")
@URL
@KEY
def audit(
    who: str, action: str, model: str, since: str, limit: int, export: Path | None, url: str | None, key: str | None
) -> None:
    """Show who loaded, deleted or changed what, the newest first."""
    wanted: dict[str, Any] = {"who": who, "action": action, "model": model}
    if since:
        wanted["since"] = time.time() - _seconds(since)
    wanted = {name: value for name, value in wanted.items() if value}
    form = _format(export) if export else None
    with connected(url, key) as client:
        if export is not None and form is not None:
            count = _write(export, form, _all(client, wanted))
            click.echo(f"{count} entries in {export}")
            return
        entries = _page(client, {**wanted, "limit": limit})["entries"]
    for entry in entries:
        click.echo(_line(entry))
    if not entries:
        click.echo("nothing was found" if wanted else "nothing was loaded, deleted or changed yet")


def _seconds(span: str) -> float:
    found = re.fullmatch(r"(\d{1,6})([mhd])", span)
    if found is None:
        raise UsageFailure(f"--since takes 30m, 12h or 7d, not {span!r}")
    return int(found[1]) * _UNITS[found[2]]


def _format(path: Path) -> Format:
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in ("csv", "jsonl"):
        raise UsageFailure(f"--export takes a name that ends with .csv or .jsonl, not {path.name!r}")
    return cast("Format", suffix)


def _page(client: Client, wanted: dict[str, Any]) -> dict[str, Any]:
    return cast("dict[str, Any]", client.get("/admin/audit?" + urlencode(wanted)))


def _all(client: Client, wanted: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    before = None
    while True:
        said = _page(client, {**wanted, "limit": _MOST, **({"before": before} if before else {})})
        yield said["entries"]
        before = said["next"]
        if before is None:
            return


def _write(path: Path, form: Format, parts: Iterator[list[dict[str, Any]]]) -> int:
    """Into a new file, which has its name when it is whole; says how many entries."""
    from monitoring import audit_export

    partial, count = path.with_name(path.name + ".partial"), 0
    try:
        # Who did what from where is not for everybody on this machine.
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", newline="") as file:
            file.write(audit_export.header(form))
            for part in parts:
                count += _add(file, audit_export.lines(part, form), len(part))
        partial.replace(path)
    except OSError as error:
        raise Failure(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)
    return count


def _add(file: TextIO, text: str, count: int) -> int:
    file.write(text)
    return count


def _line(entry: dict[str, Any]) -> str:
    when = datetime.fromtimestamp(entry["at"], UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    why = f" ({entry['reason']})" if entry["reason"] else ""
    place = f" from {entry['address']}" if entry["address"] else ""
    detail = "".join(f" {name}={value}" for name, value in entry["detail"].items())
    action = entry["action"].replace("_", " ")
    text = f"{when}  {entry['who']}{place}: {action} {entry['subject']}  {entry['outcome']}{why}{detail}"
    return "".join(c if c.isprintable() else "\ufffd" for c in text)
