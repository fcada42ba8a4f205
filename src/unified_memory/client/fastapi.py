"""A router for FastAPI applications that front the service: `application.include_router(memory_router(client))`.

Paths, bodies and answers are the service's, errors too (problem+json), so that a `UnifiedMemoryClient` may ask the application in
the service's place. Needs `pip install mcp-unified-memory[fastapi]`.
"""

import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, Any, Literal, TypeAlias

try:
    from fastapi import APIRouter, Body, Depends, Header, Query, Request, Response
    from fastapi.exceptions import RequestValidationError
    from fastapi.routing import APIRoute
    from pydantic import BaseModel, ConfigDict
    from starlette.convertors import Convertor, register_url_convertor
except ImportError as error:
    raise ImportError(
        "The router needs FastAPI: pip install 'mcp-unified-memory[fastapi]'", name=error.name, path=error.path
    ) from error

import msgspec

from unified_memory.client import protocol
from unified_memory.client.asynchronous import UnifiedMemoryClient
from unified_memory.client.errors import ServiceUnavailableError, UnexpectedAnswerError
from unified_memory.client.protocol import JSON, PROBLEM, Answer, Call
from unified_memory.model import errors
from unified_memory.model.namespace import DEFAULT_NAMESPACE

PREFIX = "/api/v1/memory"
MCP_PREFIX = "/api/v1/mcp/memory"
SEARCH = f"{protocol.ROOT}/search"

# As the service answers; from the special to the general: the first that fits is taken.
STATUS: tuple[tuple[type[errors.UnifiedMemoryError], int], ...] = (
    (ServiceUnavailableError, 503),
    (UnexpectedAnswerError, 502),
    (errors.GoneError, 410),
    (errors.NotFoundError, 404),
    (errors.MalformedInputError, 400),
    (errors.TooLargeError, 413),
    (errors.InvalidInputError, 422),
    (errors.ConflictError, 409),
    (errors.RefusedError, 403),
    (errors.SourceUnavailableError, 503),
    (errors.SourceError, 422),
    (errors.StorageFullError, 507),
    (errors.StorageBusyError, 503),
    (errors.SchemaTooNewError, 503),
    (errors.SemanticUnavailableError, 503),
    (errors.StorageError, 500),
)
_PRECONDITION_FAILED = 412


def status_of(error: errors.UnifiedMemoryError) -> int:
    """The HTTP status of an error of ours."""
    if getattr(error, "precondition", False):
        return _PRECONDITION_FAILED
    return next((status for kind, status in STATUS if isinstance(error, kind)), 500)


def problem(error: errors.UnifiedMemoryError) -> Response:
    """The answer that tells the error (RFC 9457)."""
    status = status_of(error)
    body: dict[str, Any] = {
        **error.facts,
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": error.detail,
        "code": error.code,
        **({"hint": error.hint} if error.hint else {}),
    }
    retry = error.facts.get("retry_after")
    headers = None if retry is None else {"Retry-After": str(retry)}
    return Response(msgspec.json.encode(body), status, headers, PROBLEM)


def answer(result: Mapping[str, Any]) -> Response:
    """The answer that tells a result, with all digits of its numbers."""
    return Response(protocol.encode(result), media_type=JSON)


class _Key(Convertor[str]):
    """The rest of a path, whatever it holds. Starlette's own `path` ends at a line feed, and would take a key for another."""

    regex = "(?s:.*)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("memory_key", _Key())


class _Request(Request):
    """A request whose JSON is read as the service reads it: all digits, no NaN."""

    async def json(self) -> Any:
        content = await self.body()
        try:
            return protocol.decode(Answer(200, JSON, content))
        except (UnexpectedAnswerError, RecursionError):
            # What FastAPI knows how to tell.
            raise json.JSONDecodeError("The body is not JSON", content.decode("utf-8", "replace"), 0) from None


class MemoryRoute(APIRoute):
    """A route that tells errors of ours as problem+json, those of the request too."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What handles a request."""
        handler = super().get_route_handler()
        known = {parameter.alias for parameter in self.dependant.query_params}

        async def handle(request: Request) -> Response:
            try:
                for name in request.query_params:
                    # Left out of account, it would be answered as if it had not been asked for.
                    if name not in known:
                        raise errors.InvalidInputError(name, f"There is no parameter {name!r} here")
                    if len(request.query_params.getlist(name)) > 1:
                        raise errors.InvalidInputError(name, f"The parameter {name!r} is given twice")
                return await handler(_Request(request.scope, request.receive))
            except errors.UnifiedMemoryError as error:
                return problem(error)
            except RequestValidationError as error:
                first = error.errors()[0]
                if first["type"] == "json_invalid":
                    return problem(errors.MalformedInputError("body", "The body is not JSON"))
                field = ".".join(map(str, first["loc"][1:])) or str(first["loc"][0])
                return problem(errors.InvalidInputError(field, f"{field}: {first['msg']}"))

        return handle


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    def given(self) -> dict[str, Any]:
        """What was named, also where it is null."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class StoreMemoryRequest(_Body):
    """POST /store. `ttl` in seconds, null: never."""

    value: Any
    key: str | None = None
    namespace: str = DEFAULT_NAMESPACE
    ttl: float | None = None
    expires_at: str | None = None
    metadata: dict[str, Any] | None = None
    expected_version: int | None = None


class UpdateMemoryRequest(_Body):
    """PUT /update/{key}: changes what is named only; null in `metadata` removes a field."""

    value: Any = None
    ttl: float | None = None
    expires_at: str | None = None
    metadata: dict[str, Any] | None = None
    expected_version: int | None = None


class PatchMemoryRequest(_Body):
    """PATCH /update/{key}: changes the value from inside."""

    merge: Any = None
    append: dict[str, Any] | None = None
    increment: dict[str, float] | None = None
    expected_version: int | None = None


async def get_memory_client() -> UnifiedMemoryClient | None:
    """The client that routes use before the router's own: an application may override it (`app.dependency_overrides`)."""
    return None


Namespace = Annotated[str, Query(description="The namespace of the key.")]
IdempotencyKey = Annotated[str | None, Header(description="Repeating the request with this key does nothing more.")]
IfMatch = Annotated[str | None, Header(description='Only at this version, as in "3".')]
IfNoneMatch = Annotated[str | None, Header(description="*: only where there is none.")]


def memory_router(
    client: UnifiedMemoryClient | None = None,
    *,
    prefixes: Sequence[str] = (PREFIX,),
    fallback: bool = False,
    tags: Sequence[str] = ("memory",),
) -> APIRouter:
    """Routes that store, retrieve, update, delete, list and search memories of the service.

    Args:
        client: Speaks to the service; it is not closed here. `get_memory_client` comes before it where it is overridden.
        prefixes: Where the routes stand; (PREFIX, MCP_PREFIX) for both places that backends use.
        fallback: Writes and reads of one memory go where the client's operations `with_fallback` go.
        tags: Of the routes in the application's own OpenAPI document.
    """

    async def client_of(
        overriding: Annotated[UnifiedMemoryClient | None, Depends(get_memory_client)],
    ) -> UnifiedMemoryClient:
        found = overriding or client
        if found is None:
            raise errors.UnifiedMemoryError(
                "The router has no client", hint="memory_router(client), or override get_memory_client"
            )
        return found

    routes = APIRouter(route_class=MemoryRoute)
    _add_routes(routes, client_of, fallback=fallback)
    router = APIRouter()
    for prefix in prefixes:
        router.include_router(routes, prefix=prefix, tags=list(tags))
    return router


def _add_routes(
    routes: APIRouter, client_of: Callable[..., Coroutine[Any, Any, UnifiedMemoryClient]], *, fallback: bool
) -> None:
    Client: TypeAlias = Annotated[UnifiedMemoryClient, Depends(client_of)]

    @routes.post("/store")
    async def store_memory(
        request: StoreMemoryRequest,
        client: Client,
        idempotency_key: IdempotencyKey = None,
        if_none_match: IfNoneMatch = None,
    ) -> Response:
        """Stores a whole record; without a key one is minted."""
        if if_none_match not in {None, "*"}:
            raise errors.InvalidInputError("If-None-Match", "Of a write, If-None-Match can only be *")
        store = client.store_with_fallback if fallback else client.store
        given: dict[str, Any] = {**request.given(), "if_none_match": if_none_match is not None}
        return answer(await store(**given, idempotency_key=idempotency_key))

    @routes.get("/retrieve/{key:memory_key}")
    async def retrieve_memory(
        key: str,
        client: Client,
        namespace: Namespace = DEFAULT_NAMESPACE,
        include: Annotated[Literal["search_index"] | None, Query(description="Also tell how it is found.")] = None,
        as_of: Annotated[str | None, Query(description="As it was at that instant.")] = None,
    ) -> Response:
        """The memory of that key."""
        result: Any
        if fallback and include is None and as_of is None:
            result = await client.retrieve_with_fallback(key, namespace)
        else:
            result = await client.retrieve(key, namespace, include_search_index=include is not None, as_of=as_of)
        if result is None:
            raise errors.MemoryNotFoundError(namespace, key)
        return answer(result)

    @routes.put("/update/{key:memory_key}")
    async def update_memory(
        key: str,
        request: UpdateMemoryRequest,
        client: Client,
        namespace: Namespace = DEFAULT_NAMESPACE,
        idempotency_key: IdempotencyKey = None,
    ) -> Response:
        """Changes what is named only."""
        update = client.update_with_fallback if fallback else client.update
        return answer(await update(key, namespace, **request.given(), idempotency_key=idempotency_key))

    @routes.patch("/update/{key:memory_key}")
    async def patch_memory(
        key: str,
        request: PatchMemoryRequest,
        client: Client,
        namespace: Namespace = DEFAULT_NAMESPACE,
        idempotency_key: IdempotencyKey = None,
    ) -> Response:
        """Changes the value from inside."""
        return answer(await client.patch(key, namespace, **request.given(), idempotency_key=idempotency_key))

    @routes.delete("/delete/{key:memory_key}")
    async def delete_memory(
        key: str,
        client: Client,
        namespace: Namespace = DEFAULT_NAMESPACE,
        idempotency_key: IdempotencyKey = None,
        if_match: IfMatch = None,
    ) -> Response:
        """Deletes a memory."""
        delete = client.delete_with_fallback if fallback else client.delete
        version = None if if_match is None else _version(if_match)
        return answer(await delete(key, namespace, expected_version=version, idempotency_key=idempotency_key))

    @routes.get("/list")
    async def list_memories(
        client: Client,
        namespace: str | None = None,
        recursive: bool = True,  # noqa: FBT001, FBT002 - a parameter of the query
        prefix: str | None = None,
        tags: Annotated[str | None, Query(description="Only with all of these, with commas between.")] = None,
        order_by: str | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> Response:
        """Memories in order, a page of them."""
        page = await client.list(
            namespace=namespace,
            recursive=recursive,
            prefix=prefix,
            tags=tags.split(",") if tags else None,
            order_by=order_by,
            limit=limit,
            cursor=cursor,
        )
        return answer(page)

    @routes.post("/search")
    async def search_memories(request: Annotated[dict[str, Any], Body()], client: Client) -> Response:
        """The best hits for words; the body is that of the service's own route."""
        headers = {"Accept": JSON, "Content-Type": JSON}
        content = protocol.encode(request)
        call: Call[Any] = Call(method="POST", target=SEARCH, headers=headers, content=content, safe=True)
        return answer(await client.send(call))

    @routes.get("/health")
    async def memory_health(client: Client) -> Response:
        """How the service is."""
        return answer(await client.health())


def _version(text: str) -> int:
    bare = text.strip().removeprefix("W/").strip('"')
    if not (bare.isascii() and bare.isdigit()):
        raise errors.InvalidInputError("If-Match", 'If-Match must be the ETag of a memory ("3")')
    return int(bare)
