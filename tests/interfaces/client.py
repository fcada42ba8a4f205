"""Operations of the Python client."""

from typing import Any

import httpx2

from tests.interfaces.scenarios import Arguments
from unified_memory.client import UnifiedMemoryClient, protocol


class ClientInterface:
    """The asynchronous client; the other one is made of the same functions."""

    def __init__(self, application: Any) -> None:
        self._client = UnifiedMemoryClient("http://memory.test", transport=httpx2.ASGITransport(application))

    async def do(self, operation: str, arguments: Arguments) -> Any:
        if operation == "retrieve":
            # The client's own `retrieve` gives None where there is none: here the error is wanted.
            return await self._client.send(protocol.fetch(**arguments))
        at: Any = self._client
        for name in operation.split("."):
            at = getattr(at, name)
        return await at(**arguments)

    async def close(self) -> None:
        await self._client.close()
