"""The ASGI application of REST: the hot routes by hand, all others by Starlette's router."""

import asyncio
import logging
from collections.abc import Callable
from urllib.parse import unquote_to_bytes

from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.routing import Match, Router
from starlette.routing import Route as StarletteRoute

from unified_memory.model.errors import InvalidInputError, UnifiedMemoryError
from unified_memory.model.principal import ANONYMOUS, Principal
from unified_memory.rest import openapi, pages
from unified_memory.rest.exchange import (
    Answer,
    Call,
    Disconnected,
    Receive,
    Scope,
    Send,
    Stream,
    read_body,
    send_answer,
    send_stream,
)
from unified_memory.rest.metrics import Metrics
from unified_memory.rest.migration import Reachable
from unified_memory.rest.problems import FAILED, problem, told
from unified_memory.rest.routes import EVENTS, PREFIXES, ROUTES, Handler, Route
from unified_memory.service.service import Service

log = logging.getLogger("unified_memory.rest")
_BODY_METHODS = {"POST", "PUT", "PATCH"}
# What most requests are: dispatched before any routing, which would cost more than the work.
_HOT_EXACT = {("POST", "/store"), ("POST", "/search")}
_HOT_KEYED = {
    ("GET", "/retrieve/{key}"),
    ("PUT", "/update/{key}"),
    ("PATCH", "/update/{key}"),
    ("DELETE", "/delete/{key}"),
}
# What servers write for a byte of the path that is no UTF-8.
_REPLACEMENT = "\ufffd"


class _Tail(Convertor[str]):
    """All that follows. Starlette's own `path` ends at a newline, so that `acme%0A` would be taken for `acme`."""

    regex = r"[\s\S]*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("tail", _Tail())


class RestApplication:
    """REST over a service. `max_body`: bytes of a request body; `name`: what `/health` calls the service; `reachable`: which
    sources a migration may be given.
    """

    def __init__(
        self, service: Service, *, max_body: int, name: str = "unified-memory", reachable: Reachable | None = None
    ) -> None:
        self._service = service
        self._max_body = max_body
        self._name = name
        self._reachable = reachable or Reachable()
        self.metrics = Metrics(service)
        self._ending = asyncio.Event()
        self._exact: dict[tuple[str, str], Handler] = {}
        # By method and prefix, up to the slash before the key.
        self._keyed: dict[str, list[tuple[str, Handler]]] = {}
        self._router = Router(redirect_slashes=False)
        self._router.routes.extend(self._routes())

    def _routes(self) -> list[StarletteRoute]:
        routes = [StarletteRoute("/openapi.json", _Page(openapi.answer), methods=["GET"])]
        routes += [StarletteRoute(path, _Page(page), methods=["GET"]) for path, page in pages.PAGES.items()]
        for prefix in PREFIXES:
            for route in ROUTES:
                full = prefix + route.path
                if (route.method, route.path) in _HOT_EXACT:
                    self._exact[route.method, full] = route.handler
                if (route.method, route.path) in _HOT_KEYED:
                    self._keyed.setdefault(route.method, []).append((full[: full.index("{")], route.handler))
            events_path, events, _ = EVENTS
            routes.append(StarletteRoute(prefix + events_path, _Routed(self, events), methods=["GET"]))
            routes += [_starlette(prefix, route, self) for route in ROUTES]
        routes += [_starlette("", route, self) for route in ROUTES if route.root]
        return routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        method, path = scope["method"], scope["path"]
        handler = self._exact.get((method, path))
        tail = ""
        if handler is None:
            for start, keyed in self._keyed.get(method, ()):
                if path.startswith(start) and len(path) > len(start):
                    handler, tail = keyed, path[len(start) :]
                    break
        if handler is not None:
            await self.serve(handler, tail, scope, receive, send)
            return
        scope["app"] = self
        try:
            await self._router(scope, receive, send)
        except HTTPException as error:
            await send_answer(send, self._unrouted(scope, error))

    def _unrouted(self, scope: Scope, error: HTTPException) -> Answer:
        """What is said where no route takes the path, or none takes the method."""
        allowed: set[str] = set()
        for route in self._router.routes:
            if isinstance(route, StarletteRoute) and route.matches(scope)[0] is not Match.NONE:
                allowed |= route.methods or set()
        if error.status_code == 405:  # noqa: PLR2004 - Method Not Allowed
            allow = ", ".join(sorted(allowed))
            headers = ((b"allow", allow.encode()),)
            return told(405, f"Here {scope['method']} is not allowed", {"code": "method_not_allowed"}, headers)
        facts = {"code": "no_such_route", "hint": "/docs lists all routes"}
        return told(error.status_code, "There is no such route", facts)

    async def serve(
        self, handler: Handler, tail: str, scope: Scope, receive: Receive, send: Send, *, lines: bool = False
    ) -> None:
        """Reads the request, calls the handler, sends its answer or the problem. `lines`: the handler reads the body itself.

        Raises what breaks a stream that has begun: the server then closes the connection.
        """
        first: bytes | None = None
        try:
            if not tail.isascii() and _REPLACEMENT in tail:
                check_path(scope)
            call = Call(self.principal(scope), tail, scope)
            if lines:
                call.receive = receive
            elif scope["method"] in _BODY_METHODS:
                call.body = await read_body(scope, receive, self._max_body)
            answer = await handler(self._service, call)
            if isinstance(answer, Stream):
                if scope["method"] == "HEAD":
                    # It has ended before its first piece.
                    await answer.close()
                else:
                    first = await anext(answer.pieces, None)
        except UnifiedMemoryError as error:
            answer = problem(error)
        except Disconnected:
            return
        except Exception:
            # The outermost boundary: the caller learns that it was our fault, the log why.
            log.exception("Unexpected failure in %s %s", scope["method"], handler.__name__)
            answer = FAILED
        if isinstance(answer, Stream):
            await send_stream(send, receive, answer, first, self._ending)
        else:
            await send_answer(send, answer)

    def end_streams(self) -> None:
        """Ends every stream that would never end by itself, and lets no other go on: the service is about to stop."""
        self._ending.set()

    def principal(self, _scope: Scope) -> Principal:
        """Who calls."""
        return ANONYMOUS

    @property
    def service(self) -> Service:
        """What is served."""
        return self._service

    @property
    def name(self) -> str:
        """What the service calls itself."""
        return self._name

    @property
    def reachable(self) -> Reachable:
        """Which sources a migration may be given."""
        return self._reachable


def check_path(scope: Scope) -> None:
    """Raises InvalidInputError where the path was not UTF-8: the name that it seems to hold was never sent."""
    try:
        unquote_to_bytes(scope.get("raw_path") or b"").decode()
    except UnicodeDecodeError:
        raise InvalidInputError("path", "The path is not percent-encoded UTF-8") from None


def pattern_of(path: str) -> str:
    """A route's path as Starlette takes it: a parameter at its end takes slashes too, unless other routes go on behind it."""
    if path.endswith("}") and not any(route.path.startswith(f"{path}/") for route in ROUTES):
        return path[:-1] + ":tail}"
    return path


def _starlette(prefix: str, route: Route, application: RestApplication) -> StarletteRoute:
    endpoint = _Routed(application, route.handler, lines=route.lines)
    return StarletteRoute(prefix + pattern_of(route.path), endpoint, methods=[route.method])


class _Routed:
    """A handler as an ASGI application. `lines`: it reads the body itself."""

    def __init__(self, application: RestApplication, handler: Handler, *, lines: bool = False) -> None:
        self._application = application
        self._handler = handler
        self._lines = lines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["unified_memory.name"] = self._application.name
        scope["unified_memory.metrics"] = self._application.metrics
        scope["unified_memory.reachable"] = self._application.reachable
        tail = next(iter(scope["path_params"].values()), "")
        await self._application.serve(self._handler, tail, scope, receive, send, lines=self._lines)


class _Page:
    """Something that is the same for everyone."""

    def __init__(self, make: Callable[[], Answer]) -> None:
        self._make = make

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await send_answer(send, self._make())
