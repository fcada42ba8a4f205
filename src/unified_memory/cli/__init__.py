"""The terminal: each command reads its arguments, makes one call of the client, and shows the answer.

What only some commands need is imported inside of them: a command answers before a library that it does not use is loaded.
"""

import sys

__all__ = ["main"]


def main() -> None:
    """The command `unified-memory`."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["mcp"] and not {"install", "-h", "--help"} & set(arguments):
        # A client that starts it waits for the first answer: not even the library of the other commands is loaded.
        from unified_memory.stdio import main as serve_stdio

        sys.exit(serve_stdio(arguments[1:]))
    from unified_memory.cli.application import app

    app()
