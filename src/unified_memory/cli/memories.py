"""Commands on memories."""

from typing import Annotated

import typer
from msgspec import UNSET

from unified_memory.cli import options, views
from unified_memory.cli.command import Needs, Target, command
from unified_memory.cli.reading import (
    read_assignments,
    read_json,
    read_messages,
    read_metadata,
    read_object,
    read_rank,
    read_seconds,
    read_value,
)
from unified_memory.model.namespace import DEFAULT_NAMESPACE

commands = typer.Typer()
PANEL = "Memories"


@command(commands, "store", panel=PANEL)
def store(
    target: Target,
    key: options.Key,
    value: options.Value = None,
    namespace: options.Namespace = DEFAULT_NAMESPACE,
    file: options.File = None,
    text: options.AsText = False,
    ttl: options.Ttl = None,
    expires_at: options.ExpiresAt = None,
    tag: options.Tags = None,
    importance: options.Importance = None,
    session: options.Session = None,
    project: options.Project = None,
    metadata: options.Metadata = None,
    create_only: Annotated[bool, typer.Option("--create-only", help="Only if there is none of that key yet.")] = False,
    expected_version: options.ExpectedVersion = None,
    idempotency_key: options.IdempotencyKey = None,
) -> None:
    """Store a whole memory, replacing the one of that key."""
    from unified_memory.client import protocol

    call = protocol.store(
        key,
        read_value(value, file, as_text=text),
        namespace,
        read_seconds(ttl),
        read_metadata(metadata, tags=tag, importance=importance, session=session, project=project),
        expires_at=UNSET if expires_at is None else expires_at,
        if_none_match=create_only,
        expected_version=expected_version,
        idempotency_key=idempotency_key,
    )
    target.ask(call, views.stored, needs=Needs.PLACE)


@command(commands, "retrieve", panel=PANEL)
def retrieve(
    target: Target,
    key: options.Key,
    namespace: options.Namespace = DEFAULT_NAMESPACE,
    value: Annotated[bool, typer.Option("--value", help="Print the value alone.")] = False,
    search_index: Annotated[bool, typer.Option("--search-index", help="Also what the search knows of it.")] = False,
    as_of: options.AsOf = None,
) -> None:
    """Show the memory of a key."""
    from unified_memory.client import protocol

    call = protocol.fetch(key, namespace, include_search_index=search_index, as_of=as_of)
    target.ask(call, views.value if value else views.record)


@command(commands, "update", panel=PANEL)
def update(
    target: Target,
    key: options.Key,
    value: options.Value = None,
    namespace: options.Namespace = DEFAULT_NAMESPACE,
    file: options.File = None,
    text: options.AsText = False,
    ttl: options.Ttl = None,
    expires_at: options.ExpiresAt = None,
    tag: options.Tags = None,
    importance: options.Importance = None,
    session: options.Session = None,
    project: options.Project = None,
    metadata: options.Metadata = None,
    expected_version: options.ExpectedVersion = None,
    idempotency_key: options.IdempotencyKey = None,
) -> None:
    """Change what is named of a memory. In --metadata null removes a field; --tag replaces all tags."""
    from unified_memory.client import protocol

    call = protocol.update(
        key,
        namespace,
        value=read_value(value, file, as_text=text, required=False),
        ttl=read_seconds(ttl),
        expires_at=UNSET if expires_at is None else expires_at,
        metadata=read_metadata(metadata, tags=tag, importance=importance, session=session, project=project),
        expected_version=expected_version,
        idempotency_key=idempotency_key,
    )
    target.ask(call, views.updated)


@command(commands, "patch", panel=PANEL)
def patch(
    target: Target,
    key: options.Key,
    namespace: options.Namespace = DEFAULT_NAMESPACE,
    merge: Annotated[str | None, typer.Option(metavar="JSON", help="A merge patch (RFC 7396) of the value.")] = None,
    append: Annotated[
        list[str] | None, typer.Option(metavar="PATH=JSON", help="Append to a list in the value.")
    ] = None,
    increment: Annotated[
        list[str] | None, typer.Option(metavar="PATH=NUMBER", help="Add to a number in the value.")
    ] = None,
    expected_version: options.ExpectedVersion = None,
    idempotency_key: options.IdempotencyKey = None,
) -> None:
    """Change a value from inside, atomically."""
    from unified_memory.client import protocol

    call = protocol.patch(
        key,
        namespace,
        merge=UNSET if merge is None else read_json(merge, "--merge"),
        append=read_assignments(append, "--append"),
        increment=read_assignments(increment, "--increment"),
        expected_version=expected_version,
        idempotency_key=idempotency_key,
    )
    target.ask(call, views.updated)


@command(commands, "delete", panel=PANEL)
def delete(
    target: Target,
    key: options.Key,
    namespace: options.Namespace = DEFAULT_NAMESPACE,
    expected_version: options.ExpectedVersion = None,
    idempotency_key: options.IdempotencyKey = None,
) -> None:
    """Delete a memory."""
    from unified_memory.client import protocol

    call = protocol.delete(key, namespace, expected_version=expected_version, idempotency_key=idempotency_key)
    target.ask(call, views.deleted)


@command(commands, "move", panel=PANEL)
def move(
    target: Target,
    key: options.Key,
    to_key: Annotated[str | None, typer.Argument(metavar="TO_KEY", show_default=False, help="Its new key.")] = None,
    namespace: options.Namespace = DEFAULT_NAMESPACE,
    to_namespace: Annotated[str | None, typer.Option(metavar="NAMESPACE", help="Its new namespace.")] = None,
    expected_version: options.ExpectedVersion = None,
) -> None:
    """Give a memory another key, another namespace or both."""
    from unified_memory.client import protocol

    call = protocol.move(key, to_key, namespace=namespace, to_namespace=to_namespace, expected_version=expected_version)
    target.ask(call, views.moved)


@command(commands, "list", panel=PANEL)
def list_(
    target: Target,
    namespace: options.Within = None,
    no_recursive: options.NotBelow = False,
    prefix: Annotated[str | None, typer.Option(metavar="TEXT", help="What the keys begin with.")] = None,
    tag: options.WithTags = None,
    order_by: options.OrderBy = None,
    limit: options.Limit = None,
    cursor: options.Cursor = None,
) -> None:
    """List memories."""
    from unified_memory.client import protocol

    call = protocol.list_memories(
        namespace=namespace,
        recursive=not no_recursive,
        prefix=prefix,
        tags=tag,
        order_by=order_by,
        limit=limit,
        cursor=cursor,
    )
    target.ask(call, views.memories)


@command(commands, "search", panel=PANEL)
def search(
    target: Target,
    query: Annotated[
        list[str],
        typer.Argument(metavar="QUERY", show_default=False, help='Words, "phrases", prefix*, -not (after --).'),
    ],
    namespace: options.Within = None,
    no_recursive: options.NotBelow = False,
    tag: options.WithTags = None,
    importance_min: options.ImportanceMin = None,
    session: options.OfSession = None,
    project: options.OfProject = None,
    since: options.Since = None,
    until: options.Until = None,
    filter_: options.Filter = None,
    min_score: options.MinScore = None,
    mode: options.Mode = None,
    half_life: options.HalfLife = None,
    importance_weight: options.ImportanceWeight = None,
    explain: options.Explain = False,
    collapse: options.Collapse = False,
    passages: options.Passages = False,
    limit: options.Limit = None,
    cursor: options.Cursor = None,
    max_tokens: options.MaxTokens = None,
) -> None:
    """Find memories by words, the best first."""
    from unified_memory.client import protocol

    call = protocol.search(
        " ".join(query),
        namespace=namespace,
        recursive=not no_recursive,
        tags=tag,
        importance_min=importance_min,
        session_id=session,
        project_id=project,
        since=since,
        until=until,
        filter=read_object(filter_, "--filter"),
        min_score=min_score,
        mode=mode,
        rank=read_rank(half_life, importance_weight),
        explain=explain,
        collapse=collapse,
        content="passages" if passages else None,
        limit=limit,
        cursor=cursor,
        max_tokens=max_tokens,
    )
    target.ask(call, views.hits)


@command(commands, "similar", panel=PANEL)
def similar(
    target: Target,
    key: Annotated[
        str | None, typer.Argument(metavar="KEY", show_default=False, help="The memory that others are to be like.")
    ] = None,
    key_namespace: Annotated[str, typer.Option(metavar="NAMESPACE", help="The namespace of KEY.")] = DEFAULT_NAMESPACE,
    text: Annotated[str | None, typer.Option(metavar="TEXT", help="What they are to be like, in place of KEY.")] = None,
    namespace: options.Within = None,
    no_recursive: options.NotBelow = False,
    tag: options.WithTags = None,
    importance_min: options.ImportanceMin = None,
    session: options.OfSession = None,
    project: options.OfProject = None,
    since: options.Since = None,
    until: options.Until = None,
    filter_: options.Filter = None,
    min_score: options.MinScore = None,
    mode: options.Mode = None,
    half_life: options.HalfLife = None,
    importance_weight: options.ImportanceWeight = None,
    explain: options.Explain = False,
    collapse: options.Collapse = False,
    passages: options.Passages = False,
    limit: options.Limit = None,
    cursor: options.Cursor = None,
    max_tokens: options.MaxTokens = None,
) -> None:
    """Find memories that are like one, or like a text."""
    from unified_memory.client import protocol

    call = protocol.similar(
        key,
        key_namespace,
        text=text,
        namespace=namespace,
        recursive=not no_recursive,
        tags=tag,
        importance_min=importance_min,
        session_id=session,
        project_id=project,
        since=since,
        until=until,
        filter=read_object(filter_, "--filter"),
        min_score=min_score,
        mode=mode,
        rank=read_rank(half_life, importance_weight),
        explain=explain,
        collapse=collapse,
        content="passages" if passages else None,
        limit=limit,
        cursor=cursor,
        max_tokens=max_tokens,
    )
    target.ask(call, views.hits)


@command(commands, "recall", panel=PANEL)
def recall(
    target: Target,
    message: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MESSAGE",
            show_default=False,
            help="The last messages, oldest first. Without any they are read from standard input, a line of JSON each.",
        ),
    ] = None,
    exclude_session: Annotated[
        str | None, typer.Option(metavar="ID", help="Not from this session: the conversation itself.")
    ] = None,
    namespace: options.Within = None,
    no_recursive: options.NotBelow = False,
    tag: options.WithTags = None,
    importance_min: options.ImportanceMin = None,
    session: options.OfSession = None,
    project: options.OfProject = None,
    since: options.Since = None,
    until: options.Until = None,
    filter_: options.Filter = None,
    min_score: options.MinScore = None,
    mode: options.Mode = None,
    half_life: options.HalfLife = None,
    importance_weight: options.ImportanceWeight = None,
    explain: options.Explain = False,
    limit: Annotated[int | None, typer.Option(metavar="N", help="At most so many (10; up to 1000).")] = None,
    max_tokens: Annotated[
        int | None, typer.Option(metavar="N", help="As many as fit (1000), long values by their passages.")
    ] = None,
) -> None:
    """Find what a conversation should be reminded of."""
    from unified_memory.client import protocol

    call = protocol.recall(
        message or read_messages(),
        exclude_session=exclude_session,
        namespace=namespace,
        recursive=not no_recursive,
        tags=tag,
        importance_min=importance_min,
        session_id=session,
        project_id=project,
        since=since,
        until=until,
        filter=read_object(filter_, "--filter"),
        min_score=min_score,
        mode=mode,
        rank=read_rank(half_life, importance_weight),
        explain=explain,
        limit=limit,
        max_tokens=max_tokens,
    )
    target.ask(call, views.hits)


@command(commands, "query", panel=PANEL)
def query(
    target: Target,
    filter_: Annotated[
        str | None,
        typer.Argument(metavar="FILTER", show_default=False, help='JSON, such as {"metadata.importance": {"gte": 7}}.'),
    ] = None,
    namespace: options.Within = None,
    no_recursive: options.NotBelow = False,
    order_by: options.OrderBy = None,
    select: Annotated[
        list[str] | None, typer.Option(metavar="FIELD", help="Only this field; may be given several times.")
    ] = None,
    limit: options.Limit = None,
    cursor: options.Cursor = None,
    count: Annotated[bool, typer.Option("--count", help="Also tell how many there are.")] = False,
    group_by: Annotated[
        str | None, typer.Option(metavar="FIELD", help="Also tell how many there are of each value.")
    ] = None,
) -> None:
    """Find memories by an exact filter."""
    from unified_memory.client import protocol

    call = protocol.query(
        read_object(filter_, "FILTER"),
        namespace=namespace,
        recursive=not no_recursive,
        order_by=order_by,
        select=select or None,
        limit=limit,
        cursor=cursor,
        count=count,
        group_by=group_by,
    )
    target.ask(call, views.queried)
