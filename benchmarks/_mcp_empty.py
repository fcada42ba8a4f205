"""An MCP server with one tool that does nothing, on the same SDK: what the protocol alone costs.

Run as a module: with a port over streamable HTTP at /mcp, without over standard input and output.
"""

import asyncio
import sys
from typing import Any

import mcp_types as types
import uvicorn
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from unified_memory.server import server_config

TOOL = "nothing"
READY = "/ready"
Context = ServerRequestContext[Any, Any]


async def _list_tools(_ctx: Context, _params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
    tool = types.Tool(name=TOOL, input_schema={"type": "object", "properties": {}})
    return types.ListToolsResult(tools=[tool])


async def _call_tool(_ctx: Context, _params: types.CallToolRequestParams) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(type="text", text="")])


async def _ready(_request: Request) -> PlainTextResponse:
    return PlainTextResponse("")


def _server() -> Server[Any]:
    return Server("empty", on_list_tools=_list_tools, on_call_tool=_call_tool)


async def _serve_stdio() -> None:
    server = _server()
    async with stdio_server() as (read_stream, write_stream):
        await server.run(read_stream, write_stream, server.create_initialization_options())


def _serve_http(port: int) -> None:
    app = _server().streamable_http_app(stateless_http=True, custom_starlette_routes=[Route(READY, _ready)])
    config = server_config(app, "127.0.0.1", port)
    # The SDK's sessions begin in the lifespan.
    config.lifespan = "on"
    uvicorn.Server(config).run()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _serve_http(int(sys.argv[1]))
    else:
        asyncio.run(_serve_stdio())
