"""Connections to the servers, and which server each of them reaches.

Nothing is ever sent again by itself: what was sent to a server that has gone since may have been done, and what answers now
may be another server. A connection asks its server who it is when it is made and then once a second, and carries nothing
to one that `allowed` does not name.
"""

import asyncio
from collections.abc import Callable, Sequence
from hashlib import blake2b
from types import TracebackType
from typing import Any

from redis import asyncio as aredis
from redis import exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot

from unified_memory.storage.redis.scripts import NAMES
from unified_memory.storage.redis.url import Address, Servers
from unified_memory.storage.untold import elapsed

CONNECT_SECONDS = 0.2
OPERATION_SECONDS = 0.1
_IDENTITY_SECONDS = 1.0
_MOST_LINES = 16
_SLOTS = 16_384

Command = tuple[bytes | str | int, ...]
_Connection = aredis.Connection | aredis.UnixDomainSocketConnection


class StrangeServerError(exceptions.RedisError):
    """The server is none of those that the era is kept on."""


class NonsenseError(exceptions.RedisError):
    """An answer that the command does not have."""


class NotMasterError(exceptions.ConnectionError):
    """The server follows another one."""


# What may be raised by whatever asks a server.
TROUBLES = (exceptions.RedisError, OSError, TimeoutError)


class _Line:
    """A connection to one address."""

    def __init__(self, connection: _Connection, db: int) -> None:
        self._connection = connection
        self._db = db
        self.identity = ""
        self.checked_at = float("-inf")

    async def ask(self, commands: Sequence[Command]) -> list[Any]:
        """The answers in order; errors that the server answered are among them.

        Raises one of TROUBLES; the connection is closed then, as it is where the task is cancelled: an answer for which nobody
        waits any more would be taken for that of the next command.
        """
        connection = self._connection
        try:
            await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
            answers: list[Any] = []
            for _ in commands:
                try:
                    answers.append(await connection.read_response())
                except exceptions.ResponseError as error:
                    answers.append(error)
        except (ValueError, MemoryError):
            # The library has made nothing of an error that was answered, or was told to make room for more than there is.
            await self.close()
            raise NonsenseError("An error was answered that is none") from None
        except BaseException:
            await self.close()
            raise
        return answers

    async def connect(self) -> None:
        await self._connection.connect()  # type: ignore[no-untyped-call] # the library does not say that it gives nothing

    async def identify(self) -> None:
        """Asks the server who it is: the run of its process, the history of its data, and the database."""
        [text] = await self.ask([("INFO", "server", "replication")])
        if isinstance(text, exceptions.ResponseError):
            raise text
        if not isinstance(text, bytes):
            raise NonsenseError("INFO was not answered with text")
        facts = dict(line.partition(b":")[::2] for line in text.splitlines())
        if facts.get(b"role") != b"master":
            raise NotMasterError("The server is a replica")
        if not facts.get(b"run_id"):
            raise NonsenseError("INFO names no run_id")
        told = b"%b %b %d" % (facts[b"run_id"], facts.get(b"master_replid", b""), self._db)
        self.identity = blake2b(told, digest_size=12).hexdigest()
        self.checked_at = elapsed()

    async def close(self) -> None:
        await self._connection.disconnect(nowait=True)


class Link:
    """The servers of a REDIS_URL. `allowed` names the servers that commands may reach at this instant."""

    def __init__(self, servers: Servers, allowed: Callable[[], frozenset[str]]) -> None:
        self._servers = servers
        self._allowed = allowed
        self._free: dict[Address, list[_Line]] = {}
        self._rooms: dict[Address, asyncio.Semaphore] = {}
        # Who answered at an address, and when.
        self._identities: dict[Address, tuple[str, float]] = {}
        self._failures: dict[Address, int] = {}
        # Who has said last that a slot is on another server by now; it may take a while until all of them know.
        self._knows: Address | None = None
        # Cluster: the last slot of each range with its address, rising. Otherwise one range.
        self._ranges: list[tuple[int, Address]] = []
        if servers.kind == "single":
            self._ranges = [(_SLOTS, servers.addresses[0])]
        elif servers.kind == "unix":
            self._ranges = [(_SLOTS, (servers.path, 0))]

    async def ask(self, requests: Sequence[tuple[bytes, Command]], *, strangers: bool = False) -> list[Any]:
        """The answers to commands, each with the key that says where it goes, in order.

        With `strangers` also of servers that are not allowed. Raises one of TROUBLES, also for an error that a server answers;
        some may have been done then.
        """
        try:
            return await self._ask(requests, strangers=strangers)
        except exceptions.MovedError as error:
            # The slot is on another server by now, and the command was not done. Others beside it may have been: each of
            # them may be done twice.
            if self._servers.kind != "cluster":
                raise
            self._forget_places()
            self._knows = (error.host, error.port) if error.host else None
            return await self._ask(requests, strangers=strangers)

    async def _ask(self, requests: Sequence[tuple[bytes, Command]], *, strangers: bool) -> list[Any]:
        if not self._ranges:
            await self._find()
        if len(self._ranges) == 1:
            return await self._exchange(self._ranges[0][1], [command for _, command in requests], strangers=strangers)
        groups: dict[Address, list[int]] = {}
        for at, (key, _) in enumerate(requests):
            groups.setdefault(self._place(key), []).append(at)
        answers: list[Any] = [None] * len(requests)

        async def one(address: Address, places: list[int]) -> None:
            got = await self._exchange(address, [requests[at][1] for at in places], strangers=strangers)
            for at, answer in zip(places, got, strict=True):
                answers[at] = answer

        tasks = [asyncio.create_task(one(address, places)) for address, places in groups.items()]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return answers

    async def servers(self, *, anew: bool = False) -> frozenset[str]:
        """Who the servers are, as told a second ago at most, or `anew`. Raises one of TROUBLES."""
        if not self._ranges:
            await self._find()
        found = set()
        for address in dict.fromkeys(address for _, address in self._ranges):
            identity, checked_at = self._identities.get(address, ("", float("-inf")))
            if anew or elapsed() - checked_at > _IDENTITY_SECONDS:
                async with self._room(address):
                    line = await self._take(address, anew=anew)
                    self._free.setdefault(address, []).append(line)
                    identity = line.identity
            found.add(identity)
        return frozenset(found)

    async def close(self) -> None:
        """Closes every connection that is not in use."""
        for lines in self._free.values():
            for line in lines:
                await line.close()
        self._free.clear()
        # Transports close in the loop's next round.
        await asyncio.sleep(0)

    def _room(self, address: Address) -> asyncio.Semaphore:
        room = self._rooms.get(address)
        if room is None:
            room = self._rooms[address] = asyncio.Semaphore(_MOST_LINES)
        return room

    async def _exchange(self, address: Address, commands: Sequence[Command], *, strangers: bool) -> list[Any]:
        failures = self._failures.get(address, 0)
        async with self._room(address):
            if self._failures.get(address, 0) != failures:
                # Whoever stood in line when it failed does not try in turn.
                raise exceptions.ConnectionError("The server has failed meanwhile")
            line = await self._take(address)
            if not strangers and line.identity not in self._allowed():
                self._free.setdefault(address, []).append(line)
                raise StrangeServerError("The era is not kept on this server")
            try:
                async with _patience(OPERATION_SECONDS):
                    answers = await line.ask(commands)
                    missing = [at for at, answer in enumerate(answers) if isinstance(answer, exceptions.NoScriptError)]
                    if missing:
                        await line.ask([("SCRIPT", "LOAD", script) for script in NAMES])
                        for at, answer in zip(missing, await line.ask([commands[at] for at in missing]), strict=True):
                            answers[at] = answer
            except TROUBLES:
                await self._gone(address)
                raise
            self._free.setdefault(address, []).append(line)
        for answer in answers:
            if isinstance(answer, exceptions.ResponseError):
                raise answer
        return answers

    async def _take(self, address: Address, *, anew: bool = False) -> _Line:
        """A connection, made where none is free, that has told who it reaches a second ago at most."""
        free = self._free.get(address)
        line = free.pop() if free else None
        try:
            if line is None:
                line = self._line(address)
                async with _patience(CONNECT_SECONDS):
                    await line.connect()
            if anew or elapsed() - line.checked_at > _IDENTITY_SECONDS:
                async with _patience(OPERATION_SECONDS):
                    await line.identify()
        except TROUBLES:
            if line is not None:
                await line.close()
            await self._gone(address)
            raise
        self._identities[address] = (line.identity, line.checked_at)
        return line

    async def _gone(self, address: Address) -> None:
        """Something has failed there: who answers next may be another."""
        # Connections that nobody uses were cut with the one that failed; each of them would fail another probe.
        free, self._free[address] = self._free.get(address, []), []
        for line in free:
            await line.close()
        self._failures[address] = self._failures.get(address, 0) + 1
        self._identities.pop(address, None)
        self._forget_places()

    def _forget_places(self) -> None:
        if self._servers.kind in {"sentinel", "cluster"}:
            self._ranges = []

    def _line(self, address: Address, *, sentinel: bool = False) -> _Line:
        servers = self._servers
        options = {
            "socket_timeout": None,
            "socket_connect_timeout": None,
            "retry": Retry(NoBackoff(), 0),
            "driver_info": None,
            "protocol": 2,
            "db": 0 if sentinel else servers.db,
            **(servers.sentinel_options if sentinel else servers.options),
        }
        if servers.kind == "unix":
            return _Line(aredis.UnixDomainSocketConnection(path=address[0], **options), servers.db)
        kind = aredis.SSLConnection if options.pop("tls", False) else aredis.Connection
        if kind is aredis.SSLConnection and sentinel:
            options |= {name: value for name, value in servers.options.items() if name.startswith("ssl_")}
        return _Line(kind(host=address[0], port=address[1], **options), servers.db)

    def _place(self, key: bytes) -> Address:
        slot = key_slot(key)
        for last, address in self._ranges:
            if slot <= last:
                return address
        raise exceptions.ConnectionError("No server has the slot")

    # ---- where the servers are
    async def _find(self) -> None:
        trouble: Exception = exceptions.ConnectionError("No server is named")
        known = self._servers.addresses
        if self._servers.kind == "cluster":
            known = tuple(dict.fromkeys((*([self._knows] if self._knows else ()), *known, *self._free)))
        for address in known:
            line = self._line(address, sentinel=self._servers.kind == "sentinel")
            try:
                async with _patience(CONNECT_SECONDS):
                    await line.connect()
                async with _patience(OPERATION_SECONDS):
                    self._ranges = await (
                        self._ask_sentinel(line) if self._servers.kind == "sentinel" else _ask_cluster(line, address)
                    )
            except TROUBLES as error:
                trouble = error
            else:
                return
            finally:
                await line.close()
        raise trouble

    async def _ask_sentinel(self, line: _Line) -> list[tuple[int, Address]]:
        """https://redis.io/docs/latest/develop/reference/sentinel-clients/."""
        [answer] = await line.ask([("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._servers.service)])
        match answer:
            case [bytes(host), bytes(port)] if port.isdigit():
                return [(_SLOTS, (host.decode(), int(port)))]
            case None:
                raise exceptions.ConnectionError("The sentinel knows no such service")
            case exceptions.ResponseError():
                raise answer
        raise NonsenseError("A sentinel did not answer with an address")


async def _ask_cluster(line: _Line, asked: Address) -> list[tuple[int, Address]]:
    """https://redis.io/docs/latest/commands/cluster-slots/: [first, last, [host, port, …], …]; an empty host is the one asked."""
    [answer] = await line.ask([("CLUSTER", "SLOTS")])
    if isinstance(answer, exceptions.ResponseError):
        raise answer
    ranges: list[tuple[int, Address]] = []
    first_free = 0
    try:
        for first, last, (host, port, *_), *_ in sorted(answer, key=lambda part: part[0]):
            if first != first_free:
                raise exceptions.ConnectionError("The cluster does not cover all slots")
            first_free = last + 1
            ranges.append((last, ((host or b"").decode() or asked[0], int(port))))
    except (TypeError, ValueError, AttributeError, IndexError):
        raise NonsenseError("CLUSTER SLOTS was not answered with ranges") from None
    if first_free != _SLOTS:
        raise exceptions.ConnectionError("The cluster does not cover all slots")
    return ranges


class _patience:  # noqa: N801 - used like asyncio.timeout
    """As asyncio.timeout, but the time in which this process itself stood still is not the server's."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def __aenter__(self) -> None:
        loop = asyncio.get_running_loop()
        self._due = loop.time() + self._seconds * 0.9
        self._timeout = asyncio.timeout(self._seconds)
        await self._timeout.__aenter__()
        self._handle = loop.call_at(self._due, self._look)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handle.cancel()
        await self._timeout.__aexit__(kind, error, trace)

    def _look(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._due > self._seconds * 0.1:
            self._timeout.reschedule(now + self._seconds)
