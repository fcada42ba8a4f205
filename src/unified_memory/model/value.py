"""Values: any JSON, kept as the bytes that came.

A value is never re-spelled: numbers keep their digits, objects their order and their repeated names. What is
derived from it (its hash, its words) is derived from one parse in which numbers stay the text they were.
"""

import hashlib
import json
from typing import Any

import msgspec

from unified_memory.model.errors import InvalidInputError, MalformedInputError, TooLargeError

MAX_DEPTH = 256

type_names = {dict: "object", list: "array", str: "string", bool: "boolean", type(None): "null"}


def _literal(text: str) -> msgspec.Raw:
    return msgspec.Raw(text.encode())


def _no_constant(text: str) -> Any:
    raise MalformedInputError("value", f"{text} is not JSON")


_decoder = msgspec.json.Decoder(float_hook=_literal)
_encoder = msgspec.json.Encoder()
_sorting_encoder = msgspec.json.Encoder(order="sorted")


def parse(raw: bytes, field: str = "value") -> Any:
    """The JSON as Python objects, except that numbers with a fraction, an exponent or thousands of digits are
    `msgspec.Raw`, spelled as they came. Of a repeated name the last value counts; -0 is 0.

    Raises MalformedInputError where it is no JSON, InvalidInputError where it is nested deeper than 256.
    """
    try:
        parsed = _decoder.decode(raw)
    except RecursionError:
        raise InvalidInputError(field, f"{field} is nested deeper than {MAX_DEPTH}", limit=MAX_DEPTH) from None
    except UnicodeDecodeError as error:
        raise MalformedInputError(field, f"{field} is not UTF-8: {error.reason}") from None
    except msgspec.MsgspecError:
        # An integer of thousands of digits is JSON too; only the standard library lets us keep it as text.
        try:
            parsed = json.loads(raw.decode(), parse_int=_literal, parse_float=_literal, parse_constant=_no_constant)
            # Finds lone surrogates, which this parser lets through and no UTF-8 can hold.
            _encoder.encode(parsed)
        except (ValueError, RecursionError) as error:
            raise MalformedInputError(field, f"{field} is not JSON: {error}") from None
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH:
        _collect(parsed, [], 0, field)
    return parsed


def check_size(raw: bytes, limit: int, field: str = "value") -> None:
    """Raises TooLargeError where the value is larger than `limit` bytes."""
    if len(raw) > limit:
        raise TooLargeError(field, limit, len(raw))


def canonical(parsed: Any) -> bytes:
    """The value with sorted names, no blanks, the shortest escapes, and numbers as they were written."""
    return _sorting_encoder.encode(parsed)


def content_hash(parsed: Any) -> bytes:
    """sha256 of the canonical value, 32 bytes."""
    return hashlib.sha256(_sorting_encoder.encode(parsed)).digest()


def text_of(parsed: Any, field: str = "value") -> str:
    """The words of a value of any shape: strings as they are, numbers and names of members too, in order, a line each.

    Raises InvalidInputError where the value is nested deeper than 256.
    """
    if isinstance(parsed, str):
        return parsed
    lines: list[str] = []
    _collect(parsed, lines, 0, field)
    return "\n".join(lines)


def _collect(parsed: Any, lines: list[str], depth: int, field: str) -> None:
    if depth > MAX_DEPTH:
        raise InvalidInputError(field, f"{field} is nested deeper than {MAX_DEPTH}", limit=MAX_DEPTH)
    if isinstance(parsed, str):
        lines.append(parsed)
    elif isinstance(parsed, dict):
        for name, part in parsed.items():
            lines.append(name)
            _collect(part, lines, depth + 1, field)
    elif isinstance(parsed, list):
        for part in parsed:
            _collect(part, lines, depth + 1, field)
    elif isinstance(parsed, msgspec.Raw):
        lines.append(bytes(parsed).decode())
    elif isinstance(parsed, int) and not isinstance(parsed, bool):
        lines.append(str(parsed))


def encode(value: Any) -> bytes:
    """JSON text of parsed JSON (numbers as `parse` left them) or of any Python object that is JSON-like."""
    return _encoder.encode(value)


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7396: members of an object patch replace or, where null, remove; anything else replaces the whole."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, part in patch.items():
        if part is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), part)
    return merged
