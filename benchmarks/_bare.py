"""A bare ASGI application under the service's server: what HTTP alone costs, which every rate is a share of.

Run as a module with a port.
"""

import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import uvicorn

from unified_memory.server import server_config

Message = MutableMapping[str, Any]

BODY = b'{"bare": "%s"}' % (b"x" * 188)
_HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))]


async def app(
    _scope: Message, _receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """Answers 200 bytes of JSON, whatever is asked."""
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": BODY})


if __name__ == "__main__":
    uvicorn.Server(server_config(app, "127.0.0.1", int(sys.argv[1]))).run()
