"""The settings file of a client: what is to become of it, the difference, and writing it whole or not at all."""

import difflib
import os
import re
from pathlib import Path
from typing import Any

from msgspec import Struct

from unified_memory.install.clients import Client
from unified_memory.install.edit import edited, snippet
from unified_memory.model.errors import ConflictError, InvalidInputError, MalformedInputError, StorageError

BACKUP = ".bak"
LONGEST_LINE = 200
_BOM = b"\xef\xbb\xbf"
# What every client takes as the name of a server.
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Plan(Struct, frozen=True):
    """What is to become of a file; `before` is None where there is none yet."""

    file: Path
    before: bytes | None
    after: bytes

    @property
    def changes(self) -> bool:
        """Whether there is anything to write."""
        return self.before != self.after

    def difference(self) -> str:
        """The change as a unified difference; a very long line is cut."""
        old, new = ((text or b"").decode("utf-8-sig").splitlines() for text in (self.before, self.after))
        lines = difflib.unified_diff(old, new, str(self.file), str(self.file), lineterm="")
        return "\n".join(line if len(line) <= LONGEST_LINE else line[:LONGEST_LINE] + "…" for line in lines)


def alone(client: Client, name: str, entry: dict[str, Any]) -> str:
    """What the client's file would be with nothing else in it. Raises InvalidInputError."""
    if _NAME.fullmatch(name) is None:
        raise InvalidInputError(
            "--name", f"{name!r} is no name of a server", hint="Letters, digits, - and _; at most 64"
        )
    return snippet(client.format, client.container, name, entry)


def plan(client: Client, file: Path, name: str, entry: dict[str, Any]) -> Plan:
    """What the file is to be with the entry in it. Everything else in the file stays as it is.

    Raises MalformedInputError where it cannot be read, or not be added to, and StorageError.
    """
    try:
        before = file.read_bytes() if file.exists() else None
    except OSError as error:
        raise StorageError(f"{file} cannot be read: {error.strerror}") from error
    mark = _BOM if before is not None and before.startswith(_BOM) else b""
    try:
        text = (before or b"").removeprefix(mark).decode()
        after = mark + edited(client.format, text, client.container, name, entry).encode()
    except UnicodeDecodeError:
        raise MalformedInputError("file", f"{file} is no UTF-8") from None
    except UnicodeEncodeError:
        raise InvalidInputError("command", "A path of the entry is no UTF-8, and cannot be written") from None
    except MalformedInputError as error:
        raise MalformedInputError("file", f"{file}: {error.detail}") from None
    return Plan(file, before, after)


def write(planned: Plan) -> Path | None:
    """Writes the file whole or not at all. Returns the copy of what was there before, None where nothing was.

    Raises ConflictError where another program has written the file since the plan, and StorageError.
    """
    # Where the name is a link, what it points to is written, and the link stays.
    file = planned.file.resolve()
    try:
        if (file.read_bytes() if file.exists() else None) != planned.before:
            raise ConflictError(f"{planned.file} has changed meanwhile; nothing was written", hint="Run it again")
        if planned.before is None:
            file.parent.mkdir(parents=True, exist_ok=True)
            _replace(file, planned.after, None)
            return None
        mode = file.stat().st_mode & 0o777
        backup = file.with_name(file.name + BACKUP)
        _replace(backup, planned.before, mode)
        _replace(file, planned.after, mode)
    except OSError as error:
        raise StorageError(f"{planned.file} could not be written: {error.strerror}") from error
    return backup


def _replace(file: Path, content: bytes, mode: int | None) -> None:
    new = file.with_name(f".{file.name}.{os.getpid()}.new")
    try:
        # Such files hold keys: until the mode is set, nobody else may read it.
        with open(new, "xb", opener=lambda path, flags: os.open(path, flags, 0o666 if mode is None else 0o600)) as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        if mode is not None:
            new.chmod(mode)
        new.replace(file)
    finally:
        new.unlink(missing_ok=True)
