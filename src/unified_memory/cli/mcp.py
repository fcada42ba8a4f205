"""Commands about MCP: how it is served over stdio, and how a client is told of it."""

import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from unified_memory.cli.command import OTHERWISE, Target, command, errors_told
from unified_memory.cli.views import visible
from unified_memory.install.clients import (
    CLIENTS,
    DEFAULT_NAME,
    DEFAULT_URL,
    SCOPES,
    Places,
    address,
    file_of,
    find,
    http_entry,
    stdio_entry,
)
from unified_memory.model.errors import InvalidInputError, MalformedInputError, NotFoundError, RefusedError
from unified_memory.settings import OPTIONS

PANEL = "The service"
commands = typer.Typer()
group = typer.Typer()
commands.add_typer(group, name="mcp", rich_help_panel=PANEL)

HELP = {option.name: f"{option.help} (variable: {option.variable})" for option in OPTIONS}


@group.callback(invoke_without_command=True)
def serve(
    context: typer.Context,
    tools: Annotated[str | None, typer.Option(metavar="PROFILE", help=HELP["tools"])] = None,
    data_dir: Annotated[Path | None, typer.Option(metavar="PATH", help=HELP["data_dir"])] = None,
    sqlite_path: Annotated[Path | None, typer.Option(metavar="PATH", help=HELP["sqlite_path"])] = None,
) -> None:
    """Serve MCP over standard input and output, until the input ends. A client starts this by itself.

    Where a service runs on the data directory it does the work, else this process does. Logs go to standard error.
    "unified-memory mcp install" enters this command, or the address of a service, in the settings of a client.
    """
    options = (("--tools", tools), ("--data-dir", data_dir), ("--sqlite-path", sqlite_path))
    given = [str(part) for option in options if option[1] is not None for part in option]
    if context.invoked_subcommand is None:
        from unified_memory.stdio import main

        raise typer.Exit(main(given))
    if given:
        with errors_told():
            raise InvalidInputError(given[0], f"{given[0]} belongs behind {context.invoked_subcommand}")


@command(group, "install", remote=False)
def install(
    target: Target,
    service: Annotated[
        str | None, typer.Argument(metavar="URL", show_default=False, help=f"With --http: instead of {DEFAULT_URL}.")
    ] = None,
    *,
    client: Annotated[
        str,
        typer.Option(metavar="CLIENT", show_default=False, help="One of: " + ", ".join(c.name for c in CLIENTS) + "."),
    ],
    http: Annotated[
        bool, typer.Option("--http", help="The client speaks to a running service, instead of starting a command.")
    ] = False,
    tools: Annotated[
        str | None, typer.Option(metavar="PROFILE", help="The tool profile, such as extended-memory or all.")
    ] = None,
    scope: Annotated[
        str, typer.Option(metavar="|".join(SCOPES), help="For all that you do, or for the project in this directory.")
    ] = SCOPES[0],
    name: Annotated[str, typer.Option(metavar="NAME", help="What the client calls the server.")] = DEFAULT_NAME,
    file: Annotated[
        Path | None, typer.Option(metavar="PATH", help="The client's file, where it is not in its usual place.")
    ] = None,
    show: Annotated[bool, typer.Option("--print", help="Only print what belongs into the file.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Write without asking.")] = False,
) -> None:
    """Enter this service in the settings of an MCP client.

    Shows the difference first and asks. All else in the file stays as it is, and a copy of it is kept beside it (.bak).
    """
    from unified_memory.install.file import alone, plan, write

    chosen = find(client)
    if tools is not None:
        from unified_memory.mcp.profiles import profile

        profile(tools)
    if http:
        if target.data_dir is not None:
            raise InvalidInputError(
                "--data-dir", "The service that runs knows its data directory; leave out --data-dir"
            )
        entry = http_entry(chosen, address(service, tools))
    else:
        if service is not None:
            raise InvalidInputError("URL", "An address is for --http")
        entry = stdio_entry(chosen, [*_program(), "mcp", *_options(tools, target.data_dir)])
    snippet = alone(chosen, name, entry)
    path = file_of(chosen, scope, _places()) if file is None else file.expanduser().absolute()
    answer: dict[str, Any] = {"client": chosen.name, "file": str(path), "name": name, "entry": entry}
    if show:
        target.show(msgspec.json.encode(answer), lambda _: snippet.rstrip("\n"))
        return
    try:
        planned = plan(chosen, path, name, entry)
    except MalformedInputError:
        typer.echo(visible(f"Add this to {path} by hand:\n\n{snippet}"), err=True)
        raise
    backup = None
    if planned.changes:
        typer.echo(visible(planned.difference()), err=target.json)
        if not yes:
            _ask(path)
        backup = write(planned)
    answer |= {"changed": planned.changes, "backup": None if backup is None else str(backup)}
    if not planned.changes:
        told = f"{name} stands in {path} already; nothing was written"
    else:
        told = f"Wrote {path}" + ("" if backup is None else f"; as it was before: {backup}")
        told += f"\nStart {chosen.title} anew to use it"
    target.show(msgspec.json.encode(answer), lambda _: told)


def _ask(path: Path) -> None:
    """Returns where the user wants it."""
    if not sys.stdin.isatty():
        raise RefusedError(
            "Nothing was written: there is no terminal to ask on",
            hint="--yes writes without asking, --print only prints",
        )
    if not typer.confirm(visible(f"Write {path}?"), err=True):
        typer.echo("Nothing was written", err=True)
        raise typer.Exit(OTHERWISE)


def _program() -> list[str]:
    """What starts this program, from any directory."""
    if Path(sys.argv[0]).name == "__main__.py":
        return [sys.executable, "-m", "unified_memory"]
    found = shutil.which(sys.argv[0])
    if found is None:
        raise NotFoundError(f"The program {sys.argv[0]} cannot be found", hint="Start it by its full path")
    return [str(Path(found).absolute())]


def _options(tools: str | None, data_dir: Path | None) -> list[str]:
    """The options of the command that a client starts; its working directory is another one."""
    profile = [] if tools is None else ["--tools", tools]
    return profile if data_dir is None else [*profile, "--data-dir", str(data_dir.expanduser().absolute())]


def _places() -> Places:
    # Only typer knows where each system keeps the settings of a program.
    settings = Path(typer.get_app_dir("unified-memory")).parent
    return Places(home=Path.home(), settings=settings, project=Path.cwd())
