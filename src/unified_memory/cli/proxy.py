"""The command that stands in an older service's place, and the older commands' own names for it."""

import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unified_memory.cli.command import DataDir, errors_told
from unified_memory.model.errors import InvalidInputError
from unified_memory.settings import Settings, load

if TYPE_CHECKING:
    from unified_memory.proxy.links import Connect
    from unified_memory.proxy.stand import Stand
    from unified_memory.proxy.talk import Desk
    from unified_memory.service.service import Service

PANEL = "The service"
HTTP_PORT, BANK_PORT = 3009, 4002
EXTENDED_MEMORY, MEMORY_BANK, MEMORY_BANK_PYPI = "extended-memory", "memory-bank", "memory-bank-pypi"
# Of each set of tools the service whose place it takes.
SERVICES = {EXTENDED_MEMORY: "extended-memory", MEMORY_BANK: "memory-bank-mcp", MEMORY_BANK_PYPI: "memory-bank-mcp"}
commands = typer.Typer()
group = typer.Typer(
    no_args_is_help=True,
    help="Stand in an older service's place: it answers until the memories have moved here, then this does.",
)
commands.add_typer(group, name="proxy", rich_help_panel=PANEL)

Host = Annotated[str, typer.Option(help="Address to listen on. Any but a loopback one needs ALLOW_ANONYMOUS=true.")]
Tools = Annotated[str, typer.Option(metavar=f"{MEMORY_BANK}|{MEMORY_BANK_PYPI}", help="Which server it was.")]


@group.command("http")
def http(
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = HTTP_PORT,
    older: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Where the older service answers now, such as http://127.0.0.1:3010."),
    ] = None,
    namespace: Annotated[
        str | None, typer.Option(metavar="NAME", help="Where its keys lie here (default: migrated_extended).")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Answer as the HTTP service of extended-memory did, until Ctrl-C."""
    with errors_told():
        settings = load(host=host, port=port, data_dir=data_dir)
        from unified_memory.bootstrap import build
        from unified_memory.proxy.forward import Forward
        from unified_memory.proxy.http import ShimProxy
        from unified_memory.proxy.serving import serve
        from unified_memory.proxy.shim import Shim
        from unified_memory.server import check_address, configure_logging, listen
        from unified_memory.service.mapping import MIGRATED_EXTENDED

        check_address(settings)
        configure_logging(settings)
        if older is not None and not _is_url(older):
            raise InvalidInputError("--older", "--older is the http:// URL of the older service")
        service = build(settings)
        with listen(settings) as listening:
            shim = Shim(
                service,
                namespace=namespace or MIGRATED_EXTENDED,
                port=listening.getsockname()[1],
                database=str(settings.database),
                backups=str(settings.backups),
            )
            forward = None if older is None else Forward(older)
            stand = _stand(settings, service, EXTENDED_MEMORY)
            serve(ShimProxy(stand, shim, forward, max_body=settings.max_body_bytes, local=settings.local), listening)


@group.command("bank")
def bank(
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = BANK_PORT,
    older: Annotated[
        str | None,
        typer.Option(
            metavar="URL|COMMAND", help="The older server: its URL (ending with /sse, or /mcp), or its command."
        ),
    ] = None,
    tools: Tools = MEMORY_BANK,
    data_dir: DataDir = None,
) -> None:
    """Serve the tools of the memory bank over MCP, by SSE at /sse and streamable HTTP at /mcp, until Ctrl-C."""
    with errors_told():
        settings = load(host=host, port=port, data_dir=data_dir)
        from unified_memory.proxy.bank import BankProxy
        from unified_memory.proxy.serving import serve
        from unified_memory.server import check_address, configure_logging, listen

        check_address(settings)
        configure_logging(settings)
        _check_tools(tools, MEMORY_BANK, MEMORY_BANK_PYPI)
        desk = _desk(settings, tools, older)
        with listen(settings) as listening:
            serve(BankProxy(desk, max_body=settings.max_body_bytes, local=settings.local), listening)


@group.command("stdio")
def stdio(
    tools: Annotated[
        str, typer.Argument(metavar="|".join(SERVICES), show_default=False, help="In whose place it stands.")
    ],
    older: Annotated[
        str | None,
        typer.Option(metavar="COMMAND", help="What starts the older server, with its arguments, in one word."),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Serve the older tools over standard input and output, until the input ends. A client starts this by itself.

    The older server is started by the command, in this environment, as long as it answers. Logs go to standard error.
    """
    import asyncio

    with errors_told():
        settings = load(data_dir=data_dir)
        from unified_memory.proxy.stdio import serve
        from unified_memory.server import configure_logging

        configure_logging(settings)
        _check_tools(tools, *SERVICES)
        asyncio.run(serve(_desk(settings, tools, older)))


def extended_memory() -> None:
    """The command `extended-memory-mcp`: `unified-memory proxy stdio extended-memory`."""
    _stdio("extended-memory-mcp", EXTENDED_MEMORY)


def memory_bank() -> None:
    """The command `memory-bank-mcp`: `unified-memory proxy stdio memory-bank`."""
    _stdio("memory-bank-mcp", MEMORY_BANK)


def _stdio(name: str, tools: str) -> None:
    commands(["proxy", "stdio", tools, *sys.argv[1:]], prog_name=name)


def _stand(settings: Settings, service: "Service", tools: str) -> "Stand":
    from unified_memory.proxy.stand import Stand
    from unified_memory.worker import Worker

    worker = Worker(
        service,
        cleanup_seconds=settings.ttl_cleanup_interval,
        flush_seconds=settings.access_flush_interval,
        tiering_seconds=settings.tiering_interval,
    )
    return Stand(service, service.migration, SERVICES[tools], worker)


def _desk(settings: Settings, tools: str, older: str | None) -> "Desk":
    from unified_memory.bootstrap import build
    from unified_memory.proxy.talk import Desk

    service = build(settings)
    stand = _stand(settings, service, tools)
    connect = None if older is None else _connect(older)
    return Desk(stand, tools, connect, max_body=settings.max_body_bytes, local=settings.local)


def _connect(older: str) -> "Connect":
    """How to reach the older server. Raises InvalidInputError."""
    from urllib.parse import urlsplit

    from unified_memory.proxy.links import Child, Events, Posts

    if _is_url(older):
        path = urlsplit(older).path.rstrip("/")
        if not path:
            return Events.by(older.rstrip("/") + "/sse")
        return Events.by(older) if path.endswith("/sse") else Posts.by(older)
    try:
        command = shlex.split(older)
    except ValueError as error:
        raise InvalidInputError("--older", f"--older is no command: {error}") from None
    if not command:
        raise InvalidInputError("--older", "--older is empty")
    _check_other(command)
    return Child.by(command)


def _check_other(command: Sequence[str]) -> None:
    """Raises InvalidInputError where the command is this very program, by one of its names."""
    found = shutil.which(command[0])
    ours = Path(sys.executable).parent
    names = {"extended-memory-mcp", "memory-bank-mcp"}
    if found is not None and Path(found).parent.resolve() == ours.resolve() and Path(found).name in names:
        raise InvalidInputError(
            "--older",
            f"{found} is this program",
            hint="Name the older server by its full path, or as python -m extended_memory_mcp.server in its own environment",
        )


def _is_url(text: str) -> bool:
    return text.startswith(("http://", "https://"))


def _check_tools(tools: str, *known: str) -> None:
    if tools not in known:
        raise InvalidInputError("tools", f"There is no older server {tools!r}", hint="One of: " + ", ".join(known))
