"""Asking the user before something is done that cannot be taken back."""

import sys

import typer

from unified_memory.cli.command import OTHERWISE
from unified_memory.cli.views import visible
from unified_memory.model.errors import InvalidInputError


def on_terminal() -> bool:
    """Whether somebody can answer."""
    return sys.stdin.isatty()


def require_terminal(does: str) -> None:
    """Raises InvalidInputError where there is no terminal to ask on. `does`: what --yes does without asking."""
    if not on_terminal():
        raise InvalidInputError(
            "--yes", "Nothing was done: there is no terminal to ask on", hint=f"--yes {does} without asking"
        )


def confirm(question: str, does: str) -> None:
    """Returns where the user wants it; else ends the command. Raises InvalidInputError as `require_terminal`."""
    require_terminal(does)
    if not typer.confirm(visible(question), err=True):
        typer.echo("Nothing was done", err=True)
        raise typer.Exit(OTHERWISE)
