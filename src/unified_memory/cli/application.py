"""The command with all its subcommands."""

from typing import Annotated

import typer

from unified_memory import __version__
from unified_memory.cli import (
    backups,
    history,
    mcp,
    memories,
    migrate,
    namespaces,
    proxy,
    service,
    serving,
    sessions,
    spool,
    tiers,
    transfer,
)

app = typer.Typer(
    name="unified-memory",
    help="What AI agents must remember between conversations. Without --url a command works on the data directory itself.",
    no_args_is_help=True,
    # The plain help never cuts a name short, and is there in half the time.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"unified-memory {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    pass


for part in (
    serving,
    mcp,
    memories,
    history,
    transfer,
    namespaces,
    sessions,
    service,
    tiers,
    backups,
    migrate,
    proxy,
    spool,
):
    app.add_typer(part.commands)
