"""Commands on the tiers."""

from typing import Annotated

import typer

from unified_memory.cli import views
from unified_memory.cli.command import LONG_WORK_SECONDS, Target, alone, command

commands = typer.Typer()
group = typer.Typer()
commands.add_typer(group, name="tiers", rich_help_panel="The service")

Namespace = Annotated[str, typer.Argument(metavar="NAMESPACE", show_default=False, help="A path such as acme/web.")]
Recursive = Annotated[bool, typer.Option("--recursive/--no-recursive", help="With the namespaces below, or without.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only tell what would move.")]


@alone(group)
def show(target: Target) -> None:
    """Show the tiers, move values between them. What is archived is found, listed and retrieved as before."""
    from unified_memory.client import protocol

    target.ask(protocol.tiers(), views.tiers)


@command(group, "archive")
def archive(target: Target, namespace: Namespace, recursive: Recursive = True, dry_run: DryRun = False) -> None:
    """Move all values of a namespace into archives. A retrieve brings its value back."""
    from unified_memory.client import protocol

    call = protocol.archive(namespace, recursive=recursive, dry_run=dry_run, wait=LONG_WORK_SECONDS)
    target.ask_long(call, views.archived)


@command(group, "recall")
def recall(target: Target, namespace: Namespace, recursive: Recursive = True, dry_run: DryRun = False) -> None:
    """Bring all values of a namespace back from archives."""
    from unified_memory.client import protocol

    call = protocol.recall_archived(namespace, recursive=recursive, dry_run=dry_run, wait=LONG_WORK_SECONDS)
    target.ask_long(call, views.recalled)


@command(group, "pass")
def pass_(target: Target) -> None:
    """Archive what was not used for long, and compact archives. A running service does so by itself, at intervals."""
    from unified_memory.client import protocol

    target.ask_long(protocol.tier_pass(wait=LONG_WORK_SECONDS), views.tier_pass)
