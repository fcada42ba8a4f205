"""The tools, resources and prompts of a profile as a server of the official SDK. Importing this loads the SDK."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import mcp_types as types
from mcp.server.caching import CacheableMethod, CacheHint
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.lowlevel.server import NotificationOptions
from mcp.server.models import InitializationOptions
from mcp.server.subscriptions import ListenHandler, ResourcesListChanged, ResourceUpdated, ServerEvent
from mcp.shared.exceptions import MCPError
from msgspec import UNSET

from unified_memory import __version__
from unified_memory.mcp import resources
from unified_memory.mcp.tool import Answer, Call, Profile, ProtocolError, Tool, call_tool
from unified_memory.mcp.watch import Watch, resource_uri
from unified_memory.model.errors import NotFoundError, UnifiedMemoryError
from unified_memory.model.principal import ANONYMOUS, Principal
from unified_memory.service.service import Service
from unified_memory.storage.base import Change

Context = ServerRequestContext[Any, Any]
# A list is the program's own: it changes with an upgrade only.
LISTS_HINT = CacheHint(ttl_ms=300_000, scope="public")
# What is remembered changes at any moment, and is the caller's own.
MEMORIES_HINT = CacheHint(ttl_ms=0, scope="private")
HINTS: dict[CacheableMethod, CacheHint] = {
    "tools/list": LISTS_HINT,
    "prompts/list": LISTS_HINT,
    "resources/templates/list": LISTS_HINT,
    "resources/list": MEMORIES_HINT,
    "resources/read": MEMORIES_HINT,
}
# Results of the present era say that they are whole; those of the older ones leave it out.
WHOLE = {"resultType": "complete"}
TITLE = "Unified memory"


class Bus:
    """The SDK's seam for subscriptions of the present era, over the watch."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._listeners: dict[object, Callable[[ServerEvent], None]] = {}
        self._stop: Callable[[], None] | None = None
        self._starting = asyncio.Lock()

    async def publish(self, event: ServerEvent) -> None:
        """Tells everyone."""
        for listener in list(self._listeners.values()):
            listener(event)

    def subscribe(self, listener: Callable[[ServerEvent], None]) -> Callable[[], None]:
        """Tells the listener from now on; gives what ends that."""
        token = object()
        self._listeners[token] = listener

        def unsubscribe() -> None:
            self._listeners.pop(token, None)
            if not self._listeners and self._stop is not None:
                self._stop()
                self._stop = None

        return unsubscribe

    async def start(self) -> None:
        """Begins to watch, where it has not begun; to be called before the first listener is told that it is heard.

        Raises StorageError.
        """
        async with self._starting:
            if self._stop is None:
                self._stop = await self._watch.listen(self._changed)

    def _changed(self, change: Change) -> None:
        for event in _events(change):
            for listener in list(self._listeners.values()):
                listener(event)


def _events(change: Change) -> list[ServerEvent]:
    updated = ResourceUpdated(resource_uri(change.namespace, change.key))
    return [updated, ResourceUpdated(resources.STARTUP), *([ResourcesListChanged()] if _listed(change) else [])]


def _listed(change: Change) -> bool:
    """Whether the change is one of the list: something came or went."""
    return change.deleted or change.version == 1


class MemoryServer:
    """A profile over the service, for one connection (`session`: names it) or for all requests of an HTTP endpoint (None)."""

    def __init__(
        self,
        profile: Profile,
        service: Service,
        watch: Watch,
        bus: Bus,
        *,
        name: str,
        session: str | None = None,
        duplex: bool = False,
        principal: Principal = ANONYMOUS,
    ) -> None:
        self._profile = profile
        self._tool_list = {**WHOLE, "tools": [tool_entry(tool) for tool in profile.tools]}
        self._service = service
        self._watch = watch
        self._bus = bus
        self._streams = ListenHandler(bus)
        self._principal = principal
        self._session = session
        self._subscribed: set[str] = set()
        self._stop_listening: Callable[[], None] | None = None
        self._notify: Callable[[str], Any] | None = None
        # By the address: a client that does not read is told once, however often the memory changes meanwhile.
        self._notifying: dict[str, asyncio.Task[None]] = {}
        # What the present call adds to its result beyond the protocol, by the call's context.
        self._extra: dict[int, dict[str, Any]] = {}
        # The calls of one connection are done in the order in which they came.
        self._turn = asyncio.Lock() if duplex else contextlib.nullcontext()
        served: dict[str, Any] = {}
        if profile.resources:
            served = {
                "on_list_resources": self._list_resources,
                "on_list_resource_templates": self._list_templates,
                "on_read_resource": self._read_resource,
                "on_subscriptions_listen": self._listen,
            }
            if duplex:
                served |= {"on_subscribe_resource": self._subscribe, "on_unsubscribe_resource": self._unsubscribe}
        if profile.prompts:
            served |= {"on_list_prompts": self._list_prompts, "on_get_prompt": self._get_prompt}
        self.sdk: Server[Any] = Server(
            name,
            version=__version__,
            title=TITLE,
            instructions=profile.instructions or None,
            cache_hints=HINTS,
            get_tool_input_schema=self._input_schema,
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
            **served,
        )
        self.sdk.middleware.append(self._with_extra)

    @property
    def options(self) -> InitializationOptions:
        """What the handshake of older clients is answered with."""
        return self.sdk.create_initialization_options(NotificationOptions(resources_changed=self._profile.resources))

    def end_streams(self) -> None:
        """Ends the subscriptions of the present era: each is answered."""
        self._streams.close()

    def close(self) -> None:
        """Ends the subscriptions of the connection."""
        if self._stop_listening is not None:
            self._stop_listening()
            self._stop_listening = None

    # ---- tools
    def _input_schema(self, name: str) -> dict[str, Any] | None:
        tool = self._profile.tool(name)
        return None if tool is None else tool.input

    async def _list_tools(self, _ctx: Context, _params: types.PaginatedRequestParams | None) -> Any:
        return self._tool_list

    async def _call_tool(self, ctx: Context, params: types.CallToolRequestParams) -> Any:
        # By the number of the line and not the id: some clients use one again.
        key = None if self._session is None else f"{self._session}:{ctx.request}"
        call = Call(self._service, self._principal, key, ctx.session.report_progress)
        try:
            async with self._turn:
                answer = await call_tool(self._profile, call, params.name, params.arguments or {})
        except ProtocolError as error:
            raise MCPError(error.code, error.message, error.data) from None
        extra = dict(answer.extra)
        if answer.structured is not UNSET:
            # Revisions before 2025-06-18 do not know it; older servers gave it all the same.
            extra["structuredContent"] = answer.structured
        if extra:
            self._extra[id(ctx)] = extra
        return result_of(answer)

    async def _with_extra(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        try:
            result = await call_next(ctx)
        finally:
            extra = self._extra.pop(id(ctx), None)
        return {**extra, **result} if extra and isinstance(result, dict) else result

    # ---- prompts
    async def _list_prompts(self, _ctx: Context, _params: types.PaginatedRequestParams | None) -> Any:
        return {
            **WHOLE,
            "prompts": [
                {
                    "name": prompt.name,
                    "title": prompt.title,
                    "description": prompt.description,
                    "arguments": [
                        {"name": name, "description": text, "required": required}
                        for name, text, required in prompt.arguments
                    ],
                }
                for prompt in self._profile.prompts
            ],
        }

    async def _get_prompt(self, _ctx: Context, params: types.GetPromptRequestParams) -> Any:
        prompt = next((one for one in self._profile.prompts if one.name == params.name), None)
        if prompt is None:
            raise MCPError(types.INVALID_PARAMS, f"Unknown prompt: {params.name}")
        arguments = params.arguments or {}
        missing = [name for name, _, required in prompt.arguments if required and not arguments.get(name)]
        if missing:
            raise MCPError(types.INVALID_PARAMS, f"Missing argument: {missing[0]}")
        text = prompt.render(arguments)
        return {
            **WHOLE,
            "description": prompt.description,
            "messages": [{"role": "user", "content": {"type": "text", "text": text}}],
        }

    # ---- resources
    async def _list_resources(self, _ctx: Context, params: types.PaginatedRequestParams | None) -> Any:
        cursor = None if params is None else params.cursor
        return await _told(resources.list_resources(self._service, self._principal, cursor))

    async def _list_templates(self, _ctx: Context, _params: types.PaginatedRequestParams | None) -> Any:
        return {**WHOLE, "resourceTemplates": resources.TEMPLATES}

    async def _read_resource(self, _ctx: Context, params: types.ReadResourceRequestParams) -> Any:
        uri = str(params.uri)
        return await _told(resources.read_resource(self._service, self._principal, uri), uri=uri)

    async def _listen(self, ctx: Context, params: types.SubscriptionsListenRequestParams) -> Any:
        try:
            await self._bus.start()
        except UnifiedMemoryError as error:
            raise MCPError(types.INTERNAL_ERROR, error.detail, {"code": error.code, **error.facts}) from None
        return await self._streams(ctx, params)

    async def _subscribe(self, ctx: Context, params: types.SubscribeRequestParams) -> Any:
        uri = str(params.uri)
        if not resources.known_prefix(uri):
            raise MCPError(types.INVALID_PARAMS, f"There is no resource {uri}")
        self._subscribed.add(uri)
        self._notify = ctx.session.send_resource_updated
        async with self._turn:
            # In turn, as two that come at once would each begin to listen.
            if self._stop_listening is None:
                self._stop_listening = await self._watch.listen(self._changed)
        return {}

    async def _unsubscribe(self, _ctx: Context, params: types.UnsubscribeRequestParams) -> Any:
        self._subscribed.discard(str(params.uri))
        if not self._subscribed:
            self.close()
        return {}

    def _changed(self, change: Change) -> None:
        if not self._principal.sees(change.namespace):
            return
        for event in _events(change):
            if not isinstance(event, ResourceUpdated) or event.uri not in self._subscribed or self._notify is None:
                continue
            if (under_way := self._notifying.get(event.uri)) is None or under_way.done():
                self._notifying[event.uri] = asyncio.ensure_future(self._notify(event.uri))


async def _told(answer: Any, **facts: Any) -> Any:
    """The answer; an error of the tree becomes one of JSON-RPC with its code and facts, and these."""
    try:
        return {**WHOLE, **await answer}
    except NotFoundError as error:
        raise MCPError(types.INVALID_PARAMS, error.detail, {"code": error.code, **error.facts, **facts}) from None
    except UnifiedMemoryError as error:
        raise MCPError(types.INTERNAL_ERROR, error.detail, {"code": error.code, **error.facts, **facts}) from None


def tool_entry(tool: Tool) -> dict[str, Any]:
    """A tool as `tools/list` tells it."""
    entry: dict[str, Any] = {
        "name": tool.name,
        "title": tool.title,
        "description": tool.description,
        "inputSchema": tool.input,
        "annotations": {
            "readOnlyHint": tool.read_only,
            "destructiveHint": tool.destructive,
            "idempotentHint": tool.idempotent,
            "openWorldHint": False,
        },
    }
    if tool.output is not None:
        entry["outputSchema"] = _or_error(tool.output)
    return entry


def _or_error(output: dict[str, Any]) -> dict[str, Any]:
    """The schema of an answer or of an error: some clients hold a failed result to it too."""
    told = {name: part for name, part in output.items() if name != "required"}
    return {**told, "properties": {**output.get("properties", {}), "error": {"type": "object"}}}


def result_of(answer: Answer) -> dict[str, Any]:
    """An answer as the result of `tools/call`."""
    content = [] if answer.text is None else [{"type": "text", "text": answer.text}]
    result: dict[str, Any] = {**WHOLE, "content": content, "isError": answer.is_error}
    if isinstance(answer.structured, dict):
        result["structuredContent"] = answer.structured
    return result
