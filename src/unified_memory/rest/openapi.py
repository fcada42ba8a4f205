"""The OpenAPI 3.1 document, made from the table of routes when it is first asked for."""

from functools import cache
from http import HTTPStatus
from typing import Any

import msgspec
from msgspec import UNSET, Struct

from unified_memory import __version__
from unified_memory.model import errors
from unified_memory.model.history import Kind
from unified_memory.rest import operation, schemas
from unified_memory.rest.examples import ACCEPTED, BACKUP_ID, CHANGES_STREAM, EVENTS, EXAMPLES, JOB_ID, Example
from unified_memory.rest.exchange import Answer
from unified_memory.rest.problems import FAILED, problem, status_of, status_of_code
from unified_memory.rest.routes import EVENTS as EVENTS_ROUTE
from unified_memory.rest.routes import PREFIXES, ROUTES, Route
from unified_memory.rest.schemas import Schema
from unified_memory.rest.transfer import LINES_TYPE
from unified_memory.service.searching import NO_MEANING_HINT

MERGE_PATCH = "application/merge-patch+json"
PROBLEM = "application/problem+json"
_DESCRIPTION = """\
What AI agents must remember between conversations, kept and served by one service.

Instants are RFC 3339 in UTC, durations seconds, sizes bytes. A member of a body or a parameter that is not known is an error.
Keys, namespaces and ids in a path may hold `/`, plain or as `%2F`; everything else as usual percent-encoded.
Every error is `application/problem+json` with a stable `code`; besides those named at each operation, a path that is not
served answers 404 (`no_such_route`) and a method that a path does not take 405 (`method_not_allowed`, with `Allow`).
"""
_TAGS = {
    "Memories": "Store, retrieve, change, delete and move one memory.",
    "Many at once": "Batches, and changes by filter.",
    "Finding": "List, search by relevance, query by exact filter.",
    "Namespaces": "Paths that hold memories, and what holds for them and all below them.",
    "Sessions": "Runs of an agent, and clusters of them that share memories.",
    "Tiers": "What lies in hot copies, in the database and in archives, and moves between them.",
    "History": "Former versions of memories, and the feed of everything that changed.",
    "Backups": "Everything of one instant, proven and restored.",
    "Migration": "Memories of other programs, copied while they go on working, and the way back.",
    "Export and import": "Memories as lines of JSON.",
    "Service": "Statistics, cleanup, jobs, mode, health and metrics.",
}


# What stands under these reads values.
_OF_VALUES = {"Memories", "Many at once", "Finding", "Sessions", "History", "Export and import"}


class Cause(Struct, frozen=True):
    """An error that a route may answer: its code, its status, and when it comes."""

    code: str
    status: int
    when: str


_WHEN = {
    "malformed_input": "The body is not JSON in UTF-8",
    "semantic_unavailable": "Search by meaning was asked for, and cannot be done here, or not yet",
    "read_only": "Writes are off; deletes still work",
    "refused": "There is no cold tier, or no place for backups, or the source of a migration may not be named",
    "quota_exceeded": "A quota of a namespace; `quota` names it, `namespace` is the one that sets it",
    "memory_not_found": "There is no such memory, or it has expired",
    "namespace_not_found": "There is no such namespace",
    "session_not_found": "There is no such session",
    "job_not_found": "There is no such job",
    "backup_not_found": "There is no such backup",
    "backup_damaged": "The backup is not as it was written; `part` names the file",
    "version_gone": "There was such a version, but its content was redacted or is no longer kept",
    "changes_gone": "Changes from there on are no longer all kept; they are from `oldest` on",
    "conflict": "What is stored forbids it: the patch does not fit, that version has expired, another backup needs this one, a "
    "line is in conflict and `on_conflict` is fail",
    "version_conflict": "`expected_version` is not the current one, which is `current_version`",
    "in_progress": "Another backup, verification or restore is under way",
    "already_exists": "What was to be made exists already",
    "migration_state": "It does not follow on the phase of the migration, which is `state`",
    "source_error": "The source of a migration cannot be read, or not be written back",
    "source_unavailable": "The source of a migration does not answer, or is busy",
    "namespace_not_empty": "It holds something, and `recursive` was not said",
    "too_large": "Larger than `limit`; `field` names what",
    "invalid_input": "Understood but not acceptable; `field` names the part",
    "empty_query": "The query holds nothing to search for",
    "invalid_cursor": "The cursor does not belong to this listing",
    "idempotency_mismatch": "The Idempotency-Key was used for another request",
    "internal_error": "A fault of the service; its log says more",
    "storage_error": "The storage could not do it; nothing was stored",
    "storage_corrupt": "The storage is damaged",
    "archive_missing": "The archive that holds a value is not where it was",
    "storage_busy": "Too much is waiting; `Retry-After` says in how many seconds to try again",
    "storage_full": "The disk is full, or STORAGE_LIMIT is reached; nothing was stored",
}
_PRECONDITION = {
    "version_conflict": "The memory is not at the version that If-Match names, but at `current_version`",
    "already_exists": "There is such a memory already (`If-None-Match: *`)",
}


def causes(route: Route) -> tuple[Cause, ...]:
    """Every error that a route may answer, by status."""
    if route.probe:
        return ()
    codes = [*route.errors, "invalid_input", "internal_error", "storage_error", "storage_corrupt", "storage_busy"]
    if route.tag in _OF_VALUES:
        codes += ["archive_missing"]
    if route.body is not None:
        codes += ["malformed_input", "too_large"]
    elif route.path.endswith("{key}"):
        codes += ["too_large"]
    found = [Cause(code, status_of_code(code), _WHEN[code]) for code in codes]
    for parameter, code in (("If-Match", "version_conflict"), ("create_only", "already_exists")):
        if parameter in route.parameters:
            found.append(Cause(code, HTTPStatus.PRECONDITION_FAILED, _PRECONDITION[code]))
    return tuple(sorted(found, key=lambda cause: cause.status))


@cache
def document() -> dict[str, Any]:
    """The whole interface."""
    paths: dict[str, Any] = {}
    for route in ROUTES:
        entry = paths.setdefault(route.path, _path_item(route.path))
        entry[route.method.lower()] = _operation(route)
        if route.path == "/jobs/{id}" and EVENTS_ROUTE[0] not in paths:
            paths[EVENTS_ROUTE[0]] = _events()
    bodies = {route.body for route in ROUTES if route.body is not None}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Unified Memory",
            "version": __version__,
            "description": _DESCRIPTION,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [
            {"url": PREFIXES[0]},
            {"url": PREFIXES[1], "description": "The same under the name that the existing backend uses"},
        ],
        "tags": [{"name": name, "description": told} for name, told in _TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": {
                **schemas.NAMES,
                **schemas.FILTERS,
                **schemas.requests(sorted(bodies, key=lambda body: body.__name__)),
                **schemas.ANSWERS,
            },
            "parameters": schemas.PARAMETERS,
            "examples": _example_errors(),
        },
    }


@cache
def document_bytes() -> bytes:
    """The document as JSON."""
    return msgspec.json.encode(document())


def answer() -> Answer:
    """The document as it is served."""
    return Answer(document_bytes())


def _path_item(path: str) -> dict[str, Any]:
    if "{" not in path:
        return {}
    name = path[path.index("{") + 1 : path.index("}")]
    kind = {"/sessions": "session", "/jobs": "job", "/backups": "backup"}.get(path[: path.index("/{")], name)
    schema, description, example = schemas.PATHS[kind]
    told = {"name": name, "in": "path", "required": True, "schema": schema}
    return {"parameters": [{**told, "description": description, "example": example}]}


def _operation(route: Route) -> dict[str, Any]:
    told: dict[str, Any] = {"tags": [route.tag], "operationId": operation_id(route), "summary": route.summary}
    description = route.description
    if route.long:
        description += " Answers 202 with the job where it is not done within `wait` seconds."
    if route.root:
        description += f" Also at `{route.path}` itself."
    if description:
        told["description"] = description.strip()
    if route.parameters:
        told["parameters"] = [{"$ref": f"#/components/parameters/{name}"} for name in route.parameters]
    examples = EXAMPLES[route.method, route.path]
    if route.body is not None:
        told["requestBody"] = {"required": not route.bare, "content": _bodies(route, route.body, examples)}
    elif route.lines:
        lines = {"schema": schemas.ref("Lines"), "examples": _named((e.summary, e.body) for e in examples)}
        told["requestBody"] = {"required": False, "content": {LINES_TYPE: lines}}
    told["responses"] = {
        str(status): response for status, response in sorted({**_good(route, examples), **_problems(route)}.items())
    }
    return told


def operation_id(route: Route) -> str:
    """A name for generated clients: `store`, `list_namespaces`, `get_job`."""
    name = route.handler.__name__
    if route.tag in {"Namespaces", "Sessions"} and not name.startswith("list_"):
        return f"{name}_{route.tag.lower().removesuffix('s')}"
    return name if name not in {"live", "ready"} else f"health_{name}"


def _bodies(route: Route, body: type, examples: tuple[Example, ...]) -> dict[str, Any]:
    bodies = {"application/json": schemas.ref(body.__name__)}
    if route.patch:
        bodies[MERGE_PATCH] = {"description": "The patch itself (RFC 7396)"}
    return {
        media_type: {
            "schema": schema,
            "examples": _named((e.summary, e.body) for e in examples if e.media_type == media_type),
        }
        for media_type, schema in bodies.items()
    }


def _named(examples: Any) -> dict[str, Any]:
    return {
        "".join(c if c.isalnum() else "_" for c in summary.lower()): {"summary": summary, "value": value}
        for summary, value in examples
        if value is not UNSET
    }


def _content(schema: Schema, examples: Any, media_type: str = "application/json") -> dict[str, Any]:
    return {media_type: {"schema": schema, "examples": _named(examples)}}


def _good(route: Route, examples: tuple[Example, ...]) -> dict[int, Any]:
    schema = schemas.ref(route.answer)
    good: dict[str, Any] = {
        "description": "Done",
        "content": _content(schema, ((e.summary, e.answer) for e in examples), route.media_type),
    }
    if route.events:
        good["content"]["text/event-stream"] = _event_stream(
            route.events, [kind.value for kind in Kind], CHANGES_STREAM
        )
    if links := _links(operation_id(route)):
        good["links"] = links
    told: dict[int, Any] = {200: good}
    if route.answer == "Memory":
        good["headers"] = {"ETag": {**_ETAG, "required": True}}
    elif route.answer == "Moved":
        good["headers"] = {"ETag": _ETAG}
    if "If-None-Match" in route.parameters:
        told[304] = {"description": "It is still what the ETag says", "headers": {"ETag": {**_ETAG, "required": True}}}
    if route.long:
        told[202] = {
            "description": "It goes on as a job",
            "headers": {
                "Location": {"description": "Where the job is", "schema": {"type": "string"}, "required": True}
            },
            "content": _content(schemas.ref("JobAccepted"), [("Under way", ACCEPTED)]),
            "links": {
                target: {"operationId": target, "parameters": {"id": "$response.body#/job/id"}}
                for target in ("get_job", "job_events", "cancel_job")
            },
        }
    if route.probe and route.answer == "Health":
        failing = EXAMPLES[route.method, route.path][0].answer | {"status": "failing", "reasons": ["draining"]}
        told[503] = {"description": "Not now", "content": _content(schema, [("On its way down", failing)])}
    return told


# What an answer makes reachable: from the operation to others, and where in the answer their parameters stand.
_LINKS: tuple[tuple[str, tuple[str, ...], dict[str, str]], ...] = (
    ("store", ("retrieve", "update", "patch", "delete"), {"key": "key", "namespace": "namespace"}),
    ("create_namespace", ("get_namespace", "configure_namespace", "delete_namespace"), {"name": "name"}),
    ("create_backup", ("get_backup", "verify_backup", "delete_backup"), {"id": "id"}),
    ("create_session", ("view_session", "end_session"), {"id": "id", "namespace": "namespace"}),
)


def _links(name: str) -> dict[str, Any]:
    return {
        target: {
            "operationId": target,
            "parameters": {parameter: f"$response.body#/{member}" for parameter, member in parameters.items()},
        }
        for source, targets, parameters in _LINKS
        if source == name
        for target in targets
    }


_ETAG: Schema = {
    "description": "The version, as If-Match and If-None-Match take it",
    "schema": {"type": "string", "pattern": '^"[1-9][0-9]*"$'},
    "example": '"3"',
}
_RETRY: Schema = {"description": "Seconds", "schema": {"type": "integer", "minimum": 0}, "example": 1}


def _problems(route: Route) -> dict[int, Any]:
    found: dict[int, Any] = {}
    for cause in causes(route):
        found.setdefault(cause.status, []).append(cause)
    return {status: _problem(status, told) for status, told in found.items()}


def _problem(status: int, told: list[Cause]) -> dict[str, Any]:
    examples = {cause.code: {"$ref": f"#/components/examples/{_example_name(cause)}"} for cause in told}
    response: dict[str, Any] = {
        "description": ". ".join(f"`{cause.code}`: {cause.when}" for cause in told),
        "content": {PROBLEM: {"schema": schemas.ref("Problem"), "examples": examples}},
    }
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        response["headers"] = {"Retry-After": _RETRY}
    return response


def _example_name(cause: Cause) -> str:
    return f"{cause.code}_precondition" if cause.status == HTTPStatus.PRECONDITION_FAILED else cause.code


def _example_errors() -> dict[str, Any]:
    """A problem of each code, as the service tells it."""
    told = [
        errors.MalformedInputError("body", "The body is not JSON: Input data was truncated"),
        errors.ReadOnlyError("switched by command"),
        errors.RefusedError("There is no cold tier: UNIFIED_MEMORY_ARCHIVE is off"),
        errors.QuotaExceededError("acme", "max_memories", 1000),
        errors.MemoryNotFoundError("acme/web", "deploy/checklist"),
        errors.NamespaceNotFoundError("acme/web"),
        errors.SessionNotFoundError("acme/web", "run-7"),
        errors.JobNotFoundError(JOB_ID),
        errors.BackupNotFoundError(BACKUP_ID),
        errors.BackupDamagedError(BACKUP_ID, "memories-0001.jsonl.zst", "its sha256 is another one"),
        errors.VersionGoneError("acme/web", "deploy/checklist", 1),
        errors.ChangesGoneError(7, 4096),
        errors.ConflictError("What is at 'steps' is no number", path="steps"),
        errors.VersionConflictError("acme/web", "deploy/checklist", 2, 3),
        errors.VersionConflictError("acme/web", "deploy/checklist", 2, 3, precondition=True),
        errors.InProgressError("Another backup is being made or removed", hint="Wait for its end, or cancel its job"),
        errors.MigrationStateError("Nothing was migrated yet", "none"),
        errors.SourceError("memory-bank-files", "/srv/older/bank", "It is no folder"),
        errors.SourceUnavailableError("extended-memory-http", "http://127.0.0.1:3009", "Nobody answers"),
        errors.AlreadyExistsError("The namespace exists already", namespace="acme/web"),
        errors.AlreadyExistsError(
            "There is a memory of that key already",
            precondition=True,
            namespace="acme/web",
            key="deploy/checklist",
            current_version=1,
        ),
        errors.NamespaceNotEmptyError("acme/web", 2, 0),
        errors.TooLargeError("key", 4096, 5000),
        errors.InvalidInputError("ttl", "Expected `float | null`, got `str`"),
        errors.EmptyQueryError(),
        errors.InvalidCursorError(),
        errors.IdempotencyMismatchError("order-66"),
        errors.StorageError("The storage failed"),
        errors.StorageCorruptError("The storage is damaged"),
        errors.ArchiveMissingError("20260102T030405Z-7f3a90c1d2e4b586.zar"),
        errors.StorageBusyError("Too much is waiting"),
        errors.StorageFullError(),
        errors.SemanticUnavailableError("This service does not search by meaning", hint=NO_MEANING_HINT),
    ]
    found = {
        _example_name(Cause(error.code, status_of(error), "")): msgspec.json.decode(problem(error).body)
        for error in told
    }
    return {
        name: {"value": value} for name, value in {**found, "internal_error": msgspec.json.decode(FAILED.body)}.items()
    }


def _event_stream(schema: str, kinds: list[str], example: str) -> dict[str, Any]:
    event = schemas.record(
        event={"type": "string", "enum": kinds},
        data={"type": "string", "contentMediaType": "application/json", "contentSchema": schemas.ref(schema)},
    )
    return {"schema": {"description": "Each event", **event}, "examples": _named([("Some events", example)])}


def _events() -> dict[str, Any]:
    path, _, summary = EVENTS_ROUTE
    job = Route(
        method="GET",
        path=path,
        handler=operation.get_job,
        tag="Service",
        summary=summary,
        answer="",
        errors=("job_not_found",),
    )
    stream = {"text/event-stream": _event_stream("Job", ["progress", "end"], EVENTS)}
    return {
        **_path_item(path),
        "get": {
            "tags": ["Service"],
            "operationId": "job_events",
            "summary": summary,
            "description": "`progress` with the job whenever it has changed, at last `end`; then the stream ends.",
            "responses": {
                "200": {"description": "The stream", "content": stream},
                **{str(status): told for status, told in sorted(_problems(job).items())},
            },
        },
    }
