"""What stands on a command line, read."""

import math
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import UNSET, Raw, UnsetType

from unified_memory.model.errors import InvalidInputError, MalformedInputError
from unified_memory.model.value import encode, parse

if TYPE_CHECKING:
    from unified_memory.client.shapes import Rank

_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhdw]?)")
_NUMBER = re.compile(r"-?\d{1,15}(?:\.\d+)?", re.ASCII)
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
NONE = "none"


def read_value(text: str | None, file: Path | None, *, as_text: bool, required: bool = True) -> Raw | UnsetType:
    """The value as JSON text, byte for byte: what is JSON stays so, all else (or `as_text` everything) is a text.

    It stands in VALUE or in a file; `-` is standard input. Raises InvalidInputError.
    """
    if text is not None and file is not None:
        raise InvalidInputError("VALUE", "VALUE and --file exclude each other")
    if text is None and file is None:
        if required:
            raise InvalidInputError("VALUE", "There is no value", hint="VALUE, --file PATH, or - for standard input")
        return UNSET
    if text == "-" or (file is not None and str(file) == "-"):
        raw = sys.stdin.buffer.read()
    elif file is not None:
        try:
            raw = file.read_bytes()
        except OSError as error:
            raise InvalidInputError("--file", f"{file}: {error.strerror}") from None
    else:
        raw = _utf8(text or "", "VALUE")
    if not as_text:
        try:
            parse(raw, "VALUE")
        except MalformedInputError:
            pass
        else:
            return Raw(raw)
    try:
        return Raw(encode(raw.decode()))
    except UnicodeDecodeError:
        raise InvalidInputError("VALUE", "The value is neither JSON nor UTF-8 text") from None


def read_json(text: str | None, field: str) -> Any:
    """JSON with its digits as they are, None where there is no text. Raises InvalidInputError."""
    return None if text is None else parse(_utf8(text, field), field)


def read_object(text: str | None, field: str) -> dict[str, Any] | None:
    """A JSON object. Raises InvalidInputError."""
    found = read_json(text, field)
    if found is not None and not isinstance(found, dict):
        raise InvalidInputError(field, f"{field} must be a JSON object")
    return found


def read_assignments(texts: list[str] | None, field: str) -> dict[str, Any] | None:
    """`PATH=JSON` (or `PATH=text`) as an object. Raises InvalidInputError."""
    if not texts:
        return None
    found = {}
    for text in texts:
        path, equals, told = text.partition("=")
        if not equals:
            raise InvalidInputError(field, f"{field} is written PATH=VALUE")
        found[path] = read_value(told, None, as_text=False)
    return found


def read_seconds(text: str | None, field: str = "--ttl") -> float | UnsetType | None:
    """`90`, `90s`, `5m`, `12h`, `7d`, `2w` in seconds, `none` as None. Raises InvalidInputError."""
    if text is None:
        return UNSET
    if text.lower() == NONE:
        return None
    match = _DURATION.fullmatch(text.lower())
    if match is None:
        raise InvalidInputError(
            field, f"{text!r} is no duration", hint="Seconds, or as in 5m, 12h, 7d, 2w; none: never"
        )
    seconds = float(match[1]) * _SECONDS[match[2]]
    return int(seconds) if math.isfinite(seconds) and seconds.is_integer() else seconds


def read_count(text: str | None, field: str) -> int | UnsetType | None:
    """An integer, `none` as None. Raises InvalidInputError."""
    if text is None:
        return UNSET
    if text.lower() == NONE:
        return None
    if not (text.isascii() and text.isdigit()):
        raise InvalidInputError(field, f"{field} is a number or none")
    return int(text)


def read_number(text: str | None, field: str) -> float | UnsetType | None:
    """A number that is not below 0, `none` as None. Raises InvalidInputError."""
    if text is None:
        return UNSET
    if text.lower() == NONE:
        return None
    if _NUMBER.fullmatch(text) is None or text.startswith("-"):
        raise InvalidInputError(field, f"{field} is a number or none")
    number = float(text)
    return int(number) if number.is_integer() else number


def or_none(text: str | None) -> str | UnsetType | None:
    """What was given; `none` as None."""
    return UNSET if text is None else None if text == NONE else text


def read_metadata(
    text: str | None,
    *,
    tags: list[str] | None,
    importance: int | None,
    session: str | None,
    project: str | None,
) -> dict[str, Any] | None:
    """Metadata from a JSON object and from options of their own, which win. Raises InvalidInputError."""
    told = {"tags": tags or None, "importance": importance, "session_id": session, "project_id": project}
    found = {**(read_object(text, "--metadata") or {}), **{n: fact for n, fact in told.items() if fact is not None}}
    return found or None


def read_messages() -> list[str | dict[str, Any]]:
    """The messages on standard input, a line of JSON each: a text, or an object whose `content` is one.

    Raises InvalidInputError naming the line.
    """
    messages = []
    for number, line in enumerate(sys.stdin.buffer.read().splitlines(), 1):
        if not line.strip():
            continue
        field = f"Line {number} of standard input"
        message = parse(line, field)
        if not isinstance(message.get("content") if isinstance(message, dict) else message, str):
            raise InvalidInputError(field, f"{field} is neither a text nor an object whose content is a text")
        messages.append(message)
    if not messages:
        raise InvalidInputError("MESSAGE", "There is no message", hint="MESSAGE, or lines of JSON on standard input")
    return messages


def read_rank(half_life: str | None, importance: float | None) -> "Rank | None":
    """What counts beside relevance; a half-life that is a number is in seconds."""
    rank: Rank = {}
    if half_life is not None:
        rank["recency_half_life"] = float(half_life) if _NUMBER.fullmatch(half_life) else half_life
    if importance is not None:
        rank["importance"] = importance
    return rank or None


def _utf8(text: str, field: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise InvalidInputError(field, f"{field} is not UTF-8") from None
