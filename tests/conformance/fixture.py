"""The service as it is, and beside its own tools those that the conformance suite of MCP asks for by name.

`python -m tests.conformance.fixture DIRECTORY` serves them below `/mcp` on a free port of this machine, over a store in
the directory, and writes the port to standard output once it listens. Endpoint, transport and server are the product's;
what its tools and prompts cannot say (images, sound, questions to the client) is answered before it, at the SDK's level.
"""

import asyncio
import json
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mcp_types as types
import uvicorn
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.subscriptions import PromptsListChanged, ServerEvent, ToolsListChanged

from unified_memory.app import App
from unified_memory.bootstrap import build
from unified_memory.mcp.endpoint import MCPEndpoint
from unified_memory.mcp.profiles import profile
from unified_memory.mcp.schema import Schema, obj, text
from unified_memory.mcp.server import WHOLE, Bus, MemoryServer
from unified_memory.mcp.tool import Answer, Arguments, Call, Profile, Prompt, ProtocolError, Run, Tool
from unified_memory.model.errors import RefusedError
from unified_memory.server import listen, server_config
from unified_memory.settings import Settings

Context = ServerRequestContext[Any, Any]
Block = dict[str, Any]
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg=="
WAV = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAA="


class FixtureEndpoint(MCPEndpoint):
    """The endpoint, with the fixtures in every profile."""

    async def _manager(self, name: str) -> StreamableHTTPSessionManager:
        manager = await super()._manager(name)
        if manager.app.name != FIXTURE:
            transports = await self.transports()
            bus = transports.bus
            chosen = with_fixtures(profile(name), bus)
            server = MemoryServer(chosen, self._service, transports.watch, bus, name=FIXTURE)
            extend(server.sdk)
            manager.app = server.sdk
        return manager


FIXTURE = "conformance"


# ---- what the product's own tools and prompts can say
def with_fixtures(ours: Profile, bus: Bus) -> Profile:
    """The profile and, after its own, the tools and prompts of the suite."""
    tools = (
        _tool("test_simple_text", _says("This is a simple text response for testing.")),
        _tool("test_logging_tool", _says("Nothing is logged to a client.")),
        _tool("test_error_handling", _fails),
        _tool("test_tool_with_progress", _progresses),
        _tool("test_missing_capability", _lacks_sampling),
        _tool("test_trigger_tool_change", _publishes(bus, ToolsListChanged())),
        _tool("test_trigger_prompt_change", _publishes(bus, PromptsListChanged())),
        _tool("json_schema_2020_12_tool", _says("Understood."), JSON_SCHEMA),
        _tool("test_header", _says("Understood."), obj(region=text("A region.", **{"x-mcp-header": "Region"}))),
    )
    prompts = (
        Prompt(
            name="test_simple_prompt",
            title="Simple",
            description="Without arguments.",
            render=lambda _arguments: "This is a simple prompt for testing.",
        ),
        Prompt(
            name="test_prompt_with_arguments",
            title="With arguments",
            description="With two arguments.",
            arguments=(("arg1", "The first.", True), ("arg2", "The second.", True)),
            render=lambda given: f"Prompt with arguments: arg1='{given['arg1']}', arg2='{given['arg2']}'",
        ),
    )
    return Profile(
        name=ours.name,
        instructions=ours.instructions,
        tools=(*ours.tools, *tools),
        prompts=(*ours.prompts, *prompts),
        resources=ours.resources,
    )


JSON_SCHEMA: Schema = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}


def _tool(name: str, run: Run, schema: Schema | None = None) -> Tool:
    return Tool(name=name, title=name, description="For the conformance suite.", input=schema or obj(), run=run)


def _says(words: str) -> Run:
    async def run(_call: Call, _arguments: Arguments) -> Answer:
        return Answer(words)

    return run


def _publishes(bus: Bus, event: ServerEvent) -> Run:
    async def run(_call: Call, _arguments: Arguments) -> Answer:
        await bus.publish(event)
        return Answer("Told.")

    return run


async def _fails(_call: Call, _arguments: Arguments) -> Answer:
    raise RefusedError("This tool intentionally returns an error for testing")


async def _progresses(call: Call, _arguments: Arguments) -> Answer:
    for done in (0, 50, 100):
        await call.report(done, 100, None)
    return Answer("Done.")


async def _lacks_sampling(_call: Call, _arguments: Arguments) -> Answer:
    told: Block = {"requiredCapabilities": {"sampling": {}}}
    raise ProtocolError(types.MISSING_REQUIRED_CLIENT_CAPABILITY, "This tool needs sampling", told)


# ---- what they cannot say
def extend(sdk: Server[Any]) -> None:
    """Answers the fixtures of the SDK's level; everything else goes to the server as before."""
    _before(sdk, "tools/call", _call_tool)
    _before(sdk, "prompts/get", _get_prompt)
    _before(sdk, "resources/read", _read_resource)
    sdk.add_request_handler("completion/complete", types.CompleteRequestParams, _complete)
    sdk.middleware.append(RequestStateBoundary(RequestStateSecurity.ephemeral(), default_audience=FIXTURE))


def _before(sdk: Server[Any], method: str, answer: Callable[[Context, Any], Block | None]) -> None:
    entry = sdk.get_request_handler(method)
    assert entry is not None, method

    async def handle(ctx: Context, params: Any) -> Any:
        told = answer(ctx, params)
        return await entry.handler(ctx, params) if told is None else {**WHOLE, **told}

    sdk.add_request_handler(method, entry.params_type, handle)


def _words(words: str) -> Block:
    return {"type": "text", "text": words}


def _embedded(uri: str, kind: str, words: str) -> Block:
    return {"type": "resource", "resource": {"uri": uri, "mimeType": kind, "text": words}}


IMAGE: Block = {"type": "image", "data": PNG, "mimeType": "image/png"}
CONTENTS: dict[str, list[Block]] = {
    "test_image_content": [IMAGE],
    "test_audio_content": [{"type": "audio", "data": WAV, "mimeType": "audio/wav"}],
    "test_embedded_resource": [
        _embedded("test://embedded-resource", "text/plain", "This is an embedded resource content.")
    ],
    "test_multiple_content_types": [
        _words("Multiple content types test:"),
        IMAGE,
        _embedded("test://mixed-content-resource", "application/json", '{"test":"data","value":123}'),
    ],
}


def _elicit(message: str, property_: str, kind: str = "string") -> Block:
    schema = {"type": "object", "properties": {property_: {"type": kind}}, "required": [property_]}
    return {"method": "elicitation/create", "params": {"message": message, "requestedSchema": schema}}


def _sample(words: str, tokens: int) -> Block:
    messages = [{"role": "user", "content": _words(words)}]
    return {"method": "sampling/createMessage", "params": {"messages": messages, "maxTokens": tokens}}


ROOTS: Block = {"method": "roots/list", "params": {}}
NAME = _elicit("What is your name?", "name")
# What must be known before a call is done, round by round.
QUESTIONS: dict[str, list[dict[str, Block]]] = {
    "test_streaming_elicitation": [{"user_name": NAME}],
    "test_input_required_result_elicitation": [{"user_name": NAME}],
    "test_input_required_result_sampling": [{"capital_question": _sample("What is the capital of France?", 100)}],
    "test_input_required_result_list_roots": [{"client_roots": ROOTS}],
    "test_input_required_result_request_state": [{"confirm": _elicit("Please confirm", "ok", "boolean")}],
    "test_input_required_result_tampered_state": [{"confirm": _elicit("Please confirm", "ok", "boolean")}],
    "test_input_required_result_capabilities": [{"user_name": NAME, "greeting": _sample("Generate a greeting", 50)}],
    "test_input_required_result_multiple_inputs": [
        {"user_name": NAME, "greeting": _sample("Generate a greeting", 50), "client_roots": ROOTS}
    ],
    "test_input_required_result_multi_round": [
        {"step1": _elicit("Step 1: What is your name?", "name")},
        {"step2": _elicit("Step 2: What is your favorite color?", "color")},
    ],
    "test_input_required_result_prompt": [{"user_context": _elicit("What context should the prompt use?", "context")}],
}
CAPABILITY_OF = {"elicitation/create": "elicitation", "sampling/createMessage": "sampling", "roots/list": "roots"}


def _asked(ctx: Context, params: types.CallToolRequestParams | types.GetPromptRequestParams) -> Block | None:
    """The questions of the round that the request is in; None once all of them are answered."""
    rounds = QUESTIONS[params.name]
    at = int(params.request_state or 0)
    if rounds[at].keys() <= (params.input_responses or {}).keys():
        at += 1
    if at == len(rounds):
        return None
    declared = ctx.session.client_capabilities
    wanted = {
        key: one for key, one in rounds[at].items() if getattr(declared, CAPABILITY_OF[one["method"]], None) is not None
    }
    return {"resultType": "input_required", "inputRequests": wanted, "requestState": str(at)}


def _answered(params: types.CallToolRequestParams | types.GetPromptRequestParams) -> Block:
    told = params.model_dump(mode="json", by_alias=True, exclude_none=True)["inputResponses"]
    return _words(("state-ok " if params.request_state else "") + json.dumps(told))


def _call_tool(ctx: Context, params: types.CallToolRequestParams) -> Block | None:
    if params.name in CONTENTS:
        return {"content": CONTENTS[params.name]}
    if params.name in QUESTIONS:
        return _asked(ctx, params) or {"content": [_answered(params)]}
    return None


def _get_prompt(ctx: Context, params: types.GetPromptRequestParams) -> Block | None:
    if params.name in QUESTIONS:
        return _asked(ctx, params) or {"messages": [{"role": "user", "content": _answered(params)}]}
    if params.name == "test_prompt_with_embedded_resource":
        uri = (params.arguments or {})["resourceUri"]
        blocks = [
            _embedded(uri, "text/plain", "Embedded resource content for testing."),
            _words("Please process the embedded resource above."),
        ]
    elif params.name == "test_prompt_with_image":
        blocks = [IMAGE, _words("Please analyze the image above.")]
    else:
        return None
    return {"messages": [{"role": "user", "content": block} for block in blocks]}


RESOURCES: dict[str, Block] = {
    "test://static-text": {
        "mimeType": "text/plain",
        "text": "This is the content of the static text resource.",
    },
    "test://static-binary": {"mimeType": "image/png", "blob": PNG},
    "test://template/123/data": {
        "mimeType": "application/json",
        "text": '{"id":"123","templateTest":true,"data":"Data for ID: 123"}',
    },
}


def _read_resource(_ctx: Context, params: types.ReadResourceRequestParams) -> Block | None:
    found = RESOURCES.get(params.uri)
    return None if found is None else {"contents": [{"uri": params.uri, **found}]}


async def _complete(_ctx: Context, _params: types.CompleteRequestParams) -> Any:
    return {**WHOLE, "completion": {"values": [], "total": 0, "hasMore": False}}


# ---- the process
async def _serve(app: App, config: uvicorn.Config, listening: socket.socket) -> None:
    await app.start()
    sys.stdout.write(f"{listening.getsockname()[1]}\n")
    sys.stdout.flush()
    try:
        await uvicorn.Server(config).serve(sockets=[listening])
    finally:
        await app.stop()


def main(directory: Path) -> None:
    """Serves until it is told to stop."""
    settings = Settings(data_dir=directory, port=0)
    with listen(settings) as listening:
        app = App(build(settings), settings)
        app.mcp = FixtureEndpoint(
            app.service,
            name=settings.service_name,
            tools=settings.tools,
            max_body=settings.max_body_bytes,
            local=settings.local,
        )
        config = server_config(app, settings.host, settings.port)
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(_serve(app, config, listening))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
