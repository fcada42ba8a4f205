"""Projects of the older services: namespaces below `projects`, one for each, whatever characters its name has."""

import re
from urllib.parse import unquote

from unified_memory.model.namespace import MAX_SEGMENT_BYTES

PROJECTS = "projects"
_UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029/%]|^\s|\s$")
# Where a name is cut any blank may come to stand at an end.
_UNFIT_AT_ENDS = re.compile(r"\s")
_DOTS = {"": "%", ".": "%2E", "..": "%2E%2E"}


def project_namespace(project: str) -> str:
    """The namespace of a project: `projects/` and its name, in which what no segment can hold is percent-encoded.

    The empty name is `%`. Names too long for a segment go on in a further one, after a `%` that ends each but the last.
    Raises UnicodeEncodeError for a lone surrogate.
    """
    name = _DOTS.get(project) or _escaped(_UNFIT, project)
    if len(name.encode()) > MAX_SEGMENT_BYTES:
        name = _escaped(_UNFIT_AT_ENDS, name)
    parts: list[str] = []
    while len(name.encode()) > MAX_SEGMENT_BYTES:
        cut = _cut(name)
        parts.append(name[:cut] + "%")
        name = name[cut:]
    return "/".join([PROJECTS, *parts, name])


def project_of(namespace: str) -> str | None:
    """The project whose namespace it is; None where it is none."""
    root, _, rest = namespace.partition("/")
    if root != PROJECTS or not rest:
        return None
    if rest == "%":
        return ""
    *parts, last = rest.split("/")
    if not all(part.endswith("%") for part in parts):
        return None
    return unquote("".join([*(part[:-1] for part in parts), last]))


def _escaped(unfit: re.Pattern[str], text: str) -> str:
    return unfit.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), text)


def _cut(name: str) -> int:
    """Where a segment that leaves room for `%` may end: between two characters, in no escape."""
    cut = len(name.encode()[: MAX_SEGMENT_BYTES - 1].decode(errors="ignore"))
    escape = name.rfind("%", cut - 2, cut)
    return cut if escape < 0 else escape
