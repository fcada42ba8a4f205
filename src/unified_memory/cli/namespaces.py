"""Commands on namespaces."""

from typing import Annotated

import typer
from msgspec import UNSET

from unified_memory.cli import options, views
from unified_memory.cli.command import LONG_WORK_SECONDS, Needs, Target, command
from unified_memory.cli.reading import or_none, read_count, read_number, read_seconds

commands = typer.Typer()
group = typer.Typer(no_args_is_help=True, help="List, create, configure and delete namespaces.")
commands.add_typer(group, name="namespaces", rich_help_panel="Namespaces and sessions")

Name = Annotated[str, typer.Argument(metavar="NAME", show_default=False, help="A path such as acme/web.")]
DefaultTtl = Annotated[
    str | None, typer.Option(metavar="DURATION", help="ttl of what is stored without one; none: switches it off.")
]
MaxMemories = Annotated[str | None, typer.Option(metavar="N", help="At most so many memories, all below included.")]
MaxBytes = Annotated[str | None, typer.Option(metavar="N", help="At most so many bytes of values, all below included.")]
DemoteAfter = Annotated[
    str | None, typer.Option(metavar="DURATION", help="Values not used for so long are archived; none: never.")
]
HistoryKeep = Annotated[
    str | None,
    typer.Option(metavar="N", help="Former versions of each memory that are kept; none: all, 0: none of them."),
]
HistoryDays = Annotated[
    str | None, typer.Option(metavar="DAYS", help="Days that former versions are kept; none: for ever, 0: not at all.")
]
Language = Annotated[
    str | None,
    typer.Option(metavar="LANGUAGE", help="How search compares words: english, german, …; none: as they are."),
]
Description = Annotated[str | None, typer.Option(metavar="TEXT", help="What it is for.")]


@command(group, "list")
def list_(
    target: Target,
    prefix: Annotated[str | None, typer.Option(metavar="NAME", help="Only this one and those below it.")] = None,
    depth: Annotated[int | None, typer.Option(metavar="N", help="Fold what lies deeper.")] = None,
    limit: options.Limit = None,
    cursor: options.Cursor = None,
) -> None:
    """List namespaces with counts and settings."""
    from unified_memory.client import protocol

    target.ask(protocol.list_namespaces(prefix=prefix, depth=depth, limit=limit, cursor=cursor), views.namespaces)


@command(group, "get")
def get(target: Target, name: Name) -> None:
    """Show a namespace."""
    from unified_memory.client import protocol

    target.ask(protocol.get_namespace(name), views.namespace)


@command(group, "create")
def create(
    target: Target,
    name: Name,
    default_ttl: DefaultTtl = None,
    max_memories: MaxMemories = None,
    max_bytes: MaxBytes = None,
    demote_after: DemoteAfter = None,
    history_keep: HistoryKeep = None,
    history_days: HistoryDays = None,
    language: Language = None,
    description: Description = None,
) -> None:
    """Create a namespace. What is not set is inherited from those above."""
    from unified_memory.client import protocol

    call = protocol.create_namespace(
        name,
        default_ttl=read_seconds(default_ttl, "--default-ttl"),
        max_memories=read_count(max_memories, "--max-memories"),
        max_bytes=read_count(max_bytes, "--max-bytes"),
        demote_after=read_seconds(demote_after, "--demote-after"),
        history_keep=read_count(history_keep, "--history-keep"),
        history_days=read_number(history_days, "--history-days"),
        # `none` is a language here.
        language=UNSET if language is None else language,
        description=or_none(description),
    )
    target.ask(call, views.namespace, needs=Needs.PLACE)


@command(group, "configure")
def configure(
    target: Target,
    name: Name,
    default_ttl: DefaultTtl = None,
    max_memories: MaxMemories = None,
    max_bytes: MaxBytes = None,
    demote_after: DemoteAfter = None,
    history_keep: HistoryKeep = None,
    history_days: HistoryDays = None,
    language: Language = None,
    description: Description = None,
) -> None:
    """Replace the settings of a namespace. What is not set now is inherited again."""
    from unified_memory.client import protocol

    call = protocol.configure_namespace(
        name,
        default_ttl=read_seconds(default_ttl, "--default-ttl"),
        max_memories=read_count(max_memories, "--max-memories"),
        max_bytes=read_count(max_bytes, "--max-bytes"),
        demote_after=read_seconds(demote_after, "--demote-after"),
        history_keep=read_count(history_keep, "--history-keep"),
        history_days=read_number(history_days, "--history-days"),
        # `none` is a language here.
        language=UNSET if language is None else language,
        description=or_none(description),
    )
    target.ask(call, views.namespace)


@command(group, "delete")
def delete(
    target: Target,
    name: Name,
    recursive: Annotated[bool, typer.Option("--recursive", help="Also what it holds, and all below it.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would go.")] = False,
) -> None:
    """Delete a namespace."""
    from unified_memory.client import protocol

    call = protocol.delete_namespace(name, recursive=recursive, dry_run=dry_run, wait=LONG_WORK_SECONDS)
    target.ask_long(call, views.namespace_deleted)
