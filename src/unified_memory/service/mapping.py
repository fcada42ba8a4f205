"""From a record of another program to the memory that it is here: where it lies, and what is said of it."""

import re
import tomllib
from collections.abc import Mapping as Members
from decimal import Decimal, InvalidOperation
from hashlib import blake2b
from pathlib import Path
from string import Formatter
from typing import Any

import msgspec
from msgspec import Raw, Struct

from unified_memory.model.errors import InvalidInputError
from unified_memory.model.memory import SERVICE_FIELDS, pack_attributes
from unified_memory.model.namespace import check_namespace
from unified_memory.model.search import describe
from unified_memory.model.value import parse
from unified_memory.service.bank import file_key
from unified_memory.service.drafting import MAX_NAME
from unified_memory.service.graph import NAMESPACE as GRAPH
from unified_memory.service.labels import CONTEXT_PREFIX, MARK
from unified_memory.service.projects import PROJECTS, project_namespace
from unified_memory.sources.base import LEGACY_CREATED_AT, LEGACY_ID, Item, Shape
from unified_memory.storage.base import Draft, Origin

MIGRATED_EXTENDED = "migrated_extended"
MIGRATED_BANK = "migrated_bank"
MIGRATED_FROM = "migrated_from"
# The number by which the older service knew a context, where another memory has that number here.
FORMER_ID = "former_id"
# Facts of a source that bear the names of what every memory says of itself.
RENAMED = "source_"
_OWN = frozenset(("tags", "importance", "session_id", "project_id", MIGRATED_FROM, *SERVICE_FIELDS))
_FIELDS = frozenset(("project", "kind", "service", "shape", "namespace"))
LEAST, MOST = 1, 10
DIGEST_BYTES = 16
_MARK_BYTES = 4

# As for the files of a bank (service/bank.py), without what keeps those apart from contexts.
_LIKE_ESCAPE = re.compile(r"%(?=(?:25)*00)|\A%(?=(?:25)*\Z)")
_ESCAPE = re.compile(r"%(?:(00)|25(?=(?:25)*00))|\A%25(?=(?:25)*\Z)")


class Mapping(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What may be said of how records become memories. By default nothing, and the tools find them where they look.

    `namespace_template`: where everything goes, such as `imported/{service}/{project}`; with {project}, {kind}, {service},
    {shape} and {namespace} (where it would have gone). `namespaces`: such templates by kind of source or by shape, which go
    first. `projects`: other names for projects. `tags`: added to each. `metadata`: added to each. `importance`: by kind or shape.
    """

    namespace_template: str | None = None
    namespaces: dict[str, str] = {}
    projects: dict[str, str] = {}
    tags: tuple[str, ...] = ()
    metadata: dict[str, Any] = {}
    importance: dict[str, int] = {}

    def check(self) -> None:
        """Raises InvalidInputError naming what cannot be."""
        templates = {f"namespaces.{name}": template for name, template in self.namespaces.items()}
        if self.namespace_template is not None:
            templates["namespace_template"] = self.namespace_template
        for field, template in templates.items():
            _check_template(field, template)
        for name, importance in self.importance.items():
            if not LEAST <= importance <= MOST:
                raise InvalidInputError(f"importance.{name}", f"importance.{name} must be from {LEAST} to {MOST}")
        for name in self.metadata:
            if name in _OWN:
                raise InvalidInputError(f"metadata.{name}", f"metadata.{name} is what a memory says of itself")


def read_mapping(path: Path) -> Mapping:
    """The mapping that a file of TOML or JSON says. Raises InvalidInputError naming `mapping` or the member that cannot be."""
    try:
        data = path.read_bytes()
        told = tomllib.loads(data.decode()) if path.suffix == ".toml" else msgspec.json.decode(data)
        mapping = msgspec.convert(told, Mapping)
    except OSError as error:
        raise InvalidInputError("mapping", f"The mapping {path} cannot be read: {error.strerror or error}") from None
    except (ValueError, msgspec.MsgspecError) as error:
        raise InvalidInputError("mapping", f"The mapping {path} is none: {error}") from None
    mapping.check()
    return mapping


def digest_of(item: Item) -> bytes:
    """16 bytes that differ where a record differs in anything but how often it was read."""
    told = msgspec.structs.replace(item, access_count=0, last_accessed=None)
    return blake2b(msgspec.msgpack.encode(told), digest_size=DIGEST_BYTES).digest()


def mark_of(item: Item) -> str:
    """Eight hexadecimal digits of what a context says and when it was created, as its service wrote it."""
    told = str(item.facts.get(LEGACY_CREATED_AT, "")).encode(errors="surrogatepass")
    return blake2b(told + b"\0" + item.value, digest_size=_MARK_BYTES).hexdigest()


def place_of(item: Item, kind: str, mapping: Mapping) -> tuple[str, str]:
    """The (namespace, key) of the memory that a record becomes. Raises UnicodeEncodeError for a lone surrogate in a name,
    InvalidInputError where no namespace can be named so.
    """
    project = None if item.project is None else mapping.projects.get(item.project, item.project)
    namespace = usual = _usual_namespace(item, project, kind)
    template = mapping.namespaces.get(kind) or mapping.namespaces.get(item.shape) or mapping.namespace_template
    apart = True
    if template is not None:
        namespace = _filled(template, item, project, kind, usual)
        apart = "{project}" in template or "{namespace}" in template
    key = _key(item)
    if not apart and project is not None and item.shape in {"file", "record"}:
        key = f"{_escaped_project(project)}/{key}"
    key.encode()
    return check_namespace(namespace), key


def draft_of(item: Item, key: str, kind: str, mapping: Mapping, now: int, *, former: bool = False) -> Draft:
    """What is stored of a record. `former`: its number is another memory's here.

    Raises InvalidInputError where its value is nested too deeply or no JSON, UnicodeEncodeError for a lone surrogate.
    """
    tags = tuple(dict.fromkeys((*item.tags, *mapping.tags)))
    facts: dict[str, Any] = {MIGRATED_FROM: item.service}
    for name, fact in item.facts.items():
        facts[f"{RENAMED}{name}" if name in _OWN else name] = fact
    if former:
        facts = {FORMER_ID if name == LEGACY_ID else name: fact for name, fact in facts.items()}
    session_id, project_id = item.session_id, item.project
    if session_id is not None and not _is_name(session_id):
        facts[f"{RENAMED}session_id"], session_id = session_id, None
    if project_id is not None and not _is_name(project_id):
        project_id = None
    attributes = pack_attributes(tags, {**facts, **mapping.metadata})
    d = describe(key, attributes, parse(item.value))
    importance = mapping.importance.get(kind, mapping.importance.get(item.shape, item.importance))
    updated_at = item.updated_at if item.updated_at is not None else item.created_at
    created_at = item.created_at if item.created_at is not None else updated_at
    return Draft(
        value=item.value,
        attributes=attributes,
        tags=tags,
        importance=min(MOST, max(LEAST, importance)),
        session_id=session_id,
        project_id=project_id,
        expires_at=item.expires_at,
        text=d.text,
        title_text=d.title_text,
        keywords=d.keywords,
        content_hash=d.content_hash,
        origin=Origin(
            now if created_at is None else created_at,
            now if updated_at is None else updated_at,
            item.access_count,
            item.last_accessed,
        ),
    )


def item_label(item: Item) -> str | None:
    """The number by which the older tools know a context, as JSON text; None where they know it by its place."""
    if item.shape != "context" or LEGACY_ID not in item.facts:
        return None
    return msgspec.json.encode(item.facts[LEGACY_ID]).decode()


def entry_key(key: str) -> str:
    """The key here of an entry: its own, in which NUL is `%00`, and `%` is `%25` where an escape could be read into it; the
    empty key is `%`.
    """
    return _LIKE_ESCAPE.sub("%25", key).replace("\0", "%00") if key else "%"


def entry_of(key: str) -> str:
    """The key that an entry has in the older service."""
    return "" if key == "%" else _ESCAPE.sub(lambda found: "\0" if found[1] else "%", key)


def content_of(value: bytes) -> str:
    """What a service of texts holds of a value: the text that it is, else its JSON text."""
    return msgspec.json.decode(value, type=str) if value.startswith(b'"') else value.decode()


def says_the_same(item: Item, value: bytes) -> bool:
    """Whether a record is that value, however its service spells it: blanks, escapes, numbers (1.50 is 1.5) and the order of
    names tell nothing. In a service of texts, which has no JSON, a value that is no text is its JSON text.
    """
    if item.value == value or (item.shape in {"context", "file"} and content_of(item.value) == content_of(value)):
        return True
    try:
        return _is_alike(parse(item.value), parse(value))
    except InvalidInputError:
        return False


def shape_of(namespace: str, key: str) -> Shape | None:
    """What a memory that was first here would be in an older service; None where it would be nowhere."""
    if namespace == MIGRATED_EXTENDED:
        return "entry"
    if namespace.partition("/")[0] != PROJECTS or namespace == PROJECTS:
        return None
    return "context" if key.startswith(CONTEXT_PREFIX) else "file"


def clamped(importance: Any) -> int:
    """1 to 10 of whatever an older service took for an importance: numbers downwards, texts of digits, true; else 5."""
    if isinstance(importance, str) and re.fullmatch(r"\s*[+-]?[0-9]+\s*", importance):
        digits = importance.strip()
        importance = int(digits) if len(digits) <= MAX_NAME else LEAST if digits.startswith("-") else MOST
    if isinstance(importance, bool):
        return LEAST if importance else (LEAST + MOST) // 2
    if not isinstance(importance, int | float) or importance != importance:  # noqa: PLR0124 - NaN alone differs from itself
        return (LEAST + MOST) // 2
    return int(min(MOST, max(LEAST, importance)))


# ---- within
def _is_alike(one: Any, other: Any) -> bool:
    """Whether both are the same JSON. Numbers are compared exactly, with as many digits as they have."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_is_alike(part, other[name]) for name, part in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_is_alike, one, other))
    if _is_number(one) and _is_number(other):
        return _number(one) == _number(other)
    return type(one) is type(other) and bool(one == other)


def _is_number(parsed: Any) -> bool:
    return isinstance(parsed, int | Raw) and not isinstance(parsed, bool)


def _number(parsed: int | Raw) -> Decimal | str:
    if isinstance(parsed, int):
        return Decimal(parsed)
    digits = bytes(parsed).decode()
    try:
        return Decimal(digits)
    except InvalidOperation:
        # Its exponent is one that nothing computes with.
        return digits


def _usual_namespace(item: Item, project: str | None, kind: str) -> str:
    if item.shape in {"context", "file"}:
        if project is not None:
            return project_namespace(project)
        return MIGRATED_EXTENDED if item.shape == "context" else MIGRATED_BANK
    if item.shape == "entry":
        return item.namespace or MIGRATED_EXTENDED
    if item.namespace:
        return item.namespace
    root = f"migrated_{kind.replace('-', '_')}"
    return root if project is None else f"{root}/{_escaped_project(project)}"


def _key(item: Item) -> str:
    if item.shape == "context":
        return f"{CONTEXT_PREFIX}{item.key}{MARK}{mark_of(item)}"
    if item.shape == "record" and item.namespace == GRAPH:
        # The graph has its own escapes, in which a source names its parts already.
        return item.key
    return file_key(item.key) if item.shape == "file" else entry_key(item.key)


def _escaped_project(project: str) -> str:
    return project_namespace(project).removeprefix(f"{PROJECTS}/")


def _filled(template: str, item: Item, project: str | None, kind: str, usual: str) -> str:
    """The template with its fields filled in; a segment that would name a project where there is none is left out."""
    named = {"kind": kind, "service": item.service, "shape": item.shape, "namespace": usual}
    named["project"] = "" if project is None else _escaped_project(project)
    segments = (one for one in template.split("/") if project is not None or "{project}" not in one)
    return "/".join(one.format_map(named) for one in segments) or usual


def _check_template(field: str, template: str) -> None:
    try:
        parts = [part for part in Formatter().parse(template) if part[1] is not None]
    except ValueError as error:
        raise InvalidInputError(field, f"{field} is no template: {error}") from None
    if any(spec or conversion for _, _, spec, conversion in parts):
        raise InvalidInputError(field, f"{field} says how a field is to be spelled, which no template can")
    fields = {name for _, name, _, _ in parts if name is not None}
    if unknown := fields - _FIELDS:
        raise InvalidInputError(
            field,
            f"{field} has no such field: {', '.join(sorted(unknown))}",
            hint="{" + "}, {".join(sorted(_FIELDS)) + "}",
        )
    check_namespace(template.format_map(dict.fromkeys(_FIELDS, "x")), field)


def _is_name(text: str) -> bool:
    return 0 < len(text) <= MAX_NAME and "\0" not in text


def facts_of(attributes: bytes) -> Members[str, Any]:
    """The metadata of its own that a memory has."""
    told: dict[str, Any] = msgspec.json.decode(attributes)
    told.pop("tags", None)
    return told
