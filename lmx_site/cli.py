"""The ``lmx`` command: starts the server, prepares its engine, and talks to the one that runs.

Every failure is one line on stderr that says what and what to do, and an exit status that is not 0. Imports stay light:
only ``serve`` loads the site, and only when it is run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lmx_site import (
    __version__,
    cli_audit,
    cli_hub,
    cli_jobs,
    cli_keep,
    cli_models,
    cli_settings,
    paths,
    setup_engine,
)
from lmx_site.cli_base import KEY, URL, Commands, Failure, connected

if TYPE_CHECKING:
    from lmx_site.config import Config


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(version)s")
def main() -> None:
    """One machine's language models behind one local server.

    Everything it keeps is in LMX_HOME, by default ~/.opta-lmx.
    """


@main.command()
@click.option("--host", help="Address to listen on; default 127.0.0.1. Another one needs a key.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; default 1234.")
@click.option("--config", type=click.Path(path_type=Path), help="Configuration; default: config.yaml in LMX_HOME.")
@click.option("--home", type=click.Path(path_type=Path), help="Used in place of LMX_HOME.")
def serve(host: str | None, port: int | None, config: Path | None, home: Path | None) -> None:
    """Start the server and stay until it is stopped (Ctrl-C)."""
    if home is not None:
        os.environ["LMX_HOME"] = str(home.expanduser().absolute())
    loaded = _configuration(config, _overrides(host, port))
    _engine_or_failure()
    # Django's settings read LMX_HOME when they are imported, so not before it is final.
    from lmx_site import server

    sys.exit(server.serve(loaded, announce=click.echo))


@main.command()
def setup() -> None:
    """Install the engine (vllm-mlx and mlx-embeddings at their pinned versions), or check that it loads."""
    if not _engine_or_failure():
        try:
            setup_engine.check_engine()
        except setup_engine.SetupError as error:
            raise Failure(str(error)) from error
    click.echo(f"The engine is ready: {', '.join(paths.engine_pins())}")


@main.command()
def version() -> None:
    """Print the versions of the server and of its engine."""
    click.echo(f"opta-lmx {__version__}")
    click.echo(f"python {sys.version.partition(' ')[0]}")
    for name in ("vllm-mlx", "mlx-embeddings", "mlx-lm", "mlx"):
        click.echo(f"{name} {setup_engine.installed_version(name) or 'not installed'}")


@main.command()
@URL
@KEY
def status(url: str | None, key: str | None) -> None:
    """Show health, memory and the loaded models."""
    from lmx_site import terminal

    with connected(url, key) as client:
        for line in terminal.status_lines(client.url, client.get("/admin/status")):
            click.echo(line)


@main.command()
@URL
@KEY
def models(url: str | None, key: str | None) -> None:
    """List the models on disk and what each is doing."""
    from lmx_site import terminal

    with connected(url, key) as client:
        for line in terminal.model_lines(client.get("/admin/models/list")):
            click.echo(line)


@main.command()
@click.argument("name")
@click.option("--ttl", type=click.FloatRange(1, 31_536_000), help="Unload it after so many seconds without a request.")
@URL
@KEY
def load(name: str, ttl: float | None, url: str | None, key: str | None) -> None:
    """Load the model NAME and wait until it can answer."""
    from lmx_site import terminal

    wanted = {"model_id": name, "wait": True} | ({} if ttl is None else {"ttl": ttl})
    with connected(url, key) as client:
        answer = client.post("/admin/model/load", wanted)
    click.echo(f"{answer['model_id']}: {answer['status']}, {terminal.size(answer['memory_used_bytes'])} in use")


@main.command()
@click.argument("name")
@URL
@KEY
def unload(name: str, url: str | None, key: str | None) -> None:
    """Unload the model NAME, letting its running requests finish, and give its memory back."""
    from lmx_site import terminal

    with connected(url, key) as client:
        answer = client.post("/admin/model/unload", {"model_id": name})
    click.echo(f"{answer['model_id']}: {answer['status']}, {terminal.size(answer['memory_freed_bytes'])} given back")


@main.command()
@click.argument("name", required=False)
@URL
@KEY
def chat(name: str | None, url: str | None, key: str | None) -> None:
    """Talk to the model NAME (default: the default model). Ctrl-C stops an answer, Ctrl-D ends the chat."""
    from lmx_site import terminal

    with connected(url, key) as client:
        terminal.chat(client, name or "default")


@main.group()
def migrate() -> None:
    """Bring settings over from another program."""


@migrate.command()
@click.option("--dry-run", is_flag=True, help="Show what would be carried, and write nothing.")
@click.option("--from", "place", type=click.Path(path_type=Path), help="LM Studio's home; default: where it is.")
@click.option("--config", type=click.Path(path_type=Path), help="The file to write; default: config.yaml in LMX_HOME.")
@click.option("--cut-over", is_flag=True, help="Take LM Studio's port, and say what to switch off there.")
@click.option("--open-lan", is_flag=True, help="Let other machines in without a key, if LM Studio does.")
@click.option("--undo", is_flag=True, help="Put config.yaml back as it was before.")
@click.option("--force", is_flag=True, help="With --undo: also where config.yaml was changed since.")
@KEY
def lmstudio(
    dry_run: bool,
    place: Path | None,
    config: Path | None,
    cut_over: bool,
    open_lan: bool,
    undo: bool,
    force: bool,
    key: str | None,
) -> None:
    """Carry LM Studio's settings and names over into config.yaml, and list what cannot be."""
    from lmx_site import migrate_lmstudio
    from lmx_site.config import default_file
    from lmx_site.config_edit import EditError

    if undo and (dry_run or cut_over or open_lan or place):
        raise click.UsageError("--undo stands alone")
    if force and not undo:
        raise click.UsageError("--force belongs to --undo")
    file = (config or default_file(os.environ)).expanduser().absolute()
    try:
        if undo:
            migrate_lmstudio.undo(file, click.echo, force=force)
        else:
            migrate_lmstudio.run(
                file, place, click.echo, dry_run=dry_run, cut_over=cut_over, open_lan=open_lan, key=key
            )
    except EditError as error:
        raise Failure(str(error)) from error


main.add_command(cli_hub.search)
main.add_command(cli_hub.fit)
main.add_command(cli_models.verify)
main.add_command(cli_models.delete)
main.add_command(cli_models.restore)
main.add_command(cli_models.disk)
main.add_command(cli_audit.audit)
main.add_command(cli_settings.set_)
main.add_command(cli_jobs.download)
main.add_command(cli_jobs.jobs)
main.add_command(cli_keep.update)
main.add_command(cli_keep.rollback)
main.add_command(cli_keep.convert)


def _overrides(host: str | None, port: int | None) -> Mapping[str, str]:
    """The environment with the options put over it: they win over the file as variables do."""
    given = {"LMX_SERVER__HOST": host, "LMX_SERVER__PORT": None if port is None else str(port)}
    return {**os.environ, **{name: value for name, value in given.items() if value is not None}}


def _configuration(file: Path | None, environment: Mapping[str, str]) -> Config:
    from lmx_site.config import ConfigError, load_config

    try:
        return load_config(file, environment)
    except ConfigError as error:
        raise Failure("\n     ".join(error.problems)) from error


def _engine_or_failure() -> bool:
    try:
        return setup_engine.ensure_engine(click.echo)
    except setup_engine.SetupError as error:
        raise Failure(str(error)) from error


if __name__ == "__main__":
    main(prog_name="lmx")
