"""The HTTP service that stood before extended-memory on port 3009, asked while it runs.

GET /list tells the keys with their times, GET /retrieve/{key} a value, POST /store writes one. What its database shows and it
does not: keys with a slash are listed but never retrieved, and values with NaN, Infinity or lone surrogates are answered 500.
"""

import hashlib
import ipaddress
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Self, TypeVar
from urllib.parse import quote

import httpx2
import msgspec
from msgspec import Raw, Struct

from unified_memory.model.errors import InvalidInputError, SourceError, SourceUnavailableError
from unified_memory.model.value import encode
from unified_memory.sources.base import (
    EXTENDED_MEMORY,
    Back,
    Found,
    Item,
    OlderSource,
    Options,
    Quarantined,
    Returned,
    Shape,
    Survey,
)
from unified_memory.sources.shim import Entry, entry_found, entry_key, entry_losses, entry_origin, written

# Seconds before it is asked again.
_PAUSES = (0.2, 0.4, 0.8)
_PAGE = 500
# The service itself and what may stand before it, when they cannot answer for now.
_LATER = {502, 503, 504}
_OK = 200
_FAILED = 500
_REFUSED = {400, 404, 414, 431}
# How Python's parser of JSON complains; other failures are those of the database, and pass.
_UNREADABLE = re.compile(r"\(char \d+\)\Z|Exceeds the limit \(\d+ digits\)")
# What a server commonly takes as the first line of a request is 64 KiB; the client refuses as much.
_MAX_PATH = 60_000
_HINT = "Name the address of the service, such as http://127.0.0.1:3009"
_BY_FILE = "migrate its database file (extended-memory-http-db) to carry it"


class _Listed(Struct, frozen=True):
    """What the service tells of a key."""

    key: str
    type: str | None = None
    created_at: str | None = None
    updated_at: str | None = None
    accessed_at: str | None = None
    access_count: int | None = None


class _Listing(Struct):
    metadata: list[_Listed]
    total_count: int


class _Retrieved(Struct):
    status: str
    key: str
    value: Raw = Raw(b"null")


class _Service(Struct):
    service: str
    version: str = ""


class _Health(_Service):
    persistence: dict[str, Any] = {}


class _Detail(Struct):
    detail: str


class _Failed(Struct):
    """Why a key has no value: the code and the reason of a quarantine."""

    code: str
    reason: str


_Answer = TypeVar("_Answer", bound=Struct)


class ShimHTTP(OlderSource):
    """The service at that address."""

    kind: ClassVar[str] = "extended-memory-http"
    takes: ClassVar[str] = "a URL"
    service: ClassVar[str] = EXTENDED_MEMORY

    def __init__(self, url: httpx2.URL, timeout: float) -> None:
        # Users and queries may be secrets: neither is shown.
        self._shown = str(url.copy_with(username=None, password=None, query=None, fragment=None))
        self._client = httpx2.Client(
            base_url=url,
            timeout=timeout,
            # Proxies that the environment names are not asked for this machine.
            trust_env=not _is_loopback(url.host),
        )
        self._known: tuple[bytes, str] | None = None

    @classmethod
    def open(cls, location: str, options: Options) -> Self:
        """The service there, which must answer; see Source."""
        try:
            url = httpx2.URL(location)
        except httpx2.InvalidURL as error:
            raise InvalidInputError("source", f"It is no URL: {error}", hint=_HINT) from None
        if url.scheme not in {"http", "https"} or not url.host or url.query or url.fragment:
            raise InvalidInputError("source", "It is no URL of a service", hint=_HINT)
        source = cls(url, options.timeout)
        try:
            source._health()
        except SourceError:
            source.close()
            raise
        return source

    def survey(self) -> Survey:
        """Lists all keys; see Source."""
        about, listed = self._health(), self._listed()
        slashes = sum("/" in one.key for one in listed)
        remarks = [
            f"extended-memory {about.version} over HTTP; its database is {about.persistence.get('path', 'unknown')}"
        ]
        if slashes:
            remarks.append(f"{slashes} keys hold a slash, which the service lists but never retrieves: {_BY_FILE}")
        remarks.append("Values with NaN, Infinity or lone surrogates are not answered by the service: " + _BY_FILE)
        remarks.append("The service counts what is read as accesses, and notes when")
        remarks.append("It deletes no single key, so that what is deleted here stays there after a return")
        return Survey(kind=self.kind, location=self._shown, records=len(listed), remarks=remarks)

    def read(self) -> Iterator[Found]:
        """Every key as listed, and its value; see Source. A key that went away meanwhile is left out."""
        for one in self._listed():
            found = self._one(one)
            if found is not None:
                yield found

    def token(self) -> object:
        """A hash over keys and when they were written; see Source. What is read there does not change it."""
        # Nothing was stored or retrieved as long as these are the same.
        counts = self._answered("GET", "/stats")
        if self._known is None or self._known[0] != counts:
            seen = hashlib.blake2b(digest_size=16)
            for one in sorted(self._listed(), key=lambda one: one.key):
                seen.update(encode((one.key, one.type, one.created_at, one.updated_at)))
            self._known = counts, seen.hexdigest()
        return self._known[1]

    def close(self) -> None:
        """See Source."""
        self._client.close()

    def lookup(self, origin: str) -> Item | Quarantined | None:
        """The key of that origin; see OlderSource. Its times are told by the listing only."""
        key = entry_key(origin)
        one = None if key is None else self._listed_one(key)
        return None if one is None else self._one(one)

    def find(self, shape: Shape, project: str | None, key: str) -> str | None:
        """The key; see OlderSource."""
        if shape != "entry" or project is not None or not key:
            return None
        reachable = _why_unreachable(key) is None
        there = self._value(key) if reachable else self._listed_one(key)
        return None if there is None else entry_origin(key)

    def put_back(self, backs: Sequence[Back]) -> list[Returned]:
        """Stores over HTTP, each by itself; nothing can be deleted so. See OlderSource."""
        return [self._put(back) for back in backs]

    def writable(self) -> str | None:
        """See OlderSource."""
        return None

    def _put(self, back: Back) -> Returned:
        key = entry_key(back.origin) if back.origin is not None else back.key
        if key is None or back.shape != "entry" or back.project is not None:
            return Returned(origin=None, lost=("It is no entry, which is all that the service holds",))
        if back.content is None:
            if self.find("entry", None, key) is None:
                return Returned(origin=None)
            return Returned(origin=entry_origin(key), lost=("That it was deleted: the service deletes no single key",))
        if not key:
            return Returned(origin=None, lost=("The older service takes no empty key",))
        value = written(back.value)
        if not value.answerable:
            return Returned(origin=None, lost=("It holds a number larger than the service can answer",))
        there = self._value(key) if _why_unreachable(key) is None else None
        if not isinstance(there, Raw) or written(bytes(there)).text != value.text:
            body = encode({"key": key, "value": Raw(value.text.encode())})
            self._answered("POST", "/store", body)
        return Returned(origin=entry_origin(key), lost=("Its times: the service takes its own", *entry_losses(back)))

    def _one(self, one: _Listed) -> Item | Quarantined | None:
        origin, raw = entry_origin(one.key), encode(one)
        entry = Entry(
            key=one.key,
            value=b"",
            type=one.type,
            created_at=one.created_at,
            updated_at=one.updated_at,
            accessed_at=one.accessed_at,
            access_count=one.access_count or 0,
        )
        if one.type == "pickle":
            # To ask for it would make the service run what it says.
            return entry_found(entry)
        why = _why_unreachable(one.key)
        if why is not None:
            return Quarantined(origin=origin, code="unsupported", reason=f"{why}: {_BY_FILE}", raw=raw)
        value = self._value(one.key)
        if value is None:
            return None
        if isinstance(value, _Failed):
            return Quarantined(origin=origin, code=value.code, reason=f"{value.reason}: {_BY_FILE}", raw=raw)
        entry.value = bytes(value)
        return entry_found(entry)

    def _value(self, key: str) -> Raw | _Failed | None:
        """The value as JSON text; None where there is none."""
        answer = self._ask("GET", "/retrieve/" + _segment(key))
        if answer.status_code in _REFUSED:
            return _Failed("unsupported", f"The service answers {answer.status_code} for its key")
        if answer.status_code == _FAILED:
            if not _is_json(answer):
                return _Failed(
                    "nan", "The service cannot answer its value, which holds NaN, Infinity or a lone surrogate"
                )
            why = self._decoded(answer.content, _Detail).detail
            if _UNREADABLE.search(why):
                return _Failed("malformed", f"The service cannot read its value ({why})")
        found = self._decoded(self._checked(answer), _Retrieved)
        if found.key != key:
            raise SourceError(self.kind, self._shown, f"Asked for the key {key!a}, it answers {found.key!a}")
        if found.status == "not_found":
            return None
        return found.value

    def _listed(self) -> list[_Listed]:
        """All keys, by the key.

        The service orders them by their last access, which every reader changes between two pages: then some come twice and
        as many are left out. Where that is seen, all of them are asked for at once.
        """
        seen: dict[str, _Listed] = {}
        totals = set()
        for listing in self._pages():
            totals.add(listing.total_count)
            seen.update((one.key, one) for one in listing.metadata)
        if totals != {len(seen)}:
            seen = {one.key: one for one in self._listing(-1, 0).metadata}
        return [seen[key] for key in sorted(seen)]

    def _listed_one(self, key: str) -> _Listed | None:
        """What the service tells of that key; what was accessed last is found first."""
        pages = 0
        for listing in self._pages():
            for one in listing.metadata:
                if one.key == key:
                    return one
            pages += 1
        if pages == 1:
            return None
        # Between two pages it may have moved to the front.
        return next((one for one in self._listing(-1, 0).metadata if one.key == key), None)

    def _pages(self) -> Iterator[_Listing]:
        offset = 0
        while True:
            listing = self._listing(_PAGE, offset)
            yield listing
            offset += len(listing.metadata)
            if not listing.metadata or offset >= listing.total_count:
                return

    def _listing(self, limit: int, offset: int) -> _Listing:
        return self._decoded(self._answered("GET", f"/list?limit={limit}&offset={offset}"), _Listing)

    def _health(self) -> _Health:
        found = self._decoded(self._answered("GET", "/health"), _Health)
        if found.service != EXTENDED_MEMORY:
            detail = f"It is the service {found.service!a}, not {EXTENDED_MEMORY}"
            raise SourceError(self.kind, self._shown, detail, hint=_HINT)
        return found

    def _decoded(self, body: bytes, kind: type[_Answer]) -> _Answer:
        try:
            return msgspec.json.decode(body, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            detail = f"It does not answer as extended-memory does: {error}"
            raise SourceError(self.kind, self._shown, detail, hint=_HINT) from None

    def _answered(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """The body of a good answer."""
        return self._checked(self._ask(method, path, body))

    def _checked(self, answer: httpx2.Response) -> bytes:
        if answer.status_code == _OK:
            return answer.content
        shown = answer.content[:200].decode("utf-8", "replace")
        failed = SourceUnavailableError if answer.status_code >= _FAILED else SourceError
        raise failed(self.kind, self._shown, f"It answers {answer.status_code}: {shown}", hint=_HINT)

    def _ask(self, method: str, path: str, body: bytes | None = None) -> httpx2.Response:
        """The answer; asked again where there is none. Every request may be sent twice, as storing is by key."""
        headers = {"content-type": "application/json"} if body is not None else None
        failed: httpx2.TransportError | None = None
        answer: httpx2.Response | None = None
        for pause in (0.0, *_PAUSES):
            time.sleep(pause)
            try:
                answer = self._client.request(method, path, content=body, headers=headers)
            except httpx2.TransportError as error:
                answer, failed = None, error
            else:
                if answer.status_code not in _LATER:
                    break
        if answer is None:
            detail = f"It does not answer: {str(failed) or type(failed).__name__}"
            hint = "Start the older service, or migrate its database file"
            raise SourceUnavailableError(self.kind, self._shown, detail, hint=hint) from failed
        return answer


def _segment(key: str) -> str:
    """A key as one segment of a path; one of dots alone would be taken for a step upwards."""
    return key.replace(".", "%2E") if key in {".", ".."} else quote(key, safe="")


def _why_unreachable(key: str) -> str | None:
    if not key:
        return "The service retrieves no empty key"
    if "/" in key:
        return "The service lists a key with a slash but never retrieves it"
    if len(quote(key, safe="")) > _MAX_PATH:
        return "The key is too long for an address"
    return None


def _is_json(answer: httpx2.Response) -> bool:
    return str(answer.headers.get("content-type", "")).startswith("application/json")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
