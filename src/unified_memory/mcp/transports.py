"""What the endpoint needs of the SDK, in one place. Importing this loads the SDK."""

from collections.abc import AsyncIterator

from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings

from unified_memory.mcp.lines import Write, serve_lines
from unified_memory.mcp.server import Bus, MemoryServer
from unified_memory.mcp.tool import Profile
from unified_memory.mcp.watch import Watch
from unified_memory.service.service import Service

# What a page of another origin would have to name to be let in where only this machine can reach the service.
LOCAL_HOSTS = ["127.0.0.1", "localhost", "[::1]", "127.0.0.1:*", "localhost:*", "[::1]:*"]
LOCAL_ORIGINS = [f"http://{host}" for host in LOCAL_HOSTS]


class Transports:
    """Profiles over one service, by HTTP and by lines; all of them hear of the same changes."""

    def __init__(self, service: Service, name: str) -> None:
        self._service = service
        self._name = name
        self.watch = Watch(service.storage)
        self.bus = Bus(self.watch)
        self._servers: list[MemoryServer] = []

    def over_http(self, profile: Profile, *, max_body: int, local: bool) -> StreamableHTTPSessionManager:
        """The SDK's manager of a profile, not yet running. `local`: Host and Origin must name this machine."""
        server = MemoryServer(profile, self._service, self.watch, self.bus, name=self._name)
        self._servers.append(server)
        security = TransportSecuritySettings(
            enable_dns_rebinding_protection=local, allowed_hosts=LOCAL_HOSTS, allowed_origins=LOCAL_ORIGINS
        )
        return StreamableHTTPSessionManager(
            server.sdk, stateless=True, security_settings=security, max_request_body_size=max_body
        )

    async def over_lines(self, profile: Profile, session: str, lines: AsyncIterator[bytes], write: Write) -> None:
        """Serves one connection until its lines end."""
        server = MemoryServer(
            profile, self._service, self.watch, self.bus, name=self._name, session=session, duplex=True
        )
        await serve_lines(server, lines, write)

    def end_streams(self) -> None:
        """Ends the subscriptions over HTTP, which would keep their connections open for ever."""
        for server in self._servers:
            server.end_streams()
