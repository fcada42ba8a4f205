"""How far long work has come and how long it may still take, shown on the terminal by rich."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Advance = Callable[[int, int | None], None]
BYTES = "bytes"


@contextmanager
def progress(what: str, unit: str) -> Iterator[Advance]:
    """A bar on standard error while the block lasts; nothing where that is no terminal. Call it with done and total.

    What it may still take is estimated by what was done in the last half minute, and not told while the total is not known.
    """
    console = Console(stderr=True)
    counts: tuple[ProgressColumn, ...] = (
        (DownloadColumn(binary_units=True),) if unit == BYTES else (MofNCompleteColumn(), TextColumn(unit))
    )
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        *counts,
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
