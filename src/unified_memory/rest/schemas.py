"""What goes in and out, as JSON Schema (2020-12): requests from their structs, answers written here once."""

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import UNSET, Raw

from unified_memory.model.history import Kind
from unified_memory.model.job import JobState
from unified_memory.model.memory import SERVICE_FIELDS
from unified_memory.model.query import DEFAULT_LIMIT, MAX_FILTER_NODES, MAX_LIMIT, MAX_LIST, Op
from unified_memory.model.session import WithMemories
from unified_memory.rest.exchange import DEFAULT_WAIT_SECONDS, MAX_WAIT_SECONDS
from unified_memory.rest.transfer import ON_CONFLICT
from unified_memory.service.changeover import Finished, RolledBack
from unified_memory.service.migration import Plan, Status, Verification
from unified_memory.service.namespaces import MAX_HISTORY_DAYS, MAX_HISTORY_KEEP
from unified_memory.service.reporting import Report

Schema = dict[str, Any]


def ref(name: str) -> Schema:
    """A schema by its name."""
    return {"$ref": f"#/components/schemas/{name}"}


def nullable(schema: Schema) -> Schema:
    """That, or null."""
    kind = schema.get("type")
    return {**schema, "type": [kind, "null"]} if isinstance(kind, str) else {"anyOf": [schema, {"type": "null"}]}


def array(items: Schema, **more: Any) -> Schema:
    """An array of that."""
    return {"type": "array", "items": items, **more}


def record(optional: Schema | None = None, /, **members: Schema) -> Schema:
    """An object with these members, and perhaps the optional ones."""
    return {"type": "object", "properties": {**members, **(optional or {})}, "required": list(members)}


def told(description: str, schema: Schema) -> Schema:
    """The schema with a sentence."""
    return {"description": description, **schema}


def page(name: str, items: Schema, optional: Schema | None = None, **more: Schema) -> Schema:
    """A page of a listing."""
    cursor = nullable({"type": "string", "description": "Asks for the next page; null: this is the last one"})
    return record(optional, **{name: array(items)}, next_cursor=cursor, **more)


TEXT: Schema = {"type": "string"}
INTEGER: Schema = {"type": "integer"}
COUNT: Schema = {"type": "integer", "minimum": 0}
BOOLEAN: Schema = {"type": "boolean"}
ANY: Schema = {"description": "Any JSON"}
_LIMIT: Schema = {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT}

# A namespace's segment as `model.namespace` checks it: no slash, no control character, no blank at its ends, not . or ..
_FORBIDDEN = r"/\x00-\x1f\x7f-\x9f\u2028\u2029"
_BLANK = r"\x20\xa0\u1680\u2000-\u200a\u202f\u205f\u3000"
_INNER, _END = f"[^{_FORBIDDEN}]", f"[^{_FORBIDDEN}{_BLANK}]"
_UNDOTTED, _UNDOTTED_END = f"[^{_FORBIDDEN}.]", f"[^{_FORBIDDEN}{_BLANK}.]"
_SEGMENT = (
    rf"(?:{_UNDOTTED_END}(?:{_INNER}*{_END})?|\.(?:{_UNDOTTED_END}|{_UNDOTTED}{_INNER}*{_END}|\.{_INNER}*{_END}))"
)

NAMES: dict[str, Schema] = {
    "Key": {
        "type": "string",
        "minLength": 1,
        "maxLength": 4096,
        "pattern": r"^[^\x00]+$",
        "description": "The caller's own name of a memory, unique in its namespace: up to 4,096 bytes of UTF-8, any "
        "characters but NUL.",
    },
    "NamespaceName": {
        "type": "string",
        "minLength": 1,
        "maxLength": 4095,
        "pattern": rf"^{_SEGMENT}(?:/{_SEGMENT}){{0,15}}$",
        "description": "A path of up to 16 segments of up to 255 bytes each, like `acme/web/auth`. Segments hold no "
        "control characters, have no blanks at their ends, and are not `.` or `..`.",
    },
    "Name": {
        "type": "string",
        "minLength": 1,
        "maxLength": 255,
        "pattern": r"^[^\x00]+$",
        "description": "The id of a session, project or cluster: up to 255 characters, any but NUL.",
    },
    "Tag": {"type": "string", "minLength": 1, "maxLength": 1024, "pattern": r"^[^\x00]*[^\x00\s][^\x00]*$"},
    "Instant": {
        "type": "string",
        "format": "date-time",
        "description": "RFC 3339; answered in UTC with six digits and `Z`, so that text order is time order.",
    },
    "Metadata": {
        "type": "object",
        "description": "Facts about the memory: those below, and any others of the caller's own. What the service "
        "writes itself cannot be sent.",
        "properties": {
            "tags": nullable(array({"$ref": "#/components/schemas/Tag"}, maxItems=256)),
            "importance": {"type": ["integer", "null"], "minimum": 1, "maximum": 10, "default": 5},
            "session_id": nullable({"$ref": "#/components/schemas/Name"}),
            "project_id": nullable({"$ref": "#/components/schemas/Name"}),
        },
        "additionalProperties": True,
        "propertyNames": {"not": {"enum": list(SERVICE_FIELDS)}},
    },
}

# ---- the filter grammar of model.query
_NUMBER: Schema = {"type": "number"}
_SCALAR: Schema = {"type": ["string", "number", "boolean", "null"]}
_HASH: Schema = {"type": "string", "pattern": "^[0-9a-fA-F]{64}$"}
_EQUAL = (Op.EQ, Op.NE, Op.IN, Op.NIN)
_ORDER = (Op.GT, Op.GTE, Op.LT, Op.LTE, Op.BETWEEN)


def _tests(kind: Schema, operators: Iterable[Op], *, ordered: Schema | None = None) -> Schema:
    """What may be asked of a field of that kind: a scalar (equal to it), or operators with their operands."""
    operands: dict[str, Schema] = {Op.EXISTS.value: BOOLEAN}
    for op in operators:
        one = nullable(kind) if op in _EQUAL and kind is not _SCALAR else kind
        if ordered is not None and op in _ORDER:
            one = ordered
        if op in {Op.IN, Op.NIN}:
            one = array(one, maxItems=MAX_LIST)
        elif op is Op.BETWEEN:
            one = array(one, minItems=2, maxItems=2)
        operands[op.value] = {"type": "string"} if op is Op.STARTSWITH else one
    asked: Schema = {"type": "object", "properties": operands, "additionalProperties": False, "minProperties": 1}
    scalar = nullable(kind) if kind is not _SCALAR else kind
    return {"anyOf": [scalar, asked]} if Op.EQ in operators else asked


_INSTANT = ref("Instant")
_FIELDS: dict[str, tuple[str, ...]] = {
    "NumberTests": ("id", "version", "importance", "access_count"),
    "TextTests": ("key", "namespace", "tier", "session_id", "project_id"),
    "InstantTests": ("created_at", "updated_at", "expires_at", "last_accessed"),
    "HashTests": ("content_hash",),
    "TagTests": ("tags",),
}
_METADATA_FIELDS = "importance|session_id|project_id|tags|created_at|updated_at|expires_at|access_count|last_accessed"
# A path into JSON: names, "quoted names" and [places], joined by dots.
_PART = r'(?:"[^"\\\x00]+"|\[[0-9]{1,9}\]|[^."\[\]\\\x00]+)'
_PATH = rf"{_PART}(?:\.?{_PART}){{0,31}}"
_ANY_PATH = rf"value(?:\.{_PATH}|\[[0-9]{{1,9}}\](?:\.?{_PART}){{0,31}})?|metadata\.{_PATH}"

FILTERS: dict[str, Schema] = {
    "Filter": {
        "type": "object",
        "minProperties": 1,
        "description": "`and`, `or` and `not` of filters, and tests of fields; all members must hold. Fields: those of "
        "the record by name (those in `metadata` also as `metadata.NAME`), and paths into the value and into the "
        'caller\'s own metadata: `value.a.b`, `value.items[0]`, `value."a name"`, `metadata.author`. Values are '
        "compared only with values of the same JSON type; `ne` and `nin` match where the field is missing. At most "
        f"{MAX_FILTER_NODES} parts.",
        "properties": {
            "and": array(ref("Filter"), minItems=1),
            "or": array(ref("Filter"), minItems=1),
            "not": ref("Filter"),
            **{field: ref(kind) for kind, fields in _FIELDS.items() for field in fields},
        },
        "patternProperties": {
            rf"^(?:value|metadata\.(?!(?:{_METADATA_FIELDS})$))": {
                **ref("AnyTests"),
                "title": "value, value.PATH, metadata.PATH",
            }
        },
        "propertyNames": {
            "pattern": rf"^(?:and|or|not|{'|'.join(f for fields in _FIELDS.values() for f in fields)}|{_ANY_PATH})$"
        },
    },
    "NumberTests": _tests(_NUMBER, (*_EQUAL, *_ORDER)),
    "TextTests": _tests(TEXT, (*_EQUAL, *_ORDER, Op.CONTAINS, Op.STARTSWITH)),
    "InstantTests": _tests(_INSTANT, (*_EQUAL, *_ORDER)),
    "HashTests": _tests(_HASH, _EQUAL),
    "TagTests": _tests(TEXT, (Op.CONTAINS,)),
    "AnyTests": _tests(_SCALAR, (*_EQUAL, *_ORDER, Op.CONTAINS, Op.STARTSWITH), ordered={"type": ["string", "number"]}),
}
_ORDERS = "|".join(field for kind in ("NumberTests", "TextTests", "InstantTests") for field in _FIELDS[kind])
_ORDER_BY: Schema = {
    "type": "string",
    "default": "id",
    "pattern": rf"^-?(?:{_ORDERS}|{_ANY_PATH})$",
    "description": "A field; with `-` before it the other way round. What has no such field comes last.",
}
_FIELD: Schema = {"type": "string", "pattern": rf"^(?:{_ORDERS}|content_hash|tags|{_ANY_PATH})$"}

# ---- what the structs of the requests cannot say: by struct and member
_TTL: Schema = {
    "type": "number",
    "exclusiveMinimum": 0,
    "description": "Seconds to live from now; null: for ever. Not together with `expires_at`.",
}
_EXPIRES: Schema = {**_INSTANT, "description": "When it expires, in the future; null: never. Not together with `ttl`."}
_EXPECTED: Schema = {
    "type": "integer",
    "minimum": 0,
    "description": "The version that must be the current one; 0: there must be none. 409 otherwise.",
}
_SCOPE: Schema = {**ref("NamespaceName"), "description": "Only there, and with `recursive` below it; null: everywhere"}
_CURSOR: Schema = {"type": "string", "description": "`next_cursor` of the page before, with all else unchanged"}
_TAGS: Schema = array(ref("Tag"), maxItems=256)
_KEYS: Schema = {"minItems": 1, "maxItems": 1000}
_FOUND: Schema = {
    "namespace": _SCOPE,
    "filter": {"anyOf": [ref("Filter"), {"maxProperties": 0}], "description": "Nothing in it, or null: no filter"},
    "cursor": _CURSOR,
    "limit": _LIMIT,
}
_NARROWED: dict[str, Schema] = {
    "tags": {**_TAGS, "description": "All of them"},
    "importance_min": {"minimum": 1, "maximum": 10},
    "session_id": ref("Name"),
    "project_id": ref("Name"),
    "since": {
        "maxLength": 200,
        "description": 'Changed then or later: an instant, a duration back from now ("7d"), or words',
    },
    "until": {"maxLength": 200, "description": "Changed then or earlier, as `since`"},
    "min_score": {"description": "Nothing that scores less"},
}
_SHOWN: dict[str, Schema] = {
    "mode": {"enum": ["auto", "fulltext", "semantic", "hybrid"], "description": "By words, by meaning, or by both"},
    "explain": {"description": "Tell what each score is made of"},
    "collapse": {"description": "Show near-duplicates as one, the newest"},
    "content": {"description": "The value, its best passages where it is long, or none"},
    "max_tokens": {"minimum": 1, "description": "Bounds the answer; 4 bytes count as one token"},
}
_CHANGED: Schema = {
    "ttl": _TTL,
    "expires_at": _EXPIRES,
    "metadata": {**ref("Metadata"), "description": "Merged into what is there; null removes a field"},
}
_AMOUNTS: Schema = {"minProperties": 1, "additionalProperties": {"type": "number"}}
_PATHS: Schema = {"propertyNames": {"pattern": rf"^(?:{_PATH})?$"}}
CONSTRAINTS: dict[str, dict[str, Schema]] = {
    "StoreRequest": {
        "value": ANY,
        "key": ref("Key"),
        "namespace": ref("NamespaceName"),
        "ttl": _TTL,
        "expires_at": _EXPIRES,
        "metadata": ref("Metadata"),
        "expected_version": _EXPECTED,
    },
    "UpdateRequest": {
        **_CHANGED,
        "value": {"description": "The new value, any JSON"},
        "namespace": {**ref("NamespaceName"), "description": "Instead of the query parameter"},
        "expected_version": {**_EXPECTED, "minimum": 1},
    },
    "PatchRequest": {
        "namespace": {**ref("NamespaceName"), "description": "Instead of the query parameter"},
        "merge": {"description": "A JSON merge patch (RFC 7396) of the value"},
        "append": {**_PATHS, "minProperties": 1, "description": "By path: what is put at the end of the list there"},
        "increment": {**_PATHS, **_AMOUNTS, "description": "By path: what is added to the number there"},
        "expected_version": {**_EXPECTED, "minimum": 1},
    },
    "KeyRef": {"key": ref("Key"), "namespace": ref("NamespaceName")},
    "BatchStoreRequest": {"memories": _KEYS},
    "BatchKeysRequest": {"keys": _KEYS},
    "Place": {"namespace": ref("NamespaceName"), "key": ref("Key")},
    "MoveRequest": {"expected_version": {**_EXPECTED, "minimum": 1}},
    "Changes": {
        **_CHANGED,
        "add_tags": _TAGS,
        "remove_tags": {"description": "Those that are not there do not matter"},
    },
    "UpdateWhereRequest": {"filter": ref("Filter"), "namespace": _SCOPE},
    "DeleteWhereRequest": {"filter": ref("Filter"), "namespace": _SCOPE},
    "RankOptions": {
        "recency_half_life": {
            "description": 'Seconds or a duration ("30d") after which an unchanged memory has lost a quarter of its score; it '
            "loses half in the end. 0: age does not count"
        },
        "importance": {
            "minimum": 0,
            "maximum": 1,
            "description": "What the ends of the scale of importance add or take, as a share of the score",
        },
    },
    "SearchQuery": {
        **_FOUND,
        **_NARROWED,
        **_SHOWN,
        "query": {"minLength": 1, "pattern": r"\S", "description": 'Words, "phrases", prefix*, -not'},
    },
    "SimilarQuery": {
        **_FOUND,
        **_NARROWED,
        **_SHOWN,
        "key": {**ref("Key"), "description": "The memory that others are to be like; either it or `text`"},
        "key_namespace": ref("NamespaceName"),
        "text": {"minLength": 1, "description": "What they are to be like"},
    },
    "MessageText": {
        "content": {"description": "A text, or parts of which those with a text count; other members do not matter"}
    },
    "RecallQuery": {
        "namespace": _SCOPE,
        **_NARROWED,
        "messages": {"minItems": 1, "description": "The last messages of a conversation, oldest first"},
        "exclude_session": {**ref("Name"), "description": "Memories of this session are not told"},
        "mode": _SHOWN["mode"],
        "limit": _FOUND["limit"],
        "max_tokens": {"minimum": 1, "description": "Bounds the answer; 4 bytes count as one token"},
    },
    "ExactQuery": {
        **_FOUND,
        "order_by": _ORDER_BY,
        "select": array(_FIELD, description="Answer with rows of these fields"),
        "count": {"description": "Tell also how many there are in all"},
        "group_by": {**_FIELD, "pattern": rf"^(?:{_ORDERS}|tags|{_ANY_PATH})$", "description": "Count by this field"},
    },
    "NamespaceRequest": {"name": ref("NamespaceName"), "config": ref("NamespaceConfig")},
    "NamespaceConfig": {
        "default_ttl": {"exclusiveMinimum": 0, "exclusiveMaximum": 10**15, "description": "Seconds"},
        "max_memories": {"minimum": 1, "exclusiveMaximum": 10**15},
        "max_bytes": {"minimum": 1, "exclusiveMaximum": 10**15, "description": "Of values"},
        "demote_after": {
            "exclusiveMinimum": 0,
            "exclusiveMaximum": 10**15,
            "description": "Seconds without use after which a value is archived; null: never",
        },
        "history_keep": {
            "minimum": 0,
            "maximum": MAX_HISTORY_KEEP,
            "description": "How many former versions of each memory are kept; null: all, 0: none",
        },
        "history_days": {
            "minimum": 0,
            "maximum": MAX_HISTORY_DAYS,
            "description": "For how many days former versions are kept; null: for ever, 0: not at all",
        },
        "language": {"description": "How words are compared: english (where nothing is said), german, …, or none"},
        "description": {"maxLength": 4096},
    },
    "SessionRequest": {
        "id": ref("Name"),
        "namespace": ref("NamespaceName"),
        "cluster_id": {**ref("Name"), "description": "Sessions of one cluster share their memories"},
        "project_id": ref("Name"),
        "ttl": {"exclusiveMinimum": 0, "maximum": 10**10, "description": "Seconds since its last use"},
        "metadata": {"additionalProperties": True, "description": "Anything"},
    },
    "ArchiveRequest": {
        "namespace": ref("NamespaceName"),
        "recursive": {"description": "Those below it, too"},
        "dry_run": {"description": "Only tell what would move"},
    },
    "BackupRequest": {
        "parent": {
            "minLength": 1,
            "description": "Hold only what changed since this backup; `latest`: since the newest",
        },
        "note": {"description": "What it is for"},
    },
    "RestoreRequest": {
        "backup_id": {"minLength": 1},
        "mode": {
            "description": "replace: all is as in the backup. merge: what is missing here, or older, comes from it. namespace: "
            "one namespace, with all below it, is as in the backup"
        },
        "namespace": {**ref("NamespaceName"), "description": "For the mode `namespace`"},
        "target": {**ref("NamespaceName"), "description": "For the mode `namespace`: what it is called here"},
        "as_of": {
            "minLength": 1,
            "description": "An earlier backup of the chain, or the last of the chain that was made at that instant or before",
        },
        "dry_run": {"description": "Only tell what would change"},
        "safety": {"description": "First make a backup of what is there now"},
    },
    "RestoreVersionRequest": {
        "key": ref("Key"),
        "namespace": ref("NamespaceName"),
        "version": {
            "minimum": 1,
            "description": "Null: the one before the current one, or the last of a deleted memory",
        },
        "expected_version": _EXPECTED,
    },
    "RedactRequest": {
        "key": ref("Key"),
        "namespace": ref("NamespaceName"),
        "version": {"minimum": 1, "description": "Null: all of them, the current one too"},
    },
    "ModeRequest": {"reason": {"description": "Told to everyone whose write is refused"}},
}
# What holds between members, and what is said of the whole.
_NOT_BOTH: Schema = {"not": {"required": ["ttl", "expires_at"]}}
BETWEEN: dict[str, Schema] = {
    "StoreRequest": _NOT_BOTH,
    "UpdateRequest": _NOT_BOTH,
    "Changes": _NOT_BOTH,
    "PatchRequest": {
        "anyOf": [
            {"required": ["merge"]},
            *({"required": [name], "properties": {name: {"type": "object"}}} for name in ("append", "increment")),
        ]
    },
    "ExactQuery": {"description": "A query by exact filter"},
    "MoveRequest": {
        "oneOf": [
            {"properties": {end: {"required": ["key"], "properties": {"key": TEXT}} for end in ("from", "to")}},
            {"properties": {end: {"properties": {"key": {"type": "null"}}} for end in ("from", "to")}},
        ]
    },
}


def requests(structs: Iterable[type]) -> dict[str, Schema]:
    """The schemas of the requests and of what they hold, by name."""
    _, found = msgspec.json.schema_components(
        [_without_raw_defaults(struct) for struct in structs], ref_template="#/components/schemas/{name}"
    )
    schemas: dict[str, Schema] = dict(found)
    for name, members in CONSTRAINTS.items():
        for member, constraint in members.items():
            told = schemas[name]["properties"][member]
            # Of what may be null the constraint is on the other branch.
            branch = next((one for one in told.get("anyOf", ()) if one.get("type") != "null"), told)
            branch.update(constraint)
            if branch is not told and "description" in constraint:
                told["description"] = branch.pop("description")
        schemas[name].update(BETWEEN.get(name, {}))
    return schemas


def _without_raw_defaults(struct: type) -> type:
    """The struct itself, or one like it: msgspec cannot write down a default that is JSON text."""
    fields = msgspec.structs.fields(struct)
    if not any(isinstance(field.default, Raw) for field in fields):
        return struct
    told = [
        (f.name, f.type) if f.required else (f.name, f.type, UNSET if isinstance(f.default, Raw) else f.default)
        for f in fields
    ]
    return msgspec.defstruct(struct.__name__, told, forbid_unknown_fields=True, namespace={"__doc__": struct.__doc__})


def structs(prefix: str, kinds: Iterable[type]) -> dict[str, Schema]:
    """The schemas of answers that are sent as the structs stand, and of what these hold; every member is always there."""
    _, found = msgspec.json.schema_components(
        kinds, ref_template=f"#/components/schemas/{prefix}{{name}}", schema_hook=lambda _: dict(ANY)
    )
    for schema in found.values():
        del schema["title"]
        schema["description"] = " ".join(schema["description"].split())
        if "properties" in schema:
            schema["required"] = list(schema["properties"])
            for member in schema["properties"].values():
                member.pop("default", None)
    return {f"{prefix}{name}": schema for name, schema in found.items()}


# ---- answers
_TOLD_INSTANT: Schema = {**_INSTANT, "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$"}
_NULLABLE_INSTANT: Schema = {"anyOf": [_TOLD_INSTANT, {"type": "null"}]}
_NULLABLE_TEXT = nullable(TEXT)
_NAMED: Schema = {"key": TEXT, "namespace": TEXT}
_GONE: Schema = {**_NAMED, "id": COUNT, "version": COUNT}
_STATUS_NOT_FOUND: Schema = {"type": "string", "const": "not_found"}
_MEMORY: dict[str, Schema] = {
    "id": {**COUNT, "description": "Given by the service, rising, never used again"},
    "key": TEXT,
    "namespace": TEXT,
    "value": {"description": "Any JSON, exactly as it came"},
    "metadata": {
        **record(
            created_at=_TOLD_INSTANT,
            updated_at=_TOLD_INSTANT,
            expires_at=_NULLABLE_INSTANT,
            access_count=COUNT,
            last_accessed=_NULLABLE_INSTANT,
            importance={"type": "integer", "minimum": 1, "maximum": 10},
            session_id=_NULLABLE_TEXT,
            project_id=_NULLABLE_TEXT,
            tags=array(TEXT),
        ),
        "additionalProperties": True,
        "description": "The service's fields, then the caller's own",
    },
    "version": {"type": "integer", "minimum": 1, "description": "1, 2, 3 …; goes on when a key is made anew"},
    "tier": {"type": "string", "enum": ["hot", "warm", "cold"]},
}
_MORE: Schema = {
    "search_index": told(
        "What the search knows of it; on request",
        record(content_hash={"type": "string", "pattern": "^[0-9a-f]{64}$"}, keywords=array(TEXT), full_text=TEXT),
    )
}
_MATCH: dict[str, Schema] = {
    "score": {"type": "number", "description": "Higher is better, mostly from 0 to 1"},
    "matched": array(
        {"type": "string", "enum": ["value", "key", "tags", "title", "author", "date", "context", "meaning"]},
        description="Where the words stand; `context`: only in what was stored right before or behind in the same session",
    ),
    "snippet": {"type": "string", "description": "A part of the value's words around the matches"},
}
_MATCH_TOO: dict[str, Schema] = {
    "duplicates": {**COUNT, "description": "With `collapse`: how many that say the same it stands for"},
    "message": {**COUNT, "description": "Of a recall: the number of the message that asked for it"},
    "passages": array(
        record(start=COUNT, end=COUNT, text=TEXT),
        description="The best parts of the value's words; `value` is then null",
    ),
    "explain": {"type": "object", "description": "What the score is made of"},
}
_JOB = record(
    id=TEXT,
    kind=TEXT,
    namespace=TEXT,
    state={"type": "string", "enum": [state.value for state in JobState]},
    done=COUNT,
    total=nullable(COUNT),
    unit=TEXT,
    created_at=_TOLD_INSTANT,
    finished_at=_NULLABLE_INSTANT,
    result={"description": "What it came to, as the request itself would have answered; null before"},
    error={"type": ["object", "null"], "description": "Why it failed"},
)
_VERIFIED: dict[str, Schema] = {
    "at": _TOLD_INSTANT,
    "ok": BOOLEAN,
    "detail": {**_NULLABLE_TEXT, "description": "What is wrong"},
    "seconds": {"type": "number", "minimum": 0, "description": "How long it took"},
    "memories": COUNT,
}
_BACKUP: dict[str, Schema] = {
    "id": TEXT,
    "created_at": {**_TOLD_INSTANT, "description": "The instant that it holds"},
    "kind": {"type": "string", "enum": ["full", "incremental"]},
    "parent": {**_NULLABLE_TEXT, "description": "An incremental one: the backup since which it holds what changed"},
    "reason": {"type": "string", "enum": ["manual", "scheduled", "safety"]},
    "note": _NULLABLE_TEXT,
    "memories": {**COUNT, "description": "Visible at that instant"},
    "bytes": {**COUNT, "description": "Of its files"},
    "raw_bytes": {**COUNT, "description": "Of the values visible at that instant"},
    "seq": {**COUNT, "description": "The end of the commit order then"},
    "store": {"type": "string", "description": "Names the storage that it is of"},
    "schema": COUNT,
    "program": TEXT,
    "encrypted": BOOLEAN,
    "namespaces": {
        "type": ["object", "null"],
        "additionalProperties": COUNT,
        "description": "How many memories in which; null: not told, since it is encrypted",
    },
    "verified": nullable(told("The last verification", record(**_VERIFIED))),
}
_FILE = record(
    name=TEXT,
    kind=TEXT,
    records=COUNT,
    raw_bytes={**COUNT, "description": "Before compression"},
    bytes={**COUNT, "description": "Of the file"},
    sha256={"type": "string", "pattern": "^[0-9a-f]{64}$", "description": "Of the file"},
)
_DIFFERENCE = record(
    namespace=TEXT,
    added=COUNT,
    changed=COUNT,
    removed=COUNT,
    same=COUNT,
    samples={"type": "object", "additionalProperties": array(TEXT), "description": "Some keys of the first three"},
)
_HEALTH = record(
    status={"type": "string", "enum": ["ok", "degraded", "failing"]},
    reasons=array(TEXT),
    service=TEXT,
    version=TEXT,
    checked_at=_TOLD_INSTANT,
    meaning=nullable(
        told(
            "How far search by meaning has come; null: it is off",
            record(
                state={"type": "string", "enum": ["loading", "embedding", "ready", "failing"]},
                model={**_NULLABLE_TEXT, "description": "Its identity, once it is loaded"},
                embedded={**COUNT, "description": "Memories with a vector of it"},
                waiting={**COUNT, "description": "Memories without one"},
                held={**COUNT, "description": "Bytes of vectors held ready"},
                troubles=array(TEXT),
            ),
        )
    ),
    backup=told(
        "How old the last backup is",
        record(
            last_at=_NULLABLE_INSTANT,
            verified_at={**_NULLABLE_INSTANT, "description": "When one was verified last"},
            verified_ok={"type": ["boolean", "null"], "description": "Whether it was whole"},
        ),
    ),
)
_HELD: Schema = record(memories=COUNT, bytes={**COUNT, "description": "Of values"})
ANSWERS: dict[str, Schema] = {
    "Memory": told("One stored record at one version", record(_MORE, **_MEMORY)),
    "Deleted": record(deleted={"type": "boolean", "const": True}, **_GONE),
    "Moved": {"anyOf": [ref("Memory"), ref("NamespaceMoved")]},
    "NamespaceMoved": record(moved={**COUNT, "description": "How many memories"}),
    "BatchStored": record(
        results=array(record(status={"type": "string", "enum": ["created", "replaced"]}, memory=ref("Memory")))
    ),
    "BatchRetrieved": record(
        results=array(
            {
                "oneOf": [
                    record(status={"type": "string", "const": "found"}, memory=ref("Memory")),
                    record(status=_STATUS_NOT_FOUND, **_NAMED),
                ]
            }
        )
    ),
    "BatchDeleted": record(
        results=array(
            {
                "oneOf": [
                    record(status={"type": "string", "const": "deleted"}, **_GONE),
                    record(status=_STATUS_NOT_FOUND, **_NAMED),
                ]
            }
        )
    ),
    "Affected": record(
        matched=COUNT,
        changed=COUNT,
        dry_run=BOOLEAN,
        sample=told("Some of those that matched", array(record(**_NAMED), maxItems=10)),
    ),
    "MemoryList": page("memories", ref("Memory")),
    "Hit": told("A memory that was found", record({**_MORE, **_MATCH_TOO}, **_MEMORY, **_MATCH)),
    "SearchResults": page(
        "results",
        ref("Hit"),
        left_out={**COUNT, "description": "Of this page, for want of `max_tokens`"},
        mode={"type": "string", "enum": ["fulltext", "semantic", "hybrid"], "description": "By what was searched"},
        corrected={
            "type": "object",
            "additionalProperties": TEXT,
            "description": "Words that nothing held, each with the one that was searched for in its place",
        },
    ),
    "QueryResults": page(
        "memories",
        {"anyOf": [ref("Memory"), {"type": "object", "description": "With `select`: the fields by name"}]},
        {
            "count": COUNT,
            "groups": array(record(value=ANY, count=COUNT)),
            "cold_read": {
                "type": "integer",
                "minimum": 1,
                "description": "How many values were fetched from archives for it",
            },
        },
    ),
    "Namespace": record(
        name=TEXT,
        config={**ref("NamespaceConfig"), "description": "What it says itself"},
        effective={**ref("NamespaceConfig"), "description": "What holds, with what is inherited"},
        created_at=_TOLD_INSTANT,
        explicit={"type": "boolean", "description": "Made by a call of its own"},
        memories=COUNT,
        bytes={**COUNT, "description": "Of values"},
        total_memories={**COUNT, "description": "With all namespaces below it"},
        total_bytes=COUNT,
        namespaces={**COUNT, "description": "Below it"},
    ),
    "NamespaceList": page("namespaces", ref("Namespace")),
    "NamespaceDeleted": record(deleted=BOOLEAN, namespace=TEXT, memories=COUNT, namespaces=COUNT, dry_run=BOOLEAN),
    "Session": record(
        id=TEXT,
        namespace=TEXT,
        cluster_id=_NULLABLE_TEXT,
        project_id=_NULLABLE_TEXT,
        ttl={"type": ["number", "null"]},
        state={"type": "string", "enum": ["active", "ended", "expired"]},
        memories=COUNT,
        metadata={"type": "object", "additionalProperties": True},
        created_at=_TOLD_INSTANT,
        last_used=_TOLD_INSTANT,
        expires_at=_NULLABLE_INSTANT,
        ended_at=_NULLABLE_INSTANT,
    ),
    "SessionList": page("sessions", ref("Session")),
    "SessionView": page("memories", ref("Memory"), session=ref("Session")),
    "SessionEnded": record(
        session=ref("Session"),
        memories={"type": "string", "enum": [one.value for one in WithMemories]},
        affected=COUNT,
    ),
    "Stats": record(
        memories=COUNT,
        bytes_raw={**COUNT, "description": "Of values"},
        bytes_stored={**nullable(COUNT), "description": "On disk; null where it cannot be told apart"},
        expired={**COUNT, "description": "Awaiting cleanup"},
        sessions=COUNT,
        namespaces=array(record(name=TEXT, memories=COUNT, bytes=COUNT)),
        tiers=record(hot=COUNT, warm=COUNT, cold=COUNT),
        top_tags=array(record(tag=TEXT, count=COUNT)),
        oldest=_NULLABLE_INSTANT,
        newest=_NULLABLE_INSTANT,
        last_seq={**COUNT, "description": "How many changes there were so far"},
        read_only={**_NULLABLE_TEXT, "description": "Why writes are off; null: they are on"},
    ),
    "Cleanup": record(
        expired=COUNT,
        namespaces={"type": "object", "additionalProperties": COUNT, "description": "How many in which"},
        purged={**COUNT, "description": "Of deleted namespaces"},
    ),
    "Archived": record(
        namespace=TEXT,
        recursive=BOOLEAN,
        dry_run=BOOLEAN,
        memories={**COUNT, "description": "How many were moved, or would be"},
        bytes={**COUNT, "description": "Of their values"},
    ),
    "TierPass": record(
        demoted=told("What went into archives", _HELD),
        compacted={**COUNT, "description": "How many archives were written anew without what is dead"},
        bytes_before={**COUNT, "description": "Of those archives"},
        bytes_after=COUNT,
    ),
    "Tiers": record(
        hot=record(
            kind={"type": "string", "enum": ["none", "process", "redis"]},
            trusted={"type": "boolean", "description": "Whether copies are being read"},
            trouble={**_NULLABLE_TEXT, "description": "Why they are not, where they should be"},
            note={**_NULLABLE_TEXT, "description": "Such as what a measurement has decided"},
            memories={**nullable(COUNT), "description": "Copies; null: not known"},
            bytes=nullable(COUNT),
            hits={**COUNT, "description": "Since the process began, as all counts here"},
            misses=COUNT,
            hit_ratio={
                "type": ["number", "null"],
                "minimum": 0,
                "maximum": 1,
                "description": "Hits among all looks; null: there were none",
            },
            fills={**COUNT, "description": "Copies made after a miss"},
            refused={**COUNT, "description": "Copies that were not taken"},
            evictions=COUNT,
            failures=COUNT,
        ),
        warm=_HELD,
        cold=record(
            **_HELD["properties"],
            archives={**COUNT, "description": "Without dead ones"},
            archive_bytes={**COUNT, "description": "Of their files"},
            off={**_NULLABLE_TEXT, "description": "Why nothing can be archived; null: it can"},
        ),
        promotions={**COUNT, "description": "Since the process began, as the next two"},
        demotions=COUNT,
        compactions=COUNT,
        archives=array(
            record(
                name=TEXT,
                state={
                    "type": "string",
                    "enum": ["writing", "live", "dead"],
                    "description": "dead: nothing refers to it, its file is about to be removed",
                },
                changed_at=_TOLD_INSTANT,
                memories={**COUNT, "description": "As it was written, as the next two"},
                bytes_raw={**COUNT, "description": "Of values"},
                bytes_stored={**COUNT, "description": "Of the file"},
                live={**COUNT, "description": "Memories whose values are still there"},
                live_bytes=COUNT,
            )
        ),
    ),
    "History": {"anyOf": [ref("Versions"), ref("Memory")]},
    "Versions": page(
        "versions",
        record(
            version=COUNT,
            at={**_TOLD_INSTANT, "description": "When it was written"},
            ended_at={**_NULLABLE_INSTANT, "description": "When another one, or the end of the memory, replaced it"},
            current=BOOLEAN,
            bytes={**COUNT, "description": "Of its value"},
            kept={"type": "boolean", "description": "Whether its content is there"},
            redacted_at=_NULLABLE_INSTANT,
        ),
    ),
    "RedactedVersions": record(
        **_NAMED, versions=array(COUNT), ids=array(COUNT, description="Of the memories that they were of")
    ),
    "Change": record(
        seq={**COUNT, "description": "Its place in the commit order"},
        at=_TOLD_INSTANT,
        kind={"type": "string", "enum": [kind.value for kind in Kind]},
        namespace=TEXT,
        key={**_NULLABLE_TEXT, "description": "Null, as the next two: a whole namespace went"},
        version=nullable(COUNT),
        id=nullable(COUNT),
    ),
    "ChangeList": record(
        changes=array(ref("Change")), next={**COUNT, "description": "What to ask for as `since` the next time"}
    ),
    "Backup": told("One consistent instant of everything", record(**_BACKUP)),
    "BackupDetails": record(**_BACKUP, parts=array(_FILE)),
    "BackupList": page("backups", ref("Backup")),
    "Verified": record(backup_id=TEXT, **_VERIFIED),
    "Restored": record(
        backup_id=TEXT,
        used={"type": "string", "description": "The last link of the chain that was used"},
        mode={"type": "string", "enum": ["replace", "merge", "namespace"]},
        dry_run=BOOLEAN,
        differences=array(_DIFFERENCE, description="By namespace, where there is any"),
        safety_backup={**_NULLABLE_TEXT, "description": "The backup of what was there before"},
        added=COUNT,
        changed=COUNT,
        removed=COUNT,
        same=COUNT,
    ),
    **structs("Migration", [Plan, Report, Status, Verification, RolledBack, Finished]),
    "Lines": {"type": "string", "description": "A memory a line, as the record of `Memory`"},
    "Imported": record(
        read={**COUNT, "description": "Lines"},
        stored=COUNT,
        replaced=COUNT,
        skipped=COUNT,
        failed=COUNT,
        errors=array(record({"detail": TEXT}, line=COUNT, code=TEXT), description="The first 100"),
    ),
    "Metrics": {"type": "string", "description": "Lines of the text format of Prometheus"},
    "Job": told("Long work with its progress", _JOB),
    "JobAccepted": record(job=ref("Job")),
    "JobList": page("jobs", ref("Job")),
    "Mode": record(read_only=BOOLEAN, reason=_NULLABLE_TEXT),
    "Health": _HEALTH,
    "Live": record(status={"type": "string", "const": "ok"}),
    "Problem": {
        "description": "An error (RFC 9457), with the facts that belong to it",
        **record(
            {
                "hint": {"type": "string", "description": "What to do"},
                "field": {"type": "string", "description": "The part of the request that is wrong"},
            },
            type={"type": "string"},
            title=TEXT,
            status={"type": "integer", "minimum": 400, "maximum": 599},
            detail=TEXT,
            code={"type": "string", "pattern": "^[a-z_]+$", "description": "Stable, for programs"},
        ),
        "additionalProperties": True,
    },
}

# ---- parameters of the query and headers
_NAMESPACE_EXAMPLE = "acme/web"


def _query(name: str, schema: Schema, description: str, example: Any = None, **more: Any) -> Schema:
    told = {"name": name, "in": "query", "description": description, "schema": schema, **more}
    return told if example is None else {**told, "example": example}


def _header(name: str, schema: Schema, description: str) -> Schema:
    return {"name": name, "in": "header", "description": description, "schema": schema}


PARAMETERS: dict[str, Schema] = {
    "namespace": _query(
        "namespace", {**ref("NamespaceName"), "default": "default"}, "The namespace", _NAMESPACE_EXAMPLE
    ),
    "scope_namespace": _query(
        "namespace", ref("NamespaceName"), "Only there, and with `recursive` below it", _NAMESPACE_EXAMPLE
    ),
    "recursive": _query("recursive", {**BOOLEAN, "default": True}, "With all namespaces below", example=True),
    "key_prefix": _query("prefix", TEXT, "Keys that begin so", "deploy/"),
    "tags": _query("tags", array(ref("Tag")), "All of these, parted by commas", ["ops"], style="form", explode=False),
    "order_by": _query("order_by", _ORDER_BY, "A field; with `-` before it the other way round", "-updated_at"),
    "limit": _query("limit", {**_LIMIT, "default": DEFAULT_LIMIT}, "Items of a page", 10),
    "cursor": _query("cursor", {"type": "string"}, "`next_cursor` of the page before, with all else unchanged"),
    "include": _query(
        "include", {"type": "string", "enum": ["search_index"]}, "What the search knows of it, too", "search_index"
    ),
    "as_of": _query("as_of", _INSTANT, "As it was at that instant", "2026-01-02T03:04:05.000006Z"),
    "version": _query(
        "version", {"type": "integer", "minimum": 1, "exclusiveMaximum": 10**15}, "Only this one, with its value", None
    ),
    "since": _query(
        "since",
        {"type": "integer", "minimum": 0, "exclusiveMaximum": 10**15},
        "Behind this place in the commit order: `next` of the answer before. 0: from the beginning",
        0,
    ),
    "Last-Event-ID": _header(
        "Last-Event-ID",
        {"type": "string", "pattern": "^[0-9]{1,15}$"},
        "The `id` of the last event that was seen; wins over `since`",
    ),
    "on_conflict": _query(
        "on_conflict",
        {"type": "string", "enum": list(ON_CONFLICT), "default": ON_CONFLICT[0]},
        "What becomes of a line whose key has another memory here: it is skipped, replaces it, replaces it where it is newer, or "
        "ends the import",
        "newer",
    ),
    "into": _query("into", ref("NamespaceName"), "Store below this namespace", "acme/imported"),
    "namespace_prefix": _query("prefix", ref("NamespaceName"), "This namespace and all below it", "acme"),
    "depth": _query(
        "depth",
        {"type": "integer", "minimum": 1, "exclusiveMaximum": 10**15},
        "Fold what lies deeper into its ancestor",
        2,
    ),
    "recursive_delete": _query("recursive", {**BOOLEAN, "default": False}, "Also where it is not empty", example=True),
    "dry_run": _query("dry_run", {**BOOLEAN, "default": False}, "Only tell what would go", example=True),
    "wait": _query(
        "wait",
        {"type": "number", "minimum": 0, "maximum": MAX_WAIT_SECONDS, "default": DEFAULT_WAIT_SECONDS},
        "Seconds to wait for the result before the answer is 202 with the job",
        5,
    ),
    "cluster_id": _query("cluster_id", TEXT, "Only of this cluster", "release"),
    "active": _query("active", BOOLEAN, "Only those that are (not) active", example=True),
    "session_scope": _query(
        "scope",
        {"type": "string", "enum": ["session", "cluster"], "default": "session"},
        "With `cluster` the memories of all sessions of its cluster",
        "session",
    ),
    "with_memories": _query(
        "memories",
        {"type": "string", "enum": [one.value for one in WithMemories], "default": "keep"},
        "What becomes of its memories",
        "keep",
    ),
    "state": _query("state", {"type": "string", "enum": [one.value for one in JobState]}, "Only in this state", "done"),
    "If-Match": _header(
        "If-Match",
        {"type": "string", "pattern": r'^(?:\*|"[1-9][0-9]{0,17}")$'},
        'Only if the memory is at this version: its ETag (`"3"`), or `*`: at any. 412 otherwise.',
    ),
    "If-None-Match": _header(
        "If-None-Match", {"type": "string", "minLength": 1}, "The ETag that is known: 304 where it is still that"
    ),
    "create_only": _header(
        "If-None-Match", {"type": "string", "enum": ["*"]}, "`*`: only if there is no such memory. 412 otherwise."
    ),
    "Idempotency-Key": _header(
        "Idempotency-Key",
        {"type": "string", "minLength": 1, "maxLength": 255},
        "Makes a repetition harmless for a day: the same request is answered as before and done once.",
    ),
}
PATHS: dict[str, tuple[Schema, str, str]] = {
    "key": (ref("Key"), "The key; a `/` may stand plain or as `%2F`", "deploy/checklist"),
    "name": (ref("NamespaceName"), "The namespace; its `/` may stand plain or as `%2F`", _NAMESPACE_EXAMPLE),
    "session": (ref("Name"), "The session's id", "run-7"),
    "job": ({"type": "string", "minLength": 1}, "The job's id", "5r2qYbNRtbXcmkU0"),
    "backup": ({"type": "string", "minLength": 1}, "The backup's id", "20260102T030405Z-9f86d081"),
}
