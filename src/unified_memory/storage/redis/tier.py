"""The hot tier in Redis or Valkey. The package's docstring says why it is right."""

import asyncio
import random
import secrets
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from itertools import count
from typing import Any

from redis import exceptions

from unified_memory.model.clock import SECOND, Clock
from unified_memory.model.errors import StorageError
from unified_memory.model.memory import Memory
from unified_memory.storage.base import Access
from unified_memory.storage.hot import Hot, HotCounts, HotState, Pledge, Ref, Ticket
from unified_memory.storage.redis import scripts
from unified_memory.storage.redis.copies import (
    BUCKETS,
    COPY,
    KEY_DIGEST_BYTES,
    MARK,
    TICKET,
    bucket_key,
    bucket_of,
    key_digest,
    member,
    pack_copy,
    unpack_copy,
)
from unified_memory.storage.redis.link import TROUBLES, Command, Link, NonsenseError, NotMasterError, StrangeServerError
from unified_memory.storage.redis.scripts import NAMES
from unified_memory.storage.redis.url import parse_url
from unified_memory.storage.untold import EraWatch, elapsed
from unified_memory.storage.warm import TrustKeeper

_MILLISECONDS = 1_000  # in microseconds
TICKET_SECONDS = 10
MARK_SECONDS = 60
# More would take longer on the wire than the operation may.
_LARGEST_BYTES = 1 << 20
# Commands of one exchange, and looks that are under way at once.
_BATCH = 128
_MOST_LOOKS = 4
_USE_SECONDS = 1.0
_CLOSE_SECONDS = 1.0
_MUTED_SECONDS = 1.0
_FIRST_PROBE_SECONDS = 0.1
_LAST_PROBE_SECONDS = 5.0
# Two nodes that reach two servers by one URL would take the era from each other without end.
_TAKEOVER_SECONDS = 5.0
_PROBE_BYTES = 1_000
_PROBE_MS = 1_000
# A mute that lasts no longer is renewed, where there are writes.
_RENEW_MUTE_SECONDS = 7
_BUSY = "Copies are not used for now: a node could not reach Redis"
_STRANGER = "The hot copies are kept on another server than this node reaches"

Request = tuple[bytes, Command]


class _Marked(Pledge):
    """A pledge that remembers which keys had a copy."""

    had: frozenset[Ref] = frozenset()


def _words(error: Exception) -> str:
    """What is wrong, without anything that an error may quote."""
    match error:
        case TimeoutError() | exceptions.TimeoutError():
            return "Redis does not answer (time-out)"
        case exceptions.OutOfMemoryError():
            return "Redis is out of memory"
        case exceptions.ReadOnlyError() | NotMasterError():
            return "Redis is a replica and takes no writes"
        case exceptions.BusyLoadingError():
            return "Redis is loading its data"
        case exceptions.AuthenticationError() | exceptions.NoPermissionError():
            return "Redis refuses the user or the password"
        case exceptions.ClusterDownError() | exceptions.TryAgainError() | exceptions.AskError():
            return "The cluster does not serve all slots now"
        case StrangeServerError():
            return _STRANGER
        case NonsenseError() | exceptions.InvalidResponse():
            return "Redis answers nonsense"
        case exceptions.ConnectionError() | OSError():
            return "Redis does not answer (no connection)"
    word = str(error).partition(" ")[0]
    return f"Redis refuses ({word})" if word.isascii() and word.isupper() else "Redis refuses"


class RedisHot(Hot):
    """Copies in Redis, shared by all nodes whose warm tier is the same.

    `max_bytes`: of all copies together. `ttl`: seconds for which a copy lives at most. With `reads` off it gives no copies
    but still makes those of others unreadable. `node`: a name that no other process has. Raises InvalidInputError for a bad
    `url`.
    """

    def __init__(
        self,
        url: str,
        keeper: TrustKeeper,
        *,
        clock: Clock,
        max_bytes: int,
        ttl: float,
        reads: bool = True,
        node: str | None = None,
    ) -> None:
        self._watch = EraWatch(keeper, clock, node)
        self._link = Link(parse_url(url), self._allowed)
        self._clock = clock
        self._reads = reads
        self._ttl_ms = max(round(ttl * 1000), 1)
        # The order of use outlives every copy in it.
        self._order_ms = self._ttl_ms + MARK_SECONDS * 1000
        self._bucket_bytes = max_bytes // BUCKETS
        self._largest = min(self._bucket_bytes // 4, _LARGEST_BYTES)
        self._token = secrets.token_bytes(8)
        self._tokens = count(1)
        self._counts = HotCounts()
        # Copies and bytes of each bucket of an era as last told.
        self._told: dict[int, tuple[int, int]] = {}
        self._told_of = ""
        self._used: dict[bytes, dict[bytes, int]] = {}
        # Why Redis is left alone until a probe succeeds.
        self._trouble: str | None = None
        self._wrote = False
        self._stranger = False
        # Whether the era is one that this node has begun, where there was none.
        self._began = False
        self._takeover_at = float("-inf")
        self._looks = 0
        self._waiting: deque[tuple[Sequence[Ref], int, asyncio.Future[list[Memory | Ticket | None]]]] = deque()
        self._lookers: set[asyncio.Task[None]] = set()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._closed = False

    # ---- the contract
    async def open(self) -> None:
        """Reaches for the servers and the era; see Hot.open."""
        await self._renew()

    async def close(self) -> None:
        """Ends what goes on in the background, and every connection; see Hot.close."""
        self._closed = True
        if resting := self._tasks.get("rest"):
            # Given up half way, it would leave others without copies until the mute runs out.
            await asyncio.wait({resting}, timeout=_CLOSE_SECONDS)
        tasks = [*self._tasks.values(), *self._lookers]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._watch.close()
        await self._link.close()

    async def look(self, namespace: str, key: str, now: int) -> Memory | Ticket | None:
        """See Hot.look."""
        return (await self.look_many(((namespace, key),), now))[0]

    async def look_many(self, refs: Sequence[Ref], now: int) -> list[Memory | Ticket | None]:
        """See Hot.look_many."""
        found: list[Memory | Ticket | None] = []
        for start in range(0, len(refs), _BATCH):
            found += await self._look_in_turn(refs[start : start + _BATCH], now)
        hits = sum(isinstance(one, Memory) for one in found)
        self._counts.hits += hits
        self._counts.misses += len(found) - hits
        return found

    async def _look_in_turn(self, refs: Sequence[Ref], now: int) -> list[Memory | Ticket | None]:
        """Looks at once; where many look, those who come later go together in one exchange."""
        if self._looks >= _MOST_LOOKS:
            turn: asyncio.Future[list[Memory | Ticket | None]] = asyncio.get_running_loop().create_future()
            self._waiting.append((refs, now, turn))
            return await turn
        self._looks += 1
        try:
            return await self._look(refs, now)
        finally:
            if self._waiting:
                task = asyncio.create_task(self._look_for_others())
                self._lookers.add(task)
                task.add_done_callback(self._lookers.discard)
            else:
                self._looks -= 1

    async def _look_for_others(self) -> None:
        turns: list[tuple[Sequence[Ref], int, asyncio.Future[list[Memory | Ticket | None]]]] = []
        try:
            while self._waiting:
                refs: list[Ref] = []
                turns.clear()
                while self._waiting and len(refs) + len(self._waiting[0][0]) <= _BATCH:
                    turns.append(self._waiting.popleft())
                    refs += turns[-1][0]
                found = await self._look(refs, max(now for _, now, _ in turns))
                for asked, _, turn in turns:
                    if not turn.done():
                        turn.set_result(found[: len(asked)])
                    del found[: len(asked)]
        finally:
            self._looks -= 1
            for asked, _, turn in (*turns, *self._waiting):
                if not turn.done():
                    turn.set_result([None] * len(asked))
            self._waiting.clear()

    async def _look(self, refs: Sequence[Ref], now: int) -> list[Memory | Ticket | None]:
        nothing: list[Memory | Ticket | None] = [None] * len(refs)
        if not self._reads or self._trouble or self._closed:
            return nothing
        if self._watch.worn():
            self._begin_task("renew", self._renew)
        trust = self._watch.trusted()
        if trust is None:
            return nothing
        era = trust.era
        requests: list[Request] = []
        tickets: list[Ticket] = []
        places: list[tuple[bytes, bytes]] = []
        for namespace, key in refs:
            token = self._token + next(self._tokens).to_bytes(8, "big")
            digest = key_digest(namespace, key)
            bucket = bucket_key(era, bucket_of(digest))
            where = bucket + b":" + digest
            requests.append((where, ("SET", where, TICKET + token, "NX", "GET", "PX", TICKET_SECONDS * 1000)))
            tickets.append(Ticket(namespace, key, token, era))
            places.append((bucket, digest))
        try:
            answers = await self._link.ask(requests)
            found = [
                ticket if answer is None else self._read(answer, ticket, place, now)
                for ticket, answer, place in zip(tickets, answers, places, strict=True)
            ]
        except StrangeServerError:
            self._begin_task("renew", self._renew)
            return nothing
        except TROUBLES as error:
            self._failed(error)
            return nothing
        # What was asked in one era must not be given out in another, nor after the lease.
        still = self._watch.trusted()
        return found if still is not None and still.era == era else nothing

    def _read(self, answer: Any, ticket: Ticket, place: tuple[bytes, bytes], now: int) -> Memory | None:
        """The memory of a copy. Raises NonsenseError where something stands there that nobody has put."""
        kind = answer[:1] if isinstance(answer, bytes) else b""
        if kind in {TICKET, MARK}:
            return None
        if kind != COPY:
            raise NonsenseError("What stands at a key is neither copy nor ticket nor mark")
        memory = unpack_copy(answer, ticket.namespace, ticket.key)
        if memory is None:
            self._counts.failures += 1
        if memory is None or not memory.visible(now):
            return None
        self._used.setdefault(place[0], {})[member(place[1], len(answer))] = now // _MILLISECONDS
        self._begin_task("use", self._write_use)
        return memory

    async def fill(self, found: Sequence[tuple[Ticket, Memory]], now: int) -> None:
        """See Hot.fill."""
        trust = self._watch.trusted()
        requests = []
        for ticket, memory in found:
            copy = self._copy(memory, now)
            if copy and trust and trust.era == ticket.era:
                ref = (ticket.namespace, ticket.key)
                requests.append(
                    self._request(scripts.FILL, ticket.era, ref, TICKET + ticket.token, *copy, *self._room(ref, now))
                )
        self._counts.refused += len(found) - len(requests)
        put = await self._tell(requests, self._learn) or []
        self._counts.fills += sum(put)
        self._counts.refused += len(put) - sum(put)

    async def begin(self, refs: Sequence[Ref], now: int) -> Pledge:  # noqa: ARG002 - the server's clock is asked
        """See Hot.begin."""
        self._wrote = True
        pledge = _Marked(refs, secrets.token_bytes(8), "")
        era = (await self._watch.ask()).era
        if era:
            wanted = list(dict.fromkeys(refs))
            requests = [
                self._request(scripts.BEGIN, era, ref, pledge.token, MARK_SECONDS * 1000, key_digest(*ref))
                for ref in wanted
            ]
            answers = await self._tell(requests, _flag)
            if answers is None:
                await self._give_up()
            else:
                pledge.era = era
                pledge.had = frozenset(ref for ref, had in zip(wanted, answers, strict=True) if had)
        await self._watch.held()
        return pledge

    async def settle(self, pledge: Pledge, memories: Sequence[Memory], now: int) -> None:
        """See Hot.settle."""
        self._wrote = True
        era = (await self._watch.ask()).era
        if era:
            had = pledge.had if isinstance(pledge, _Marked) and self._reads and pledge.era == era else None
            stand = {(memory.namespace, memory.key): memory for memory in memories}
            requests = []
            for ref in dict.fromkeys(pledge.refs):
                memory = stand.get(ref)
                copy = None
                if memory is not None and had is not None and (ref in had or memory.session_id is not None):
                    copy = self._copy(memory, now)
                requests.append(
                    self._request(
                        scripts.SETTLE,
                        era,
                        ref,
                        pledge.token,
                        b"" if memory is None else memory.version,
                        *(copy or (b"", 1)),
                        *self._room(ref, now),
                    )
                )
            if await self._tell(requests, self._learn) is None:
                await self._give_up()
        await self._watch.held()

    async def _give_up(self) -> None:
        """Ends the era, which could not be told of a write. The probe may have succeeded before that mute began; so one more."""
        await self._watch.end()
        self._begin_task("probe", self._probe)

    async def outlive(self, now: int) -> None:  # noqa: ARG002 - time is the watch's
        """See Hot.outlive."""
        await self._watch.ask()
        await self._watch.held()

    async def count(self, accesses: Sequence[Access]) -> None:
        """See Hot.count."""
        trust = self._watch.trusted()
        if trust is None or self._trouble:
            return
        requests = [
            self._request(scripts.COUNT, trust.era, (one.namespace, one.key), one.id, one.count, max(one.last, 0))
            for one in accesses
            if one.key
        ]
        await self._tell(requests, _flag)

    def rest(self) -> None:
        """See Hot.rest. Ends the era that this node has begun, too: where nobody else reads, none begins again, and writes need
        not tell anybody. One that it has found is used by others.
        """
        self._reads = False
        if self._began:
            self._begin_task("rest", self._end_era)

    def state(self) -> HotState:
        """See Hot.state."""
        known = self._watch.known
        muted = known is not None and known.muted
        trouble = self._trouble
        if trouble is None and self._reads and muted:
            trouble = _BUSY
        if trouble is None and self._reads and self._stranger:
            trouble = _STRANGER
        counts = self._counts
        if self._told:
            counts.entries = sum(entries for entries, _ in self._told.values())
            counts.bytes = sum(size for _, size in self._told.values())
        trusted = self._reads and trouble is None and known is not None and bool(known.era)
        return HotState("redis", trusted=trusted, trouble=trouble, note=None, counts=counts)

    # ---- asking
    def _allowed(self) -> frozenset[str]:
        known = self._watch.known
        return known.servers if known is not None else frozenset()

    def _request(self, script: bytes, era: str, ref: Ref, *arguments: bytes | int) -> Request:
        digest = key_digest(*ref)
        bucket = bucket_key(era, bucket_of(digest))
        where = bucket + b":" + digest
        return where, ("EVALSHA", NAMES[script], 2, where, bucket, *arguments)

    def _room(self, ref: Ref, now: int) -> tuple[bytes, int, int, int]:
        """What a script that puts a copy must know of its bucket."""
        return key_digest(*ref), now // _MILLISECONDS, self._bucket_bytes, self._order_ms

    def _copy(self, memory: Memory, now: int) -> tuple[bytes, int] | None:
        """A copy and its lifetime in milliseconds; None where none may be put."""
        lifetime = self._ttl_ms
        if memory.expires_at is not None:
            lifetime = min(lifetime, (memory.expires_at - now) // _MILLISECONDS)
        if lifetime <= 0 or len(memory.value) > self._largest:
            return None
        copy = pack_copy(memory)
        return (copy, lifetime) if len(copy) <= self._largest else None

    async def _tell(self, requests: Sequence[Request], accept: Callable[[bytes, Any], int]) -> list[int] | None:
        """What `accept` makes of each answer, given the key; None where not all could be told."""
        if self._trouble:
            return None
        told: list[int] = []
        try:
            for start in range(0, len(requests), _BATCH):
                batch = requests[start : start + _BATCH]
                answers = await self._link.ask(batch)
                told += [accept(where, answer) for (where, _), answer in zip(batch, answers, strict=True)]
        except TROUBLES as error:
            self._failed(error)
            return None
        return told

    def _learn(self, where: bytes, answer: Any) -> int:
        """Takes down what a script tells of the bucket; 1 where it has put a copy. Raises NonsenseError."""
        match answer:
            case [0 | 1 as put, int(evicted), int(entries), int(size)]:
                self._counts.evictions += evicted
                known = self._watch.known
                if known is not None and known.era != self._told_of:
                    self._told.clear()
                    self._told_of = known.era
                self._told[bucket_of(where[-KEY_DIGEST_BYTES:])] = (entries, size)
                return int(put)
        raise NonsenseError("A script was answered otherwise than it answers")

    # ---- in the background
    def _begin_task(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Starts it unless it is under way."""
        task = self._tasks.get(name)
        if not self._closed and (task is None or task.done()):
            self._tasks[name] = asyncio.create_task(work(), name=f"hot tier: {name}")

    async def _renew(self) -> None:
        """Asks for the era, and begins one where there is none, or where it is kept on other servers than are reached here."""
        try:
            trust = await self._watch.ask()
            if not self._reads:
                return
            if trust.muted:
                self._begin_task("mute", self._outlast_mute)
            if self._trouble or trust.muted:
                return
            servers = await self._link.servers()
            if trust.era and servers <= trust.servers:
                self._stranger = False
                return
            servers = await self._link.servers(anew=True)
            self._stranger = bool(trust.era) and not servers <= trust.servers
            if self._stranger:
                if elapsed() < self._takeover_at:
                    return
                self._takeover_at = elapsed() + _TAKEOVER_SECONDS
            if self._stranger or not trust.era:
                found = trust.era
                trust = await self._watch.begin_era(found, sorted(servers))
                self._began = not found and trust.era != found
                self._stranger = bool(trust.era) and not servers <= trust.servers
        except StorageError:
            self._counts.failures += 1
        except TROUBLES as error:
            self._failed(error)

    async def _outlast_mute(self) -> None:
        """Notices that a mute is over, also where nobody looks."""
        while self._watch.known is not None and self._watch.known.muted:
            await asyncio.sleep(_MUTED_SECONDS)
            await self._renew()

    async def _end_era(self) -> None:
        try:
            await self._watch.end()
            await self._watch.unmute()
        except StorageError:
            self._counts.failures += 1

    async def _write_use(self) -> None:
        """Tells which copies were used, all of a second at once."""
        await asyncio.sleep(_USE_SECONDS)
        used, self._used = self._used, {}
        requests: list[Request] = []
        for bucket, members in used.items():
            scores = [part for text, instant in members.items() for part in (instant, text)]
            requests.append((bucket, ("ZADD", bucket, "XX", "GT", *scores)))
        await self._tell(requests, _number)

    def _failed(self, error: Exception) -> None:
        """Leaves Redis alone until a probe succeeds."""
        self._counts.failures += 1
        if self._trouble is None:
            self._trouble = _words(error)
        self._begin_task("probe", self._probe)

    async def _probe(self) -> None:
        delay = _FIRST_PROBE_SECONDS
        while True:
            await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 - so that nodes do not ask all at once
            await self._stay_mute()
            try:
                await self._try()
            except TROUBLES as error:
                self._trouble = _words(error)
                delay = min(delay * 2, _LAST_PROBE_SECONDS)
            else:
                try:
                    await self._watch.unmute()
                except StorageError:
                    # It runs out by itself.
                    self._counts.failures += 1
                    break
                if self._watch.mute_until <= self._clock.now():
                    break
                # A write that was under way has begun another mute.
        self._trouble = None
        self._begin_task("renew", self._renew)

    async def _stay_mute(self) -> None:
        """Goes on being mute while there are writes, so that each of them need not end an era."""
        rest = self._watch.mute_until - self._clock.now()
        if self._wrote and 0 < rest < _RENEW_MUTE_SECONDS * SECOND:
            self._wrote = False
            try:
                await self._watch.mute()
            except StorageError:
                self._counts.failures += 1

    async def _try(self) -> None:
        """Writes to all servers by script and reads back. Raises one of TROUBLES."""
        value = secrets.token_bytes(_PROBE_BYTES)
        requests: list[Request] = []
        for bucket in range(BUCKETS):
            where = bucket_key(f"probe {self._token.hex()}", bucket)
            requests.append((where, ("EVALSHA", NAMES[scripts.PROBE], 1, where, _PROBE_MS, value)))
        if any(answer != value for answer in await self._link.ask(requests, strangers=True)):
            raise NonsenseError("What was written is not what is read")


def _number(where: bytes, answer: Any) -> int:  # noqa: ARG001 - as RedisHot._learn
    if not isinstance(answer, int):
        raise NonsenseError("A command was answered otherwise than with a number")
    return answer


def _flag(where: bytes, answer: Any) -> int:
    if _number(where, answer) not in {0, 1}:
        raise NonsenseError("A script was answered otherwise than it answers")
    return int(answer)
