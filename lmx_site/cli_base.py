"""What the commands of ``lmx`` share: how they fail, and how they find the server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from lmx_site.client import Client

URL = click.option("--url", help="The server to ask; default: the one that runs in LMX_HOME, else port 1234.")
KEY = click.option("--key", envvar="LMX_KEY", help="The admin key, where one is set (or LMX_KEY).")


class Failure(click.ClickException):
    """Ends the command with that line on stderr and status 1."""

    def show(self, file: Any = None) -> None:
        click.echo(f"lmx: {self.message}", err=True)


class UsageFailure(Failure):
    """A command that was not typed as it must be."""

    exit_code = click.UsageError.exit_code


class Commands(click.Group):
    """A group whose usage errors are one line too, with status 2."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> click.Context:
        with _one_line():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with _one_line():
            return super().invoke(ctx)


@contextmanager
def _one_line() -> Iterator[None]:
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:
        raise
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx is not None else "lmx"
        raise UsageFailure(f"{error.format_message().rstrip('.')}; see '{command} --help'") from error


@contextmanager
def connected(url: str | None, key: str | None) -> Iterator[Client]:
    """The running server; what goes wrong with it ends the command in one line."""
    from lmx_site.client import Client, ClientError

    try:
        with Client(url, key) as client:
            yield client
    except ClientError as error:
        raise Failure(str(error)) from error
