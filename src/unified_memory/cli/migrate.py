"""Commands of the migration from other programs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from unified_memory.cli import views
from unified_memory.cli.asking import confirm, require_terminal
from unified_memory.cli.command import LONG_WORK_SECONDS, Needs, Target, accepted, answer_of, command, job_result
from unified_memory.model.errors import InvalidInputError
from unified_memory.model.value import parse

if TYPE_CHECKING:
    from unified_memory.client.protocol import Call

PANEL = "The service"
DIFFERS = 4
commands = typer.Typer()
group = typer.Typer(
    no_args_is_help=True, help="Bring memories here from other programs, without a break and with a way back."
)
commands.add_typer(group, name="migrate", rich_help_panel=PANEL)

Sources = Annotated[
    list[str] | None,
    typer.Option(
        "--source",
        metavar="KIND=LOCATION",
        help="Where memories are, such as extended-memory-sqlite=/srv/older/memory.db; may be given several times. Without it: "
        "those that were migrated before.",
    ),
]
Mapped = Annotated[
    Path | None,
    typer.Option("--mapping", metavar="FILE", help="A file of TOML or JSON that says what becomes of which record."),
]
Template = Annotated[
    str | None,
    typer.Option(
        "--namespace-template",
        metavar="TEMPLATE",
        help="The namespace of every record, such as 'archive/{service}/{project}'.",
    ),
]
OnConflict = Annotated[
    str | None,
    typer.Option(
        metavar="skip|replace", help="Where something else is stored under a key: skip (the default) or replace it."
    ),
]
Prefix = Annotated[
    str | None, typer.Option(metavar="TEXT", help="What the keys of an older Redis begin with (REDIS_KEY_PREFIX).")
]
KeepTtl = Annotated[bool, typer.Option("--keep-ttl", help="What would have expired there expires here too.")]
Timeout = Annotated[float | None, typer.Option(metavar="SECONDS", help="How long proxies may take to follow (30).")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


def _asked(
    sources: list[str] | None,
    mapping: Path | None,
    namespace_template: str | None,
    on_conflict: str | None,
    prefix: str | None,
    *,
    keep_ttl: bool,
) -> dict[str, Any]:
    """What a plan and a run are asked with."""
    return {
        "sources": [_source(one) for one in sources or ()],
        "mapping": None if mapping is None else _read(mapping),
        "namespace_template": namespace_template,
        "on_conflict": on_conflict,
        "prefix": prefix,
        "keep_ttl": keep_ttl,
    }


def _read(file: Path) -> dict[str, Any]:
    """What a mapping file says. Raises InvalidInputError."""
    import msgspec

    from unified_memory.service.mapping import read_mapping

    told: dict[str, Any] = msgspec.to_builtins(read_mapping(file))
    return told


def _source(text: str) -> tuple[str, str]:
    """Raises InvalidInputError where it does not say both."""
    kind, _, location = text.partition("=")
    if not (kind and location):
        raise InvalidInputError("--source", f"{text!r} is no source", hint="--source KIND=LOCATION")
    return kind, location


@command(group, "plan")
def plan(
    target: Target,
    sources: Sources = None,
    mapping: Mapped = None,
    namespace_template: Template = None,
    on_conflict: OnConflict = None,
    prefix: Prefix = None,
    keep_ttl: KeepTtl = False,
    first: Annotated[
        int | None, typer.Option(metavar="N", help="Show what would become of so many records of each source (5).")
    ] = None,
) -> None:
    """Look at the sources and show what a run would do; nothing is changed. Without a source it looks where the older services
    lie by default.

    Such as: unified-memory migrate plan --source extended-memory-sqlite=/srv/older/memory.db
    """
    from unified_memory.client import protocol

    asked = _asked(sources, mapping, namespace_template, on_conflict, prefix, keep_ttl=keep_ttl)
    call = protocol.plan_migration(**asked, first=first, wait=LONG_WORK_SECONDS)
    target.ask_long(call, views.migration_plan, needs=Needs.PLACE)


@command(group, "run")
def run(
    target: Target,
    sources: Sources = None,
    mapping: Mapped = None,
    namespace_template: Template = None,
    on_conflict: OnConflict = None,
    prefix: Prefix = None,
    keep_ttl: KeepTtl = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on copying what is written there, until the switch or Ctrl-C.")
    ] = False,
    interval: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="With --follow: how often to look at the sources (2).")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be stored.")] = False,
    no_rollback_point: Annotated[
        bool, typer.Option("--no-rollback-point", help="Do not first keep what both sides hold now.")
    ] = False,
    yes: Yes = False,
) -> None:
    """Copy the sources here. Shows the plan and asks. Run again, it copies what is new or changed there.

    Such as: unified-memory migrate run --source memory-bank-files=/srv/older/bank --follow
    """
    import asyncio

    from unified_memory.client import protocol

    asked = _asked(sources, mapping, namespace_template, on_conflict, prefix, keep_ttl=keep_ttl)
    if not (yes or dry_run):
        require_terminal("copies")
        call: Call[Any] = protocol.plan_migration(**asked, wait=LONG_WORK_SECONDS)
        _show_first(target, call, views.migration_plan)
        confirm("Copy it?", "copies")
    call = protocol.run_migration(
        **asked,
        follow=follow,
        interval=interval,
        dry_run=dry_run,
        rollback_point=not no_rollback_point,
        wait=0 if follow else LONG_WORK_SECONDS,
    )
    report = asyncio.run(_followed(target, call)) if follow else target.result(call, needs=Needs.PLACE)
    target.show(report, views.migration_report)


async def _followed(target: Target, call: "Call[Any]") -> bytes:
    """What a run that goes on came to in the end; whoever ends it (Ctrl-C) ends the run, and gets its report."""
    import asyncio

    from unified_memory.client import protocol

    async with target.connect(Needs.PLACE) as client:
        answer = await answer_of(client, call)
        job = accepted(answer)
        if job is None:
            return answer.content
        try:
            return await job_result(client, job)
        except asyncio.CancelledError:
            await client.cancel_job(job.id)
            return (await answer_of(client, protocol.migration_report())).content


@command(group, "verify")
def verify(
    target: Target,
    older: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND|URL",
            help="Also ask reads of the older service, which this starts or which runs there, and of this one: the answers must "
            "be the same byte for byte.",
        ),
    ] = None,
    samples: Annotated[int | None, typer.Option(metavar="N", help="With --older: how many reads (50).")] = None,
) -> None:
    """Compare what was copied with the sources: counts, contents, tags, times. Ends with 4 where they differ.

    Such as: unified-memory migrate verify --older extended-memory-mcp
    """
    from unified_memory.client import protocol

    call = protocol.verify_migration(samples=samples, older=older, wait=LONG_WORK_SECONDS)
    if not target.ask_long(call, views.migration_verified)["ok"]:
        raise typer.Exit(DIFFERS)


@command(group, "status")
def status(target: Target) -> None:
    """Show how far the migration has come.

    Such as: unified-memory migrate status --url http://127.0.0.1:3200
    """
    from unified_memory.client import protocol

    target.ask(protocol.migration(), views.migration_status)


@command(group, "switch")
def switch(
    target: Target,
    timeout: Timeout = None,
    yes: Yes = False,
) -> None:
    """Let this service answer in the place of the older ones. Asks.

    Such as: unified-memory migrate switch --yes
    """
    from unified_memory.client import protocol

    if not yes:
        require_terminal("switches")
        _show_first(target, protocol.migration(), views.migration_status)
        typer.echo(
            "From the switch on this service answers whoever asks a proxy. What is written here goes into the older files too, "
            "until migrate finish; migrate rollback goes back.",
            err=True,
        )
        confirm("Switch?", "switches")
    call = protocol.switch_migration(timeout=timeout, wait=LONG_WORK_SECONDS)
    target.ask_long(call, views.migration_status)


@command(group, "rollback")
def rollback(
    target: Target,
    restore: Annotated[
        bool, typer.Option("--restore", help="What is here becomes what it was before the migration, too.")
    ] = False,
    timeout: Timeout = None,
    yes: Yes = False,
) -> None:
    """Go back to the older services. What was written here since the switch goes into their files. Asks. Again it does nothing.

    Such as: unified-memory migrate rollback --yes
    """
    from unified_memory.client import protocol

    if not yes:
        require_terminal("goes back")
        _show_first(target, protocol.migration(), views.migration_status)
        here = "and all that is here becomes what it was before the migration" if restore else "nothing is removed here"
        typer.echo(
            "What was stored, changed or deleted here since the switch is written into the older files, the older services "
            f"answer again, {here}.",
            err=True,
        )
        confirm("Go back?", "goes back")
    call = protocol.rollback_migration(restore=restore, timeout=timeout, wait=LONG_WORK_SECONDS)
    target.ask_long(call, views.migration_rolled_back)


@command(group, "finish")
def finish(
    target: Target,
    timeout: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="How long a pass that is under way may take to end (30).")
    ] = None,
    yes: Yes = False,
) -> None:
    """End the migration. Keeps a last copy of the older files, and shows the commands that remove what is left. Asks.

    Such as: unified-memory migrate finish --yes
    """
    from unified_memory.client import protocol

    if not yes:
        require_terminal("ends the migration")
        _show_first(target, protocol.migration(), views.migration_status)
        typer.echo(
            "The older files are copied into the backups and are written no more: then there is no way back by itself. Nothing "
            "is removed; the commands that would do it are shown.",
            err=True,
        )
        confirm("Finish?", "ends the migration")
    target.ask_long(protocol.finish_migration(timeout=timeout, wait=LONG_WORK_SECONDS), views.migration_finished)


@command(group, "report")
def report(target: Target) -> None:
    """Show what the last run came to.

    Such as: unified-memory migrate report --json
    """
    from unified_memory.client import protocol

    target.ask(protocol.migration_report(), views.migration_report)


def _show_first(target: Target, call: "Call[Any]", show: Any) -> None:
    """Shows on standard error what a question is about."""
    from unified_memory.cli.terminal import draw

    draw(show(parse(target.result(call, needs=Needs.PLACE))), err=True)
