"""The command, run in this process on a data directory of the test's own."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct
from typer.testing import CliRunner

from unified_memory.cli.application import app


class Ran(Struct):
    """What a command said, and how it ended."""

    status: int
    out: str
    err: str

    @property
    def answer(self) -> Any:
        """Its output as JSON."""
        return json.loads(self.out)


Run = Callable[..., Ran]


def run_command(*arguments: str, stdin: bytes = b"") -> Ran:
    result = CliRunner().invoke(app, list(arguments), input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ran(result.exit_code, result.stdout, result.stderr)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def run(data_dir: Path) -> Run:
    """Runs a command on the data directory."""

    def on_data_dir(*arguments: str, stdin: bytes = b"") -> Ran:
        end = arguments.index("--") if "--" in arguments else len(arguments)
        return run_command(*arguments[:end], "--data-dir", str(data_dir), *arguments[end:], stdin=stdin)

    return on_data_dir


@pytest.fixture
def good(run: Run) -> Run:
    """Runs a command that must end well."""

    def well(*arguments: str, stdin: bytes = b"") -> Ran:
        ran = run(*arguments, stdin=stdin)
        assert (ran.status, ran.err) == (0, ""), ran
        return ran

    return well
