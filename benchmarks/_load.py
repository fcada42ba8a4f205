"""An HTTP/1.1 load generator in a process of its own, so that it shares no interpreter lock with what it measures.

A closed loop: every connection is kept alive and has one request in flight, sent as bytes that were made beforehand.
Run as a module it takes plans on standard input and answers outcomes on standard output; `LoadGenerator` starts it.

Why not wrk: against the same bare ASGI app both cost 13-14 microseconds of processor time a request (sockets, mostly)
and drew the same rate from it, while bodies that differ would need a Lua program in wrk.
"""

import asyncio
import gc
import itertools
import math
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import IO, Self, cast

import msgspec
import uvloop
from msgspec import Struct

from benchmarks._machine import ROOT

# How long answers may take to come in after the last request was sent.
PATIENCE_SECONDS = 60.0
_ERRORS_TOLD = 5
_LENGTH_BYTES = 8
_END_OF_HEAD = b"\r\n\r\n"
_CONTENT_LENGTH = b"\r\ncontent-length: "


class Plan(Struct, frozen=True, kw_only=True):
    """What to send. `requests` are whole HTTP requests, sent in turn over all connections.

    With `repeat` they begin again when they run out, else the round ends early. An answer whose status is not
    `status` is an error.
    """

    host: str
    port: int
    connections: int
    seconds: float
    requests: Sequence[bytes]
    repeat: bool = True
    status: int = 200


class Outcome(Struct, frozen=True, kw_only=True):
    """What came back. `requests` are those answered as expected; latencies in milliseconds, nearest-rank of all of them.

    `errors` counts what went wrong, `told` describes the first few. `busy` is the share of one processor that the
    generator itself used: near 1.0 it measures itself.
    """

    requests: int
    seconds: float
    p50: float
    p95: float
    p99: float
    errors: int
    told: list[str]
    busy: float

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile of samples in ascending order: the smallest that `percent` of them do not exceed.

    0 where there are none.
    """
    if not ordered:
        return 0.0
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def request(method: str, path: str, body: bytes = b"") -> bytes:
    """The bytes of an HTTP/1.1 request; a body is JSON."""
    head = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\n"
    if body:
        head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
    return head.encode("ascii") + b"\r\n" + body


class LoadGenerator:
    """The generator's process. A context manager; rounds may follow one another on any servers."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks._load"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._plans = cast("IO[bytes]", self._process.stdin)
        self._outcomes = cast("IO[bytes]", self._process.stdout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, plan: Plan) -> Outcome:
        """Carries the plan out and returns when its last answer is in.

        Raises RuntimeError where the generator itself fails.
        """
        _write(self._plans, msgspec.msgpack.encode(plan))
        answer = _read(self._outcomes)
        if answer is None:
            raise RuntimeError(f"The load generator ended with status {self._process.wait()}")
        return msgspec.msgpack.decode(answer, type=Outcome)

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()


class _Round:
    """One plan being carried out."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.requests: Iterator[bytes] = itertools.cycle(plan.requests) if plan.repeat else iter(plan.requests)
        self.status = b"HTTP/1.1 %d " % plan.status
        self.latencies: list[float] = []
        self.deadline = math.inf
        self.errors = 0
        self.told: list[str] = []
        self._active = 0
        self._over = asyncio.Event()

    async def run(self) -> Outcome:
        loop = asyncio.get_running_loop()
        connections = [
            (await loop.create_connection(lambda: _Connection(self), self.plan.host, self.plan.port))[1]
            for _ in range(self.plan.connections)
        ]
        self._active = len(connections)
        processor = time.process_time()
        start = time.perf_counter()
        self.deadline = start + self.plan.seconds
        for connection in connections:
            connection.send_next()
        try:
            await asyncio.wait_for(self._over.wait(), self.plan.seconds + PATIENCE_SECONDS)
        except TimeoutError:
            self.error(f"{self._active} connections had no answer within {PATIENCE_SECONDS:g} s")
        seconds = time.perf_counter() - start
        busy = (time.process_time() - processor) / seconds
        for connection in connections:
            connection.close()
        ordered = sorted(self.latencies)
        p50, p95, p99 = (percentile(ordered, percent) * 1000 for percent in (50, 95, 99))
        return Outcome(
            requests=len(ordered),
            seconds=seconds,
            p50=p50,
            p95=p95,
            p99=p99,
            errors=self.errors,
            told=self.told,
            busy=busy,
        )

    def error(self, what: str) -> None:
        self.errors += 1
        if len(self.told) < _ERRORS_TOLD:
            self.told.append(what)

    def leave(self) -> None:
        """A connection has nothing more to do."""
        self._active -= 1
        if self._active == 0:
            self._over.set()


class _Connection(asyncio.Protocol):
    """One connection: sends a request, takes its whole answer, sends the next."""

    __slots__ = ("_done", "_partial", "_round", "_sent", "_transport")

    def __init__(self, of: _Round) -> None:
        self._round = of
        self._partial = b""
        self._sent = 0.0
        self._done = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not inherit from asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def send_next(self) -> None:
        data = next(self._round.requests, None)
        if data is None:
            self._leave()
            return
        self._sent = time.perf_counter()
        self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        if self._partial:
            data = self._partial + data
        # Servers send head and body apart, so that an answer often comes in two pieces.
        head = data.find(_END_OF_HEAD)
        if head < 0:
            self._partial = data
            return
        length = data.find(_CONTENT_LENGTH, 0, head)
        if length < 0:
            self._fail(f"an answer without content-length: {data[:200]!r}")
            return
        length += len(_CONTENT_LENGTH)
        if len(data) < head + len(_END_OF_HEAD) + int(data[length : data.find(b"\r", length)]):
            self._partial = data
            return
        now = time.perf_counter()
        self._partial = b""
        current = self._round
        if data.startswith(current.status):
            current.latencies.append(now - self._sent)
        else:
            current.error(data[:500].decode("utf-8", "replace"))
        if now < current.deadline:
            self.send_next()
        else:
            self._leave()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done:
            self._fail(f"the connection was lost: {exc or 'closed by the server'}")

    def close(self) -> None:
        self._done = True
        self._transport.close()

    def _fail(self, what: str) -> None:
        self._round.error(what)
        self._leave()
        self.close()

    def _leave(self) -> None:
        if not self._done:
            self._done = True
            self._round.leave()


def _write(stream: IO[bytes], message: bytes) -> None:
    stream.write(len(message).to_bytes(_LENGTH_BYTES, "big"))
    stream.write(message)
    stream.flush()


def _read(stream: IO[bytes]) -> bytes | None:
    length = stream.read(_LENGTH_BYTES)
    if len(length) < _LENGTH_BYTES:
        return None
    return stream.read(int.from_bytes(length, "big"))


def main() -> None:
    """Carries out the plans that come on standard input."""
    # A collection in the middle of a round would be counted as the server's slowness.
    gc.disable()
    while (message := _read(sys.stdin.buffer)) is not None:
        plan = msgspec.msgpack.decode(message, type=Plan)

        async def carry_out(plan: Plan = plan) -> Outcome:
            return await _Round(plan).run()

        _write(sys.stdout.buffer, msgspec.msgpack.encode(uvloop.run(carry_out())))
        gc.collect()


if __name__ == "__main__":
    main()
