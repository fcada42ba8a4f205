"""The YAML at the beginning of a Markdown file, as note-taking programs write it: a small part of YAML 1.1, read into JSON.

Mappings and lists in both forms, quoted and plain texts over several lines, and block texts. What stands beyond that
(anchors, tags, comments at the end of a line) stays the text that it is; nothing is ever executed.
"""

import re
from typing import Any

_FENCE = re.compile(r"---[ \t]*")
_ENTRY = re.compile(
    r"""(?P<indent> *)(?P<key>"(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|[^\s#&*!|>'"%@`\[\]{},?:-][^\n]*?|[-?:][^\s:][^\n]*?)"""
    r""" *:(?:[ \t]+(?P<rest>\S.*)|[ \t]*)"""
)
_BLOCK_TEXT = re.compile(r"[|>][+-]?")
_INTEGER = re.compile(r"-?(?:0|[1-9]\d{0,17})")
_FRACTION = re.compile(r"-?(?:0|[1-9]\d{0,8})\.\d{1,6}")
_WORDS: dict[str, bool | None] = {"": None, "~": None, "null": None, "true": True, "false": False}
_ESCAPED = re.compile(r"\\(x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|.)", re.DOTALL)
_ESCAPES = {
    "0": "\0",
    "a": "\a",
    "b": "\b",
    "t": "\t",
    "n": "\n",
    "v": "\v",
    "f": "\f",
    "r": "\r",
    "e": "\x1b",
    " ": " ",
    '"': '"',
    "/": "/",
    "\\": "\\",
    "N": "\x85",
    "_": "\xa0",
    "L": "\u2028",
    "P": "\u2029",
}
# What begins a plain text in no case.
_NOT_PLAIN = tuple("&*!|>%@`\"'[]{},#?")
_MAX_DEPTH = 32
_LAST_CODE_POINT = 0x10FFFF


def front_matter(text: str) -> dict[str, Any]:
    """What stands between the first line and the next one, where both are `---`; empty where that is not so.

    An entry that is beyond this reader is the text of its lines.
    """
    lines = text.removeprefix("\ufeff").splitlines()
    if not lines or not _FENCE.fullmatch(lines[0]):
        return {}
    end = next((number for number, line in enumerate(lines[1:], 1) if _FENCE.fullmatch(line)), None)
    if end is None:
        return {}
    found: dict[str, Any] = {}
    for entry in _entries(lines[1:end]):
        head = _ENTRY.fullmatch(entry[0])
        if head is None:
            # Not a mapping at all: it is part of the note.
            return {}
        name = _key(head["key"])
        try:
            found[name] = _Lines(entry).mapping(0)[name]
        except _BeyondError:
            found[name] = "\n".join([(head["rest"] or "").strip(), *entry[1:]]).strip()
    return found


class _BeyondError(Exception):
    """It is not in the part of YAML that is read here."""


def _entries(lines: list[str]) -> list[list[str]]:
    """The lines of each entry of the outer mapping, without the comments and blank lines before the first."""
    entries: list[list[str]] = []
    for line in lines:
        continues = not line.strip() or line[0] in " \t" or line.startswith("- ") or line == "-"
        if entries and (continues or (line[0] in "]}" and len(line.strip()) == 1)):
            entries[-1].append(line)
        elif line.strip() and not line.startswith("#"):
            entries.append([line])
    return entries


class _Lines:
    """The lines of one entry, read from the first to the last."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines
        self._at = 0
        self._depth = 0

    def mapping(self, indent: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while (line := self._line()) is not None and _indent(line) >= indent:
            head = _ENTRY.fullmatch(line)
            if head is None or len(head["indent"]) != indent:
                raise _BeyondError
            self._at += 1
            found[_key(head["key"])] = self._value((head["rest"] or "").rstrip(), indent)
        return found

    def _list(self, indent: int) -> list[Any]:
        found: list[Any] = []
        while (line := self._line()) is not None and _indent(line) == indent and line[indent:][:2] in {"-", "- "}:
            rest = line[indent + 1 :]
            inner = indent + 1 + _indent(rest)
            if _ENTRY.fullmatch(rest.strip()) and not rest.strip().startswith(('"', "'")):
                # A mapping, whose first entry stands beside the dash.
                self._lines[self._at] = " " * inner + rest.strip()
                found.append(self._deeper(inner, mapping=True))
            elif rest.strip().startswith("- "):
                self._lines[self._at] = " " * inner + rest.strip()
                found.append(self._deeper(inner, mapping=False))
            else:
                self._at += 1
                found.append(self._value(rest.strip(), indent, beside_dash=True))
        return found

    def _deeper(self, indent: int, *, mapping: bool) -> Any:
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise _BeyondError
        found: Any = self.mapping(indent) if mapping else self._list(indent)
        self._depth -= 1
        return found

    def _value(self, rest: str, indent: int, *, beside_dash: bool = False) -> Any:
        """What stands after the colon or the dash; `indent` is of the line that it stands in."""
        if not rest:
            line = self._line()
            if line is None:
                return None
            inner = _indent(line)
            is_list = line[inner:][:2] in {"-", "- "}
            if inner > indent or (is_list and inner == indent and not beside_dash):
                return self._deeper(inner, mapping=not is_list)
            return None
        if _BLOCK_TEXT.fullmatch(rest):
            return self._block(rest, indent)
        if rest[0] in "\"'":
            return _quoted(self._folded(rest, indent, until_quote=rest[0]))
        if rest[0] in "[{":
            return _Flow(self._folded(rest, indent, until_quote=None)).all()
        return _plain(self._folded(rest, indent, until_quote=None))

    def _line(self) -> str | None:
        """The next line that is not blank."""
        while self._at < len(self._lines) and not self._lines[self._at].strip():
            self._at += 1
        return self._lines[self._at] if self._at < len(self._lines) else None

    def _folded(self, first: str, indent: int, *, until_quote: str | None) -> str:
        """A text and the lines that go on with it: a line break is a blank, and each blank line a line break."""
        text, blanks = first, 0
        while self._at < len(self._lines) and not (until_quote is not None and _is_whole(text, until_quote)):
            line = self._lines[self._at]
            if not line.strip():
                blanks += 1
            elif _indent(line) > indent or (until_quote is None and first[0] in "[{" and line.strip() in {"]", "}"}):
                joint = "\n" * blanks or " "
                # A backslash at the end of a line takes the break away.
                text = text[:-1] + line.strip() if until_quote == '"' and _is_cut(text) else text + joint + line.strip()
                blanks = 0
            else:
                break
            self._at += 1
        return text

    def _block(self, how: str, indent: int) -> str:
        lines: list[str] = []
        while self._at < len(self._lines):
            line = self._lines[self._at]
            if line.strip() and _indent(line) <= indent:
                break
            lines.append(line)
            self._at += 1
        first = next((line for line in lines if line.strip()), "")
        inner = _indent(first)
        if any(line.strip() and _indent(line) < inner for line in lines):
            raise _BeyondError
        cut = [line[inner:] if line.strip() else "" for line in lines]
        body = "\n".join(cut)
        if how[0] == ">":
            if any(line.startswith((" ", "\t")) for line in cut):
                raise _BeyondError
            body = re.sub(r"(?<=[^\n])\n(?=[^\n])", " ", body)
            body = re.sub(r"\n(\n+)(?=[^\n])", r"\1", body)
        if how[1:] == "+":
            return body + "\n"
        return body.rstrip("\n") + ("" if how[1:] == "-" or not body.strip("\n") else "\n")


class _Flow:
    """A list or mapping between brackets."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0

    def all(self) -> Any:
        found = self._value("")
        self._blanks()
        if self._at < len(self._text):
            raise _BeyondError
        return found

    def _value(self, ends: str) -> Any:
        self._blanks()
        sign = self._text[self._at : self._at + 1]
        if sign in {"[", "{"}:
            self._depth += 1
            if self._depth > _MAX_DEPTH:
                raise _BeyondError
            self._at += 1
            found: Any = self._list() if sign == "[" else self._mapping()
            self._depth -= 1
            return found
        return self._scalar(ends)

    def _list(self) -> list[Any]:
        found: list[Any] = []
        while not self._ends("]"):
            found.append(self._value(",]"))
            self._comma("]")
        return found

    def _mapping(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        while not self._ends("}"):
            name = self._scalar(":,}")
            if self._text[self._at : self._at + 1] != ":":
                raise _BeyondError
            self._at += 1
            found[str(name)] = self._value(",}")
            self._comma("}")
        return found

    def _scalar(self, ends: str) -> Any:
        self._blanks()
        start = self._at
        quote = self._text[start : start + 1]
        if quote in {'"', "'"}:
            end = start + 1
            while not _is_whole(self._text[start:end], quote) or self._text[end : end + 1] == quote == "'":
                end += 1 + (self._text[end : end + 1] == quote == "'" and _is_whole(self._text[start:end], quote))
                if end > len(self._text):
                    raise _BeyondError
            self._at = end
            self._blanks()
            return _quoted(self._text[start:end])
        while self._at < len(self._text) and self._text[self._at] not in ends:
            if self._text[self._at] in "[]{}":
                raise _BeyondError
            self._at += 1
        return _plain(self._text[start : self._at].strip())

    def _ends(self, sign: str) -> bool:
        self._blanks()
        if self._at >= len(self._text):
            raise _BeyondError
        if self._text[self._at] != sign:
            return False
        self._at += 1
        return True

    def _comma(self, end: str) -> None:
        self._blanks()
        sign = self._text[self._at : self._at + 1]
        if sign == ",":
            self._at += 1
        elif sign != end:
            raise _BeyondError

    def _blanks(self) -> None:
        while self._at < len(self._text) and self._text[self._at].isspace():
            self._at += 1


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _key(text: str) -> str:
    return _quoted(text) if text[0] in "\"'" else text


def _is_whole(text: str, quote: str) -> bool:
    """Whether a text that begins with that quote has ended."""
    if quote == "'":
        return len(text) > 1 and text[1:].replace("''", "").endswith("'")
    return len(text) > 1 and re.fullmatch(r'"(?:[^"\\]|\\.)*"', text, re.DOTALL) is not None


def _is_cut(text: str) -> bool:
    return (len(text) - len(text.rstrip("\\"))) % 2 == 1


def _quoted(text: str) -> str:
    if not _is_whole(text, text[0]):
        raise _BeyondError
    inner = text[1:-1]
    if text[0] == "'":
        if inner.replace("''", "").count("'"):
            raise _BeyondError
        return inner.replace("''", "'")
    return _ESCAPED.sub(_unescaped, inner)


def _unescaped(found: re.Match[str]) -> str:
    sign = found[1]
    if sign[0] in "xuU" and len(sign) > 1:
        code = int(sign[1:], 16)
        if code > _LAST_CODE_POINT or 0xD800 <= code < 0xE000:  # noqa: PLR2004 - the surrogates
            raise _BeyondError
        return chr(code)
    if sign not in _ESCAPES:
        raise _BeyondError
    return _ESCAPES[sign]


def _plain(text: str) -> Any:
    if text.startswith(_NOT_PLAIN) or ": " in text or " #" in text or text.endswith(":"):
        raise _BeyondError
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _FRACTION.fullmatch(text) else text
