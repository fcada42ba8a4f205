"""Commands on a spool: what a client has kept while the service was away."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from unified_memory.cli.command import Json, Target, errors_told
from unified_memory.cli.views import Facts, Table, View, many, moment, size, visible, whole
from unified_memory.model.clock import to_rfc3339
from unified_memory.model.errors import InvalidInputError, NotFoundError

if TYPE_CHECKING:
    from unified_memory.client.spool import Entry, Spool

URL = "http://127.0.0.1:3200"

commands = typer.Typer()
group = typer.Typer(no_args_is_help=True, help="Look into a client's spool, send what waits in it, drop what failed.")
commands.add_typer(group, name="spool", rich_help_panel="The service")

File = Annotated[Path, typer.Option("--spool", metavar="PATH", show_default=False, help="The client's spool.")]
Number = Annotated[
    int, typer.Argument(metavar="NUMBER", show_default=False, help="The write, by its number in the list.")
]


def _open(path: Path) -> "Spool":
    from unified_memory.client.spool import Spool

    if not path.exists():
        # It would be made: a slip of the pen is no empty spool.
        raise NotFoundError(f"There is no spool at {path}", path=str(path))
    return Spool(path)


def _told(entry: "Entry", *, with_request: bool = False) -> dict[str, Any]:
    told: dict[str, Any] = {
        "number": entry.id,
        "kind": entry.kind,
        "namespace": entry.namespace,
        "key": entry.key,
        "state": entry.state,
        "made_at": to_rfc3339(entry.made_at),
        "bytes": len(entry.request.content),
        "in_fallback": entry.in_fallback,
        "error": entry.error,
    }
    if with_request:
        told["idempotency_key"] = entry.idempotency_key
        told["request"] = {
            "method": entry.request.method,
            "target": entry.request.target,
            "body": msgspec.Raw(entry.request.content.encode() or b"null"),
        }
    return told


# ---- what a person sees
def _list(answer: Any) -> list[View]:
    rows = [
        (
            str(one["number"]),
            one["kind"],
            one["namespace"],
            one["key"],
            moment(one["made_at"]),
            "waits" if one["error"] is None else one["error"]["detail"],
        )
        for one in answer["entries"]
    ]
    totals = answer["totals"]
    return [
        Table(("number", "kind", "namespace", "key", "made", "state"), rows, wide="state"),
        f"{totals['waiting']} wait, {totals['failed']} failed; {size(totals['bytes'])}",
    ]


def _entry(answer: Any) -> Facts:
    error, request = answer["error"], answer["request"]
    pairs = [
        ("number", str(answer["number"])),
        ("request", f"{request['method']} {visible(request['target'])}"),
        ("namespace", answer["namespace"]),
        ("key", answer["key"]),
        ("made", moment(answer["made_at"])),
        ("state", answer["state"]),
    ]
    if answer["in_fallback"]:
        pairs.append(("also in", "the older service"))
    if error is not None:
        pairs.append(("error", f"{error['detail']} ({error['code']})"))
    return Facts(pairs, whole(request["body"]))


def _replayed(answer: Any) -> str:
    told = f"The service has taken {many(answer['replayed'], 'write', 'writes')} and refused {answer['failed']}"
    return f"{told}; {answer['waiting']} wait still"


def _dropped(answer: Any) -> str:
    return f"Dropped {many(len(answer['dropped']), 'write', 'writes')}"


# ---- commands
@group.command("list")
def list_(
    spool: File,
    failed: Annotated[bool, typer.Option("--failed", help="Only those that the service has refused.")] = False,
    limit: Annotated[int, typer.Option(metavar="N", help="At most so many.")] = 50,
    after: Annotated[int, typer.Option(metavar="NUMBER", help="Only those behind this one.")] = 0,
    json: Json = False,
) -> None:
    """List the writes in a spool, in order."""
    with errors_told(), _open(spool) as opened:
        entries = opened.entries("failed" if failed else None, limit=limit, after=after)
        totals = opened.totals()
        # The limits are those of the client that fills it.
        counts = {"waiting": totals.waiting, "failed": totals.failed, "bytes": totals.bytes}
        answer = {"entries": [_told(entry) for entry in entries], "totals": counts}
        Target(json=json).show(msgspec.json.encode(answer), _list)


@group.command("show")
def show(spool: File, number: Number, json: Json = False) -> None:
    """Show a write with what it says, and why it failed."""
    with errors_told(), _open(spool) as opened:
        Target(json=json).show(msgspec.json.encode(_told(opened.get(number), with_request=True)), _entry)


@group.command("replay")
def replay(
    spool: File,
    url: Annotated[str, typer.Option(metavar="URL", help="The service that they are for.")] = URL,
    failed: Annotated[bool, typer.Option("--failed", help="Also try those again that were refused.")] = False,
    json: Json = False,
) -> None:
    """Send the writes that wait, in order."""
    with errors_told(), _open(spool) as opened:
        if failed:
            opened.retry()
        from unified_memory.client import SyncUnifiedMemoryClient

        with SyncUnifiedMemoryClient(url, spool=opened) as client:
            Target(json=json).show(msgspec.json.encode(client.replay()), _replayed)


@group.command("drop")
def drop(
    spool: File,
    number: Annotated[int | None, typer.Argument(metavar="NUMBER", show_default=False, help="The write.")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="All that the service has refused.")] = False,
    json: Json = False,
) -> None:
    """Remove a write, or all that failed: what it says is lost."""
    with errors_told(), _open(spool) as opened:
        if (number is None) != failed:
            raise InvalidInputError("NUMBER", "Name a write by its number, or say --failed")
        dropped = [opened.drop(number)] if number is not None else [opened.drop(e.id) for e in opened.entries("failed")]
        answer = {"dropped": [_told(entry) for entry in dropped]}
        Target(json=json).show(msgspec.json.encode(answer), _dropped)
