"""Commands on the service itself."""

from enum import StrEnum
from typing import Annotated, Any

import msgspec
import typer

from unified_memory.cli import options, views
from unified_memory.cli.command import (
    LONG_WORK_SECONDS,
    UNAVAILABLE,
    Needs,
    Target,
    check_database,
    command,
)
from unified_memory.model.job import JobState
from unified_memory.settings import Settings

PANEL = "The service"
commands = typer.Typer()
jobs = typer.Typer(no_args_is_help=True, help="List, show and cancel long work.")

JobId = Annotated[str, typer.Argument(metavar="ID", show_default=False, help="The job's id.")]


class Switch(StrEnum):
    """What to do with the read-only mode."""

    ON = "on"
    OFF = "off"
    STATUS = "status"


# ---- what it is told and tells
@command(commands, "health", panel=PANEL)
def health(target: Target) -> None:
    """Tell how the service is. Ends with 6 where it cannot work."""
    from unified_memory.client import protocol

    if target.ask(protocol.health(), views.health)["status"] == "failing":
        raise typer.Exit(UNAVAILABLE)


@command(commands, "stats", panel=PANEL)
def stats(target: Target, namespace: options.Within = None) -> None:
    """Show totals."""
    from unified_memory.client import protocol

    target.ask(protocol.stats(namespace), views.stats)


@command(commands, "cleanup", panel=PANEL)
def cleanup(target: Target) -> None:
    """Remove what has expired. A running service does so by itself, at intervals."""
    from unified_memory.client import protocol

    target.ask_long(protocol.cleanup(wait=LONG_WORK_SECONDS), views.cleaned)


@command(commands, "read-only", panel=PANEL)
def read_only(
    target: Target,
    switch: Annotated[Switch, typer.Argument(help="Whether writes are off; deletes still work.")] = Switch.STATUS,
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="Told to everyone who wants to write.")] = None,
) -> None:
    """Switch writes off or on, or tell how it is. Holds for every process; deletes still work."""
    from unified_memory.client import protocol

    if switch is Switch.STATUS:
        target.ask(protocol.read_only(), views.mode)
    else:
        target.ask(protocol.set_read_only(read_only=switch is Switch.ON, reason=reason), views.mode)


# ---- jobs
@command(jobs, "list")
def list_jobs(
    target: Target,
    state: Annotated[JobState | None, typer.Option(help="Only those in this state.")] = None,
    limit: options.Limit = None,
    cursor: options.Cursor = None,
) -> None:
    """List jobs, the newest first."""
    from unified_memory.client import protocol

    call = protocol.list_jobs(state=None if state is None else state.value, limit=limit, cursor=cursor)
    target.ask(call, views.jobs)


@command(jobs, "get")
def get_job(target: Target, job_id: JobId) -> None:
    """Show a job."""
    from unified_memory.client import protocol

    target.ask(protocol.get_job(job_id), views.job)


@command(jobs, "cancel")
def cancel_job(target: Target, job_id: JobId) -> None:
    """End a job after the part that it is at."""
    from unified_memory.client import protocol

    target.ask(protocol.cancel_job(job_id), views.job)


commands.add_typer(jobs, name="jobs", rich_help_panel=PANEL)


# ---- on the data directory only
@command(commands, "check", remote=False, panel=PANEL)
def check(
    target: Target,
    fix: Annotated[bool, typer.Option("--fix", help="Derive again what is derived.")] = False,
) -> None:
    """Verify all that is stored. Records, hashes, tags, counts, search index; 0 only when all is (or was made) right."""
    import asyncio

    problems = asyncio.run(_check(target.settings(), fix=fix))
    found = {"clean": not problems, "problems": msgspec.to_builtins(problems)}
    target.show(msgspec.json.encode(found), views.problems)
    if not all(problem.fixed for problem in problems):
        raise typer.Exit(1)


async def _check(settings: Settings, *, fix: bool) -> list[Any]:
    from unified_memory.bootstrap import build
    from unified_memory.cli.progress import progress

    check_database(settings)
    service = build(settings, copies=False)
    await service.open()
    try:
        with progress("check", "memories") as advance:
            return list(await service.upkeep.check(fix=fix, progress=advance))
    finally:
        await service.close()


@command(commands, "schema", panel=PANEL)
def schema(target: Target) -> None:
    """Print the REST interface as OpenAPI 3.1."""
    from unified_memory.client import protocol

    target.ask(protocol.schema(), views.document, needs=Needs.NOTHING)
