"""The proxy on port 3009: the HTTP service of extended-memory, by the older one, by both or by ours."""

import json
import logging
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from unified_memory.model.errors import MigrationStateError, SourceUnavailableError, TooLargeError, UnifiedMemoryError
from unified_memory.proxy.forward import BAD_GATEWAY, Forward, LostAnswerError
from unified_memory.proxy.gate import OURS
from unified_memory.proxy.shim import RETRIEVE, Request, Shim, stored_key
from unified_memory.proxy.stand import Place, Stand
from unified_memory.rest.exchange import JSON, Answer, Disconnected, Receive, Scope, Send, read_body, send_answer
from unified_memory.settings import is_loopback
from unified_memory.sources.ledger import Phase

NO_OLDER = "The memories have not moved here, and --older does not say where the older service is"
OK = 200
WRITES = {("POST", "/store"), ("DELETE", "/clear")}
log = logging.getLogger("unified_memory.proxy")


class ShimProxy:
    """An ASGI application. `older`: None where there is no older service any more. `local`: only this machine reaches it, so
    Host and Origin must name it.
    """

    def __init__(self, stand: Stand, shim: Shim, older: Forward | None, *, max_body: int, local: bool = True) -> None:
        self._stand = stand
        self._shim = shim
        self._older = older
        self._max_body = max_body
        self._local = local

    async def start(self) -> None:
        """Opens what it stands on. Raises StorageError and below."""
        await self._stand.open()

    def end_streams(self) -> None:
        """There is nothing that would not end by itself."""

    async def stop(self) -> None:
        """Ends what is under way beside the answers, and closes."""
        await self._stand.close()
        if self._older is not None:
            await self._older.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            raise TypeError(scope["type"])
        if self._local and foreign(scope):
            await send_answer(send, _detail(403, "This service is for programs of this machine"))
            return
        try:
            body = await read_body(scope, receive, self._max_body)
        except TooLargeError as error:
            await send_answer(send, _refusal(413, error))
            return
        except Disconnected:
            return
        await send_answer(send, await self._answer(scope, body))

    async def _answer(self, scope: Scope, body: bytes) -> Answer:
        try:
            async with self._stand.gate.enter() as phase:
                if phase in OURS:
                    answer = await self._shim.answer(_request(scope, body))
                    if _is_write(scope, answer):
                        self._stand.carry_back(phase)
                    return answer
                return await self._by_older(phase, scope, body)
        except SourceUnavailableError as error:
            return _refusal(BAD_GATEWAY, error)
        except MigrationStateError as error:
            return _refusal(503, error)
        except UnifiedMemoryError as error:
            log.warning("A request was not answered: %s: %s", error.code, error.detail)
            return _refusal(500, error)

    async def _by_older(self, phase: Phase, scope: Scope, body: bytes) -> Answer:
        if self._older is None:
            raise SourceUnavailableError("older service", "", NO_OLDER)
        try:
            answer = await self._older.pass_on(scope, body)
        except LostAnswerError:
            # Whatever it has done, ours is to be the same.
            await self._mirror(phase, scope, body)
            raise
        if _is_write(scope, answer):
            await self._mirror(phase, scope, body)
        elif scope["method"] == "GET" and answer.status == OK:
            self._compare(phase, scope, answer)
        return answer

    async def _mirror(self, phase: Phase, scope: Scope, body: bytes) -> None:
        asked = scope["method"], scope["path"]
        if asked in WRITES:
            await self._stand.mirror(phase, lambda: self._written(asked[1], body))

    async def _written(self, path: str, body: bytes) -> list[Place]:
        """Where the older service was written."""
        if path == "/clear":
            return [Place("entry", None, key) for key in await self._shim.keys()]
        key = stored_key(body)
        return [] if key is None else [Place("entry", None, key)]

    def _compare(self, phase: Phase, scope: Scope, answer: Answer) -> None:
        path = scope["path"]
        if path.startswith(RETRIEVE):
            key = path[len(RETRIEVE) :]
            self._stand.compare(phase, "retrieve", _value(answer.body), lambda: self._shim.value(key))
        elif path == "/list":
            total = _parsed(answer.body).get("total_count")
            self._stand.compare(phase, "list", total, self._shim.count)


def _request(scope: Scope, body: bytes) -> Request:
    told = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
    return Request(scope["method"], scope["path"], query, body, told.get("content-type"), told.get("host", ""))


def _is_write(scope: Scope, answer: Answer) -> bool:
    return answer.status == OK and (scope["method"], scope["path"]) in WRITES


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def _value(body: bytes) -> bytes | None:
    """The value that an answer of /retrieve tells, spelled as ours would be; None where it tells none."""
    told = _parsed(body)
    if "value" not in told:
        return None
    return json.dumps(told["value"], ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def _refusal(status: int, error: UnifiedMemoryError) -> Answer:
    return _detail(status, error.detail + (f". {error.hint}" if error.hint else ""))


def _detail(status: int, words: str) -> Answer:
    return Answer(json.dumps({"detail": words}).encode(), status, (JSON,))


def foreign(scope: Scope) -> bool:
    """Whether a page of another origin may have sent it: Host or Origin names another machine."""
    for name, value in scope["headers"]:
        if name in {b"host", b"origin"}:
            told = value.decode("latin-1")
            try:
                host = urlsplit(told if name == b"origin" else f"//{told}").hostname
            except ValueError:
                return True
            if host is None or not is_loopback(host):
                return True
    return False
