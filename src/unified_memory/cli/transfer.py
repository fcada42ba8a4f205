"""Commands that write memories as lines, and store them from lines."""

import os
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated

import msgspec
import typer
from msgspec import Struct

from unified_memory.cli import options, views
from unified_memory.cli.command import OTHERWISE, Needs, Target, command
from unified_memory.model.errors import InvalidInputError, StorageError

PANEL = "Memories"
PIECE_BYTES = 64 * 1024
commands = typer.Typer()


class _Exported(Struct):
    """What was written."""

    file: str
    lines: int
    bytes: int


# ---- out
@command(commands, "export", panel=PANEL)
def export(
    target: Target,
    namespace: options.Within = None,
    no_recursive: options.NotBelow = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="PATH", help="Write a file, all of it or none; otherwise standard output."
        ),
    ] = None,
) -> None:
    """Write every memory as a line of JSON."""
    from unified_memory.client import protocol

    flow = protocol.export(namespace, recursive=not no_recursive)
    if output is None:
        target.follow(flow, sys.stdout.buffer.write)
        sys.stdout.buffer.flush()
        return
    from unified_memory.cli.progress import progress

    told = _Exported(str(output), 0, 0)
    with _written(output) as file, progress("export", "lines") as advance:

        def write(line: bytes) -> None:
            told.lines += 1
            told.bytes += file.write(line)
            advance(told.lines, None)

        target.follow(flow, write)
    target.show(msgspec.json.encode(told), views.exported)


@contextmanager
def _written(path: Path) -> Iterator[IO[bytes]]:
    """A file to be written: it has its name when the block has ended well, and is not there otherwise.

    Raises InvalidInputError where it cannot be begun, StorageError where it cannot be written.
    """
    begun = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        file = begun.open("xb")
    except OSError as error:
        raise InvalidInputError("--output", f"{path}: {error.strerror}") from None
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        begun.replace(path)
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}") from error
    finally:
        begun.unlink(missing_ok=True)


# ---- in
@command(commands, "import", panel=PANEL)
def import_(
    target: Target,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", show_default=False, help="Lines of JSON; - reads standard input.")
    ],
    on_conflict: Annotated[
        str | None,
        typer.Option(
            metavar="skip|replace|newer|fail",
            help="Where something else is stored under a key: it stays (the default), is replaced, is replaced where it is "
            "older, or ends the import.",
        ),
    ] = None,
    into: Annotated[str | None, typer.Option(metavar="NAMESPACE", help="Put everything below this namespace.")] = None,
) -> None:
    """Store memories from lines of JSON, as export writes them. May be repeated; ends with 1 where lines failed."""
    from unified_memory.cli.progress import BYTES, progress
    from unified_memory.client import protocol

    with _opened(file) as (opened, size), progress("import", BYTES) as advance:
        call = protocol.import_lines(
            _pieces(opened, lambda done: advance(done, size)), on_conflict=on_conflict, into=into
        )
        answer = target.result(call, needs=Needs.PLACE)
    if target.show(answer, views.imported)["failed"]:
        raise typer.Exit(OTHERWISE)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[IO[bytes], int | None]]:
    """The file, and how many bytes it has, None where nobody knows. Raises InvalidInputError."""
    if str(path) == "-":
        yield sys.stdin.buffer, None
        return
    try:
        file = path.open("rb")
    except OSError as error:
        raise InvalidInputError("FILE", f"{path}: {error.strerror}") from None
    with file:
        yield file, os.fstat(file.fileno()).st_size or None


async def _pieces(file: IO[bytes], taken: Callable[[int], None]) -> AsyncIterator[bytes]:
    """The file bit by bit; `taken` is told how many bytes there were so far."""
    import asyncio

    done = 0
    # A pipe may have nothing to give for long, and others want to go on meanwhile.
    while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
        yield piece
        done += len(piece)
        taken(done)
