"""Operations as plain HTTP requests, written as somebody would who has only read the document."""

import json
from typing import Any
from urllib.parse import quote, urlencode

import httpx2

from tests.interfaces.scenarios import Arguments
from unified_memory.model.errors import UnifiedMemoryError

# Where each operation goes, which argument stands in the path, and which ones go into the query; others go into the body.
_SCOPED = ("namespace",)
_PAGE = ("limit", "cursor")
ROUTES: dict[str, tuple[str, str, str | None, tuple[str, ...]]] = {
    "store": ("POST", "/store", None, ()),
    "retrieve": ("GET", "/retrieve/", "key", (*_SCOPED, "include", "as_of")),
    "update": ("PUT", "/update/", "key", _SCOPED),
    "patch": ("PATCH", "/update/", "key", _SCOPED),
    "delete": ("DELETE", "/delete/", "key", _SCOPED),
    "move": ("POST", "/move", None, ()),
    "store_batch": ("POST", "/store/batch", None, ()),
    "retrieve_batch": ("POST", "/retrieve/batch", None, ()),
    "delete_batch": ("POST", "/delete/batch", None, ()),
    "update_where": ("POST", "/update/where", None, ("wait",)),
    "delete_where": ("POST", "/delete/where", None, ("wait",)),
    "list": ("GET", "/list", None, (*_SCOPED, "recursive", "prefix", "tags", "order_by", *_PAGE)),
    "search": ("POST", "/search", None, ()),
    "similar": ("POST", "/similar", None, ()),
    "recall": ("POST", "/recall", None, ()),
    "query": ("POST", "/query", None, ()),
    "namespaces.create": ("POST", "/namespaces", None, ()),
    "namespaces.list": ("GET", "/namespaces", None, ("prefix", "depth", *_PAGE)),
    "namespaces.get": ("GET", "/namespaces/", "name", ()),
    "namespaces.configure": ("PUT", "/namespaces/", "name", ()),
    "namespaces.delete": ("DELETE", "/namespaces/", "name", ("recursive", "dry_run", "wait")),
    "namespaces.move": ("POST", "/move", None, ()),
    "sessions.create": ("POST", "/sessions", None, ()),
    "sessions.list": ("GET", "/sessions", None, (*_SCOPED, "recursive", "cluster_id", "active", *_PAGE)),
    "sessions.get": ("GET", "/sessions/", "session_id", (*_SCOPED, "scope", *_PAGE)),
    "sessions.end": ("DELETE", "/sessions/", "session_id", (*_SCOPED, "memories")),
    "stats": ("GET", "/stats", None, _SCOPED),
    "cleanup": ("POST", "/cleanup", None, ("wait",)),
    "tiers": ("GET", "/tiers", None, ()),
    "archive": ("POST", "/archive", None, ("wait",)),
    "recall_archived": ("POST", "/archive/recall", None, ("wait",)),
    "tier_pass": ("POST", "/archive/pass", None, ("wait",)),
    "history": ("GET", "/history/", "key", (*_SCOPED, *_PAGE)),
    "version": ("GET", "/history/", "key", (*_SCOPED, "version")),
    "restore_version": ("POST", "/history/restore", None, ()),
    "redact": ("POST", "/history/redact", None, ("wait",)),
    "changes": ("GET", "/changes", None, ("since", *_SCOPED, "recursive", "limit")),
    "backups": ("GET", "/backups", None, ()),
    "get_backup": ("GET", "/backups/", "backup_id", ()),
    "delete_backup": ("DELETE", "/backups/", "backup_id", ()),
    "restore": ("POST", "/restore", None, ("wait",)),
    "job": ("GET", "/jobs/", "job_id", ()),
    "cancel_job": ("DELETE", "/jobs/", "job_id", ()),
    "read_only": ("GET", "/mode", None, ()),
    "set_read_only": ("PUT", "/mode", None, ()),
    "health": ("GET", "/health", None, ()),
}
_CONFIG = (
    "default_ttl",
    "max_memories",
    "max_bytes",
    "demote_after",
    "history_keep",
    "history_days",
    "language",
    "description",
)
_CHANGES = ("ttl", "expires_at", "metadata", "add_tags", "remove_tags")


class RestInterface:
    """REST under one of its prefixes."""

    def __init__(self, application: Any, prefix: str) -> None:
        self._prefix = prefix
        self._http = httpx2.AsyncClient(transport=httpx2.ASGITransport(application), base_url="http://memory.test")

    async def do(self, operation: str, arguments: Arguments) -> Any:
        method, path, named, asked = ROUTES[operation]
        told = dict(arguments)
        if named is not None:
            path += quote(told.pop(named), safe="").replace(".", "%2E")
        headers = {}
        if (key := told.pop("idempotency_key", None)) is not None:
            headers["Idempotency-Key"] = key
        if told.pop("if_none_match", False):
            headers["If-None-Match"] = "*"
        if operation == "delete" and "expected_version" in told:
            headers["If-Match"] = f'"{told.pop("expected_version")}"'
        if told.pop("include_search_index", False):
            told["include"] = "search_index"
        query = {name: _text(told.pop(name)) for name in asked if name in told}
        if query:
            path += "?" + urlencode(query)
        content = (
            None if method in {"GET", "DELETE"} or operation in {"cleanup", "tier_pass"} else _body(operation, told)
        )
        answer = await self._http.request(method, self._prefix + path, headers=headers, content=content)
        found = json.loads(answer.content)
        if answer.status_code >= httpx2.codes.BAD_REQUEST and operation != "health":
            raise ToldError(found)
        return found["results"] if operation.endswith("_batch") else found

    async def close(self) -> None:
        await self._http.aclose()


class ToldError(UnifiedMemoryError):
    """What a problem tells."""

    def __init__(self, problem: dict[str, Any]) -> None:
        facts = {
            name: fact for name, fact in problem.items() if name not in {"type", "title", "status", "detail", "hint"}
        }
        self.told_code = facts.pop("code")
        super().__init__(problem["detail"], hint=problem.get("hint"), **facts)


def _text(argument: Any) -> str:
    if isinstance(argument, bool):
        return "true" if argument else "false"
    return ",".join(argument) if isinstance(argument, list) else str(argument)


def _body(operation: str, told: Arguments) -> bytes:
    body: Arguments
    match operation:
        case "move":
            source = {"key": told["key"], "namespace": told.get("namespace", "default")}
            target = {
                "key": told.get("to_key", source["key"]),
                "namespace": told.get("to_namespace", source["namespace"]),
            }
            body = {"from": source, "to": target}
            if "expected_version" in told:
                body["expected_version"] = told["expected_version"]
        case "namespaces.move":
            body = {"from": {"namespace": told["name"]}, "to": {"namespace": told["to"]}}
        case "namespaces.create":
            body = {"name": told["name"], "config": {name: told[name] for name in _CONFIG if name in told}}
        case "sessions.create":
            body = {{"session_id": "id"}.get(name, name): argument for name, argument in told.items()}
        case "retrieve_batch" | "delete_batch":
            body = {"keys": [{"key": key} if isinstance(key, str) else key for key in told["keys"]]}
        case "update_where":
            changes = {name: told.pop(name) for name in _CHANGES if name in told}
            body = {**told, "set": changes}
        case "set_read_only":
            body = {"read_only": True, **told}
        case _:
            body = told
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
