"""Drawing on the terminal, by rich."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from unified_memory.cli.views import Facts, Table, View, visible

# Where the output goes into a file or another program there is no edge to keep to.
FILE_COLUMNS = 100_000


def draw(views: View | Sequence[View], *, err: bool = False) -> None:
    """Prints views on standard output, or on standard error."""
    console = Console(markup=False, highlight=False, emoji=False, stderr=err)
    if not console.is_terminal:
        console.width = FILE_COLUMNS
    for place, view in enumerate([views] if isinstance(views, Table | Facts | str) else views):
        if place:
            console.print()
        if isinstance(view, str):
            console.print(Text(visible(view)), soft_wrap=True)
        elif isinstance(view, Table):
            _draw_table(console, view)
        else:
            _draw_facts(console, view)


def _draw_table(console: Console, view: Table) -> None:
    if not view.rows:
        console.print("Nothing found", style="dim")
        return
    table = RichTable(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, show_edge=False)
    for name in view.columns:
        if name == view.wide:
            table.add_column(name, overflow="ellipsis", no_wrap=True, ratio=1)
        else:
            table.add_column(name, overflow="fold")
    for row in view.rows:
        table.add_row(*(Text(visible(cell)) for cell in row))
    console.print(table)


def _draw_facts(console: Console, view: Facts) -> None:
    width = max(len(name) for name, _ in view.pairs) + 2
    for name, fact in view.pairs:
        console.print(Text(visible(name).ljust(width), style="dim") + Text(visible(fact), style=""), soft_wrap=True)
    if view.body is not None:
        console.print()
        console.print(Text(visible(view.body)), soft_wrap=True)
