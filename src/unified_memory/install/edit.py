"""One entry put into the text of a settings file; everything else stays as it was written, comments too.

The text is cut and pasted, never written anew. What has come out is parsed and compared with what must have come out.
"""

import json
import re
import tomllib
from collections.abc import Iterator
from typing import Any, NamedTuple

from unified_memory.install.clients import Format
from unified_memory.model.errors import MalformedInputError

# What says how a server is reached; all else in an entry is the user's.
OWNED = {"type", "command", "args", "url", "serverUrl"}
DEFAULT_INDENT = "  "

_STRING = r'"(?:[^"\\]|\\.)*"'
_COMMENT = r"//[^\r\n]*|/\*.*?\*/"
_STRING_OR_COMMENT = re.compile(f"({_STRING})|{_COMMENT}", re.DOTALL)
_STRING_OR_LAST_COMMA = re.compile(rf"({_STRING})|,(?=\s*[}}\]])", re.DOTALL)
_BLANK = re.compile(r"\s*")
_TAIL = re.compile(r"(?:[ \t]*(,))?(?:[ \t]*(?://[^\r\n]*|/\*[^\r\n]*?\*/))?")
_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_DECODER = json.JSONDecoder()


def edited(form: Format, text: str, container: str, name: str, entry: dict[str, Any]) -> str:
    """The text of a file with that entry in its container: the text itself where nothing changes.

    What the user has added to the entry is kept, as long as the server is reached the same way as before.

    Raises MalformedInputError where the file cannot be read, or is written so that the entry cannot be put into it.
    """
    document = _read(form, text)
    servers = document.get(container, {})
    if not isinstance(servers, dict):
        raise MalformedInputError("file", f"{container} is no table of servers")
    old = servers.get(name)
    keep, whole = False, entry
    if isinstance(old, dict) and ("command" in old) == ("command" in entry):
        keep, whole = True, {**entry, **{key: value for key, value in old.items() if key not in OWNED}}
    if old == whole:
        return text
    if form is Format.TOML:
        written = _toml_edited(text, (container, name), entry, keep=keep)
    else:
        written = _json_edited(text, (container, name), whole)
    wanted = {**document, container: {**servers, name: whole}}
    try:
        found = _read(form, written)
    except MalformedInputError:
        found = {}
    if found != wanted:
        raise MalformedInputError("file", f"{container} is written in a way that cannot be added to")
    return written


def snippet(form: Format, container: str, name: str, entry: dict[str, Any]) -> str:
    """A whole file with nothing but the entry."""
    if form is Format.TOML:
        return _toml_edited("", (container, name), entry, keep=False)
    return _json_edited("", (container, name), entry)


def _read(form: Format, text: str) -> dict[str, Any]:
    try:
        document = tomllib.loads(text) if form is Format.TOML else json.loads(_plain(text) if text.strip() else "{}")
    except ValueError as error:
        raise MalformedInputError("file", f"This is no {form.value}: {error}") from None
    if not isinstance(document, dict):
        raise MalformedInputError("file", "This is no table of settings")
    return document


# ---- JSON, with comments and with commas at an end
def _plain(text: str) -> str:
    """The same text, every character at its place, with blanks for comments and for a comma at an end."""
    bare = _STRING_OR_COMMENT.sub(lambda m: m[1] or re.sub(r"[^\r\n]", " ", m[0]), text)
    return _STRING_OR_LAST_COMMA.sub(lambda m: m[1] or " ", bare)


class _Member(NamedTuple):
    key: str
    start: int
    value: int
    end: int


def _members(plain: str, at: int) -> Iterator[_Member]:
    """The members of the object whose brace is there."""
    at = _blank(plain, at + 1)
    while plain[at] != "}":
        start = at
        key, at = _DECODER.raw_decode(plain, at)
        value = _blank(plain, _blank(plain, at) + 1)
        _, end = _DECODER.raw_decode(plain, value)
        yield _Member(key, start, value, end)
        at = _blank(plain, end)
        if plain[at] == ",":
            at = _blank(plain, at + 1)


def _find(plain: str, at: int, key: str) -> tuple[list[_Member], _Member | None]:
    """The members of the object whose brace is there, and the one of that key; of several the last one counts."""
    members = list(_members(plain, at))
    return members, next((member for member in reversed(members) if member.key == key), None)


def _blank(plain: str, at: int) -> int:
    """Where the blanks from there end."""
    return next(_BLANK.finditer(plain, at)).end()


def _json_edited(text: str, path: tuple[str, ...], value: Any) -> str:
    text = text if text.strip() else "{\n}\n"
    plain = _plain(text)
    at = _blank(plain, 0)
    first = next(_members(plain, at), None)
    unit = (first and _indent(text, first.start)) or DEFAULT_INDENT
    # A file in one line stays one.
    compact = first is not None and "\n" not in text.strip()
    depth = 1
    members, member = _find(plain, at, path[0])
    while member is not None and depth < len(path):
        at = member.value
        members, member = _find(plain, at, path[depth])
        depth += 1
    for outer in reversed(path[depth:]):
        value = {outer: value}
    indent = (_indent(text, members[0].start) if members else None) or unit * depth
    newline = "\r\n" if "\r\n" in text else "\n"
    dumped = json.dumps(value, ensure_ascii=False, indent=None if compact else unit).replace("\n", newline + indent)
    if member is not None:
        return text[: member.value] + dumped + text[member.end :]
    line = f"{json.dumps(path[depth - 1], ensure_ascii=False)}: {dumped}"
    gap = newline + indent
    if members:
        # A comment beside the last member stays beside it.
        tail = next(_TAIL.finditer(text, members[-1].end))
        before, after = text[: tail.start()] + (tail[0] if tail[1] else f",{tail[0]}"), text[tail.end() :]
        return f"{before}{' ' if compact else gap}{line}{',' if tail[1] else ''}{after}"
    close = plain.index("}", at)
    if compact:
        return text[:close] + line + text[close:]
    return f"{text[:close].rstrip()}{gap}{line}{gap.removesuffix(unit)}{text[close:]}"


def _indent(text: str, at: int) -> str | None:
    """The blanks before this place in its line; None where there is something else, or nothing."""
    before = text[text.rfind("\n", 0, at) + 1 : at]
    return before if before.isspace() else None


# ---- TOML
def _toml_edited(text: str, path: tuple[str, str], entry: dict[str, Any], *, keep: bool) -> str:
    newline = "\r\n" if "\r\n" in text else "\n"
    lines = [f"{_toml_key(key)} = {_toml_value(value)}{newline}" for key, value in entry.items()]
    made, found = [], False
    table: tuple[str, ...] = ()
    for statement in _statements(text):
        header = _header(statement)
        if header is not None:
            table = header
        if header == path:
            made += [statement if statement.endswith("\n") else statement + newline, *lines]
            found = True
        elif table[:2] == path and tomllib.loads(statement):
            # Of the entry: a key of ours is replaced; the rest stays where it is kept.
            if keep and (table != path or not OWNED & tomllib.loads(statement).keys()):
                made.append(statement)
        else:
            made.append(statement)
    if not found:
        if text and not text.endswith("\n"):
            made.append(newline)
        if text.strip():
            made.append(newline)
        made += [f"[{'.'.join(map(_toml_key, path))}]{newline}", *lines]
    return "".join(made)


def _statements(text: str) -> Iterator[str]:
    """The text cut where statements end. A line that cannot be read alone goes on in the next one."""
    statement = ""
    for line in _LINE.findall(text):
        statement += line
        try:
            tomllib.loads(statement)
        except tomllib.TOMLDecodeError:
            continue
        yield statement
        statement = ""


def _header(statement: str) -> tuple[str, ...] | None:
    """The path of the table that a statement begins."""
    if not statement.lstrip().startswith("["):
        return None
    path = []
    table: Any = tomllib.loads(statement)
    while isinstance(table, dict) and table:
        key, table = next(iter(table.items()))
        path.append(key)
    return tuple(path)


def _toml_key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _toml_value(key)


def _toml_value(value: Any) -> str:
    """A text or a list of texts; TOML writes both as JSON does."""
    return json.dumps(value, ensure_ascii=False)
