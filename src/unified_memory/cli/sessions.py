"""Commands on sessions."""

from enum import StrEnum
from typing import Annotated

import typer

from unified_memory.cli import options, views
from unified_memory.cli.command import Needs, Target, command
from unified_memory.cli.reading import read_object, read_seconds
from unified_memory.model.namespace import DEFAULT_NAMESPACE
from unified_memory.model.session import WithMemories

commands = typer.Typer()
group = typer.Typer(no_args_is_help=True, help="List, show, create and end sessions.")
commands.add_typer(group, name="sessions", rich_help_panel="Namespaces and sessions")

Id = Annotated[str, typer.Argument(metavar="ID", show_default=False, help="The session's id.")]
Namespace = Annotated[str, typer.Option("--namespace", "-n", metavar="NAMESPACE", help="The namespace of the session.")]


class Scope(StrEnum):
    """Whose memories are shown."""

    SESSION = "session"
    CLUSTER = "cluster"


@command(group, "list")
def list_(
    target: Target,
    namespace: options.Within = None,
    no_recursive: options.NotBelow = False,
    cluster: Annotated[str | None, typer.Option(metavar="ID", help="Only of this cluster.")] = None,
    active: Annotated[
        bool | None, typer.Option("--active/--ended", help="Only those that go on, or that have ended or expired.")
    ] = None,
    limit: options.Limit = None,
    cursor: options.Cursor = None,
) -> None:
    """List sessions, the one used last first."""
    from unified_memory.client import protocol

    call = protocol.list_sessions(
        namespace=namespace,
        recursive=not no_recursive,
        cluster_id=cluster,
        active=active,
        limit=limit,
        cursor=cursor,
    )
    target.ask(call, views.sessions)


@command(group, "get")
def get(
    target: Target,
    session_id: Id,
    namespace: Namespace = DEFAULT_NAMESPACE,
    scope: Annotated[Scope, typer.Option(help="Its own memories, or those of its whole cluster.")] = Scope.SESSION,
    limit: options.Limit = None,
    cursor: options.Cursor = None,
) -> None:
    """Show a session and its memories in order."""
    from unified_memory.client import protocol

    call = protocol.get_session(session_id, namespace=namespace, scope=scope.value, limit=limit, cursor=cursor)
    target.ask(call, views.session_memories)


@command(group, "create")
def create(
    target: Target,
    session_id: Annotated[
        str | None, typer.Argument(metavar="ID", show_default=False, help="Its id; otherwise one is minted.")
    ] = None,
    namespace: Namespace = DEFAULT_NAMESPACE,
    cluster: Annotated[str | None, typer.Option(metavar="ID", help="Sessions of a cluster share memories.")] = None,
    project: Annotated[str | None, typer.Option(metavar="ID", help="The project it belongs to.")] = None,
    ttl: Annotated[str | None, typer.Option(metavar="DURATION", help="Expires so long after its last use.")] = None,
    metadata: Annotated[str | None, typer.Option(metavar="JSON", help="An object of your own fields.")] = None,
) -> None:
    """Create a session, or go on with the one of that id."""
    from unified_memory.client import protocol

    seconds = read_seconds(ttl)
    call = protocol.create_session(
        session_id,
        namespace=namespace,
        cluster_id=cluster,
        project_id=project,
        ttl=seconds if isinstance(seconds, int | float) else None,
        metadata=read_object(metadata, "--metadata"),
    )
    target.ask(call, views.session, needs=Needs.PLACE)


@command(group, "end")
def end(
    target: Target,
    session_id: Id,
    namespace: Namespace = DEFAULT_NAMESPACE,
    memories: Annotated[WithMemories, typer.Option(help="What becomes of its memories.")] = WithMemories.KEEP,
) -> None:
    """End a session."""
    from unified_memory.client import protocol

    target.ask(protocol.end_session(session_id, namespace=namespace, memories=memories.value), views.session_ended)
