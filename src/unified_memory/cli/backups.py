"""Commands on backups."""

from typing import Annotated, Any

import typer

from unified_memory.cli import views
from unified_memory.cli.asking import confirm, require_terminal
from unified_memory.cli.command import LONG_WORK_SECONDS, Needs, Target, alone, check_database, command
from unified_memory.model.value import parse

PANEL = "The service"
commands = typer.Typer()
group = typer.Typer()
commands.add_typer(group, name="backup", rich_help_panel=PANEL)

BackupId = Annotated[str, typer.Argument(metavar="ID", show_default=False, help="The backup's id.")]


@alone(group)
def backup(target: Target) -> None:
    """Make a backup; list, show, verify and delete backups. Without a command it makes one."""
    create(target)


@command(group, "create")
def create(
    target: Target,
    parent: Annotated[
        str | None, typer.Option(metavar="ID", help="Hold only what changed since that backup (latest: the newest).")
    ] = None,
    note: Annotated[str | None, typer.Option(metavar="TEXT", help="What it is for.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Prove it when it is made.")] = False,
) -> None:
    """Make a backup of this instant, while others go on writing."""
    from unified_memory.client import protocol

    made = target.result(protocol.create_backup(parent=parent, note=note, wait=LONG_WORK_SECONDS))
    if verify:
        made_id = parse(made)["id"]
        target.result(protocol.verify_backup(made_id, wait=LONG_WORK_SECONDS))
        target.ask(protocol.get_backup(made_id), views.backup_made)
    else:
        target.show(made, views.backup_made)


@command(group, "list")
def list_(target: Target) -> None:
    """List the backups, the newest first."""
    from unified_memory.client import protocol

    _check_there(target)
    target.ask(protocol.list_backups(), views.backups, needs=Needs.NOTHING)


@command(group, "show")
def show(target: Target, backup_id: BackupId) -> None:
    """Show a backup and its files."""
    from unified_memory.client import protocol

    _check_there(target)
    target.ask(protocol.get_backup(backup_id), views.backup, needs=Needs.NOTHING)


@command(group, "verify")
def verify(target: Target, backup_id: BackupId) -> None:
    """Prove a backup by restoring it aside. Ends with 4 where it is damaged."""
    from unified_memory.client import protocol

    _check_there(target)
    target.ask_long(protocol.verify_backup(backup_id, wait=LONG_WORK_SECONDS), views.verified, needs=Needs.PLACE)


@command(group, "delete")
def delete(target: Target, backup_id: BackupId) -> None:
    """Delete a backup. Not one that another one needs."""
    from unified_memory.client import protocol

    target.ask(protocol.delete_backup(backup_id), views.backup_deleted)


def _check_there(target: Target) -> None:
    """Raises NotFoundError where there is neither a database nor a backup: a slip of the pen.

    Backups are of use just where the database was lost.
    """
    if target.url is None:
        settings = target.settings()
        if not settings.backups.is_dir():
            check_database(settings)


@command(commands, "restore", panel=PANEL)
def restore(
    target: Target,
    backup_id: BackupId,
    mode: Annotated[
        str | None,
        typer.Option(
            metavar="replace|merge|namespace",
            help="replace: all is as in the backup; merge: what is missing here, or older, comes from it; namespace: one "
            "namespace is as in it.",
        ),
    ] = None,
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", metavar="NAMESPACE", help="With --mode namespace: which.")
    ] = None,
    to_namespace: Annotated[
        str | None, typer.Option("--target", metavar="NAMESPACE", help="With --mode namespace: its name here.")
    ] = None,
    as_of: Annotated[
        str | None,
        typer.Option(metavar="ID|INSTANT", help="An earlier backup of its chain, or the last one at that instant."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would change.")] = False,
    no_safety: Annotated[bool, typer.Option("--no-safety", help="Make no backup of what is there now.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Restore a backup. Shows what would change and asks; all of it changes in one step, or nothing."""
    from unified_memory.client import protocol

    def call(*, dry_run: bool) -> "protocol.Call[Any]":
        return protocol.restore(
            backup_id,
            mode=mode,
            namespace=namespace,
            target=to_namespace,
            as_of=as_of,
            dry_run=dry_run,
            safety=not no_safety,
            wait=LONG_WORK_SECONDS,
        )

    _check_there(target)
    # Where the database was lost, one is begun.
    if dry_run:
        target.ask_long(call(dry_run=True), views.restored, needs=Needs.PLACE)
        return
    if not yes:
        from unified_memory.cli.terminal import draw

        require_terminal("restores")
        plan = parse(target.result(call(dry_run=True), needs=Needs.PLACE))
        draw(views.restored(plan), err=True)
        confirm("Restore it?", "restores")
    target.ask_long(call(dry_run=False), views.restored, needs=Needs.PLACE)
