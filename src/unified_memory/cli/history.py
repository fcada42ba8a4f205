"""Commands on the past: former versions, and the feed of changes."""

import sys
from typing import Annotated, Any

import msgspec
import typer

from unified_memory.cli import options, views
from unified_memory.cli.asking import confirm
from unified_memory.cli.command import LONG_WORK_SECONDS, Target, command
from unified_memory.model.errors import InvalidInputError
from unified_memory.model.namespace import DEFAULT_NAMESPACE

PANEL = "Memories"
commands = typer.Typer()
group = typer.Typer(no_args_is_help=True, help="Show, restore and redact the versions of a memory.")
commands.add_typer(group, name="history", rich_help_panel=PANEL)


@command(group, "list")
def list_(
    target: Target,
    key: options.Key,
    namespace: options.Namespace = DEFAULT_NAMESPACE,
    limit: options.Limit = None,
    cursor: options.Cursor = None,
) -> None:
    """List the versions of a memory, the newest first. Also of one that was deleted."""
    from unified_memory.client import protocol

    target.ask(protocol.history(key, namespace, limit=limit, cursor=cursor), views.versions)


@command(group, "show")
def show(
    target: Target,
    key: options.Key,
    version: Annotated[int, typer.Argument(metavar="VERSION", show_default=False, help="Its number.")],
    namespace: options.Namespace = DEFAULT_NAMESPACE,
    value: Annotated[bool, typer.Option("--value", help="Print the value alone.")] = False,
) -> None:
    """Show a memory as it was at a version."""
    from unified_memory.client import protocol

    target.ask(protocol.version(key, version, namespace), views.value if value else views.record)


@command(group, "restore")
def restore(
    target: Target,
    key: options.Key,
    namespace: options.Namespace = DEFAULT_NAMESPACE,
    version: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Which; otherwise the one before the current one, or the last of a deleted memory."
        ),
    ] = None,
    expected_version: options.ExpectedVersion = None,
    idempotency_key: options.IdempotencyKey = None,
) -> None:
    """Make a former version current again, as a new version. Brings a deleted memory back."""
    from unified_memory.client import protocol

    call = protocol.restore_version(
        key, namespace, version=version, expected_version=expected_version, idempotency_key=idempotency_key
    )
    target.ask(call, views.version_restored)


@command(group, "redact")
def redact(
    target: Target,
    key: options.Key,
    namespace: options.Namespace = DEFAULT_NAMESPACE,
    version: Annotated[int | None, typer.Option(metavar="N", help="Only this version; otherwise all of them.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Take the content of a version, or of all, out for good. Asks first; backups made before still hold it."""
    from unified_memory.client import protocol

    what = "all versions" if version is None else f"version {version}"
    if not yes:
        confirm(f"Take the content of {what} of {key} in {namespace} out for good?", "redacts")
    target.ask_long(protocol.redact(key, namespace, version=version, wait=LONG_WORK_SECONDS), views.redacted)


@command(commands, "changes", panel=PANEL)
def changes(
    target: Target,
    since: Annotated[
        int | None,
        typer.Option(metavar="PLACE", help="Behind this place (0: from the beginning; with --follow: from now)."),
    ] = None,
    namespace: options.Within = None,
    no_recursive: options.NotBelow = False,
    limit: options.Limit = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on for ever with those that come.")] = False,
) -> None:
    """List what changed, in the order in which it did."""
    from unified_memory.client import protocol

    if not follow:
        call = protocol.changes(since or 0, namespace=namespace, recursive=not no_recursive, limit=limit)
        target.ask(call, views.changes)
        return
    if limit is not None:
        raise InvalidInputError("--limit", "--follow goes on for ever: --limit is for the list")

    def tell(change: Any) -> None:
        line = msgspec.json.encode(change).decode() if target.json else views.visible(views.change(change))
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    target.follow(protocol.follow_changes(since, namespace=namespace, recursive=not no_recursive), tell)
