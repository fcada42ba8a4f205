"""The terminal: each command reads its arguments, makes one call of the client, and shows the answer.

What only some commands need is imported inside of them: a command answers before a library that it does not use is loaded.
"""

from unified_memory.cli.application import app

__all__ = ["main"]


def main() -> None:
    """The command `unified-memory`."""
    app()
